/* matmul_peak.h - what a device's matmuls reach, to measure others against. */
#ifndef EASYFIRST_KERNELS_MATMUL_PEAK_H
#define EASYFIRST_KERNELS_MATMUL_PEAK_H

#include "kernels/device.h"

/* The rate that a large matmul of random numbers reaches on this device, in operations per
 * second. */
int matmul_peak(Device *device, Dtype compute, double *rate, Error *err);

#endif
