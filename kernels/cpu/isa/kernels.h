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
size_t ISA_NAME(attention_backward_scratch)(int keys, int head_width);
void ISA_NAME(attention_backward)(const AttentionUnit *unit, const AttentionGradient *gradient,
                                  float *scratch);
void ISA_NAME(activation_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                       const void *x, Dtype x_dtype, Activation activation,
                                       int64_t n);
void ISA_NAME(layernorm_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                      const void *x, Dtype x_dtype, const float *w,
                                      const float *stats, bool accumulate, int64_t n);
void ISA_NAME(layernorm_backward_columns)(float *dw, float *db, const void *dy, int64_t dy_ld,
                                          Dtype dy_dtype, const void *x, int64_t x_ld,
                                          Dtype x_dtype, const float *stats, int64_t stats_ld,
                                          int64_t rows, int64_t n);
void ISA_NAME(add_row)(float *y, const void *x, Dtype x_dtype, int64_t n);
void ISA_NAME(scale_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, float factor,
                         int64_t n);
void ISA_NAME(vocab_scan)(VocabRow *row, const float *logits, const float *bias, int32_t first_id,
                          int64_t n, const VocabChoice *choice, uint64_t stream, int64_t index);
void ISA_NAME(softmax_gradient_row)(float *v, float max, float scale, float even, int64_t n);

#endif
