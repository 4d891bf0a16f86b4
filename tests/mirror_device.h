/* mirror_device.h - a GPU behind memory of the host, for tests that keep their data there.
 *
 * Every operation's tensors are copied to the GPU, the CUDA backend computes, and they are copied
 * back: whole ranges of memory, with what lies between the rows, so that a test sees what was
 * written there. Ranges that overlap travel as one, so that an operation in place, or on slices of
 * one matrix, is that on the GPU, too; addresses keep their place within 256 bytes, so that what is
 * not aligned stays so. Found on the way, and a failed test: a write in front of a range or behind
 * it, where the GPU has NaN, and one into a tensor that is only read.
 *
 * With EASYFIRST_MIRROR=exact in the environment there is nothing in front and behind: each range
 * is an allocation of its own, for tools that watch these (compute-sanitizer).
 *
 * Memory of device_alloc is the host's. Packed weights are on the GPU.
 */
#ifndef EASYFIRST_TESTS_MIRROR_DEVICE_H
#define EASYFIRST_TESTS_MIRROR_DEVICE_H

#include "kernels/device.h"

/* Closed by device_close. */
int mirror_open(Device **device, int gpu, Error *err);

#endif
