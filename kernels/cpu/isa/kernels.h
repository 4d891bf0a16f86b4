/* kernels.h - the kernels of one instruction set: the functions that this folder's files define
 * under names that end in the set's (ISA, from the command line), and that table.c collects. */
#ifndef EASYFIRST_KERNELS_CPU_ISA_KERNELS_H
#define EASYFIRST_KERNELS_CPU_ISA_KERNELS_H

#include "kernels/cpu/isa.h"

#ifndef ISA
#define ISA base
#endif

#define ISA_JOIN_(name, isa) name##_##isa
#define ISA_JOIN(name, isa)  ISA_JOIN_(name, isa)
#define ISA_NAME(name)       ISA_JOIN(name, ISA)

#define ISA_PROTOTYPE(name) __typeof__(*((const CpuKernels *)0)->name) ISA_NAME(name);
CPU_KERNEL_LIST(ISA_PROTOTYPE)

#endif
