#include "kernels/cpu/isa/kernels.h"

#define ISA_TEXT_(isa) #isa
#define ISA_TEXT(isa)  ISA_TEXT_(isa)

#define ISA_ENTRY(name) .name = ISA_NAME(name),
#define ISA_ONE(name)   +1

/* The list is complete. */
_Static_assert(sizeof(CpuKernels) ==
                   sizeof(const char *) + (CPU_KERNEL_LIST(ISA_ONE)) * sizeof(void (*)(void)),
               "CPU_KERNEL_LIST has every function of CpuKernels");

const CpuKernels ISA_NAME(cpu_kernels) = {.name = ISA_TEXT(ISA), CPU_KERNEL_LIST(ISA_ENTRY)};
