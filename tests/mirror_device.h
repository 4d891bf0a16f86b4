/* mirror_device.h - a GPU with host memory, for tests that keep their data there.
 *
 * Every operation's tensors are copied to the GPU, the CUDA backend computes, and they are copied
 * back: whole ranges of memory, including the gaps between rows, so that a test detects writes
 * there. Overlapping ranges are copied as one, so that an operation in place, or on slices of one
 * matrix, is so on the GPU, too; addresses are kept modulo 256, so that unaligned data stay
 * unaligned. The test fails on a write before or after a range, where the GPU has NaN, and on a
 * write into an input tensor.
 *
 * With EASYFIRST_MIRROR=exact in the environment each range is an exact allocation, without padding
 * before or after it, for tools that check bounds (compute-sanitizer).
 *
 * device_alloc allocates host memory. Packed weights are on the GPU.
 */
#ifndef EASYFIRST_TESTS_MIRROR_DEVICE_H
#define EASYFIRST_TESTS_MIRROR_DEVICE_H

#include "kernels/device.h"

/* Closed by device_close. */
int mirror_open(Device **device, int gpu, Error *err);

#endif
