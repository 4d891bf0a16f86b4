#include "kernels/cpu/isa/kernels.h"

#define ISA_TEXT_(isa) #isa
#define ISA_TEXT(isa)  ISA_TEXT_(isa)

const CpuKernels ISA_NAME(cpu_kernels) = {
    .name = ISA_TEXT(ISA),
    .attention_scratch = ISA_NAME(attention_scratch),
    .attention = ISA_NAME(attention),
    .layernorm_row = ISA_NAME(layernorm_row),
    .sum_rows = ISA_NAME(sum_rows),
    .mean_rows = ISA_NAME(mean_rows),
    .convert_row = ISA_NAME(convert_row),
    .activation_row = ISA_NAME(activation_row),
    .vocab_scan = ISA_NAME(vocab_scan),
};
