/* threads.h - how many threads a piece of work is worth. Private to kernels/cpu/. */
#ifndef EASYFIRST_KERNELS_CPU_THREADS_H
#define EASYFIRST_KERNELS_CPU_THREADS_H

#include "kernels/cpu/cpu.h"

/* Threads for an elementwise operation on this many values: waking the others takes a few
 * microseconds, in which one thread gets through some ten thousand values. */
static inline int cpu_threads(const Device *device, int64_t values) {
    return values < 32768 ? 1 : device->threads;
}

#endif
