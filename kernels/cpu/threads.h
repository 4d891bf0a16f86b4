/* threads.h - how many threads to use for an operation. Private to kernels/cpu/. */
#ifndef EASYFIRST_KERNELS_CPU_THREADS_H
#define EASYFIRST_KERNELS_CPU_THREADS_H

#include "kernels/cpu/cpu.h"

/* Threads for an elementwise operation on this many values: waking the others takes a few
 * microseconds, and many more if the machine has other work; one thread processes 131,072 values in
 * ten. */
static inline int cpu_threads(const Device *device, int64_t values) {
    return values < 131072 ? 1 : device->threads;
}

#endif
