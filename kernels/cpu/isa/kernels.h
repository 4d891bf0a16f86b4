/* kernels.h - the kernels of one instruction set: what the files of this folder define under names
 * that end in the set's (ISA, from the command line), and table.c gathers.
 */
#ifndef EASYFIRST_KERNELS_CPU_ISA_KERNELS_H
#define EASYFIRST_KERNELS_CPU_ISA_KERNELS_H

#include "kernels/cpu/isa.h"

#ifndef ISA
#define ISA base
#endif

#define ISA_JOIN_(name, isa) name##_##isa
#define ISA_JOIN(name, isa)  ISA_JOIN_(name, isa)
#define ISA_NAME(name)       ISA_JOIN(name, ISA)

size_t ISA_NAME(attention_scratch)(int keys, int head_width);
void ISA_NAME(attention)(const AttentionUnit *unit, float *scratch);

void ISA_NAME(layernorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                             const void *x, Dtype x_dtype, const float *w, const float *b,
                             float eps, int64_t n);
void ISA_NAME(sum_rows)(void *y, Dtype y_dtype, const void *const *rows, const Dtype *dtypes,
                        int count, int64_t n);
void ISA_NAME(mean_rows)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t ld,
                         int64_t rows, int64_t n);
void ISA_NAME(convert_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n);
void ISA_NAME(activation_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype,
                              Activation activation, int64_t n);
void ISA_NAME(vocab_scan)(VocabRow *row, const float *logits, const float *bias, int32_t first_id,
                          int64_t n, const VocabChoice *choice, uint64_t stream, int64_t index);

#endif
