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
    .attention_backward_scratch = ISA_NAME(attention_backward_scratch),
    .attention_backward = ISA_NAME(attention_backward),
    .activation_backward_row = ISA_NAME(activation_backward_row),
    .layernorm_backward_row = ISA_NAME(layernorm_backward_row),
    .layernorm_backward_columns = ISA_NAME(layernorm_backward_columns),
    .add_row = ISA_NAME(add_row),
    .scale_row = ISA_NAME(scale_row),
    .vocab_scan = ISA_NAME(vocab_scan),
    .softmax_gradient_row = ISA_NAME(softmax_gradient_row),
};
