#include "kernels/cpu/isa.h"

#include <string.h>

typedef struct IsaChoice {
    const CpuKernels *kernels;
    bool usable;
} IsaChoice;

const CpuKernels *cpu_kernels_find(const char *name) {
    /* Best first. The conditions match the Makefile's ISA_* flags. */
    const IsaChoice choices[] = {
#if defined __x86_64__
        {&cpu_kernels_avx512,
         __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma")},
        {&cpu_kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
        {&cpu_kernels_base, true},
    };
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].usable && (!name || strcmp(name, choices[i].kernels->name) == 0))
            return choices[i].kernels;
    return NULL;
}
