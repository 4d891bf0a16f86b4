/* isa.h - the vector kernels, compiled once for each instruction set. Private to kernels/cpu/.
 *
 * Every function here works for one thread on rows that its caller shares out among threads; the same
 * inputs give the same bits whoever does the sharing. f32 arithmetic throughout; a Row says where the
 * numbers are and of which type they are stored.
 */
#ifndef EASYFIRST_KERNELS_CPU_ISA_H
#define EASYFIRST_KERNELS_CPU_ISA_H

#include "kernels/ops.h"

/* One head of one piece of an attention span: queries [q_begin, q_end) of the span. */
typedef struct AttentionUnit {
    const AttentionSpan *span;
    int q_begin, q_end;
    int head, heads, head_width;
    float scale;
    Tensor out, lse, q, k, v;
    const Dropout *dropout; /* NULL or with p > 0 */
} AttentionUnit;

/* The running state of one row of vocab_propose over the chunks of the vocabulary. */
typedef struct VocabRow {
    float max;          /* of the logits so far; -inf at first */
    float sum;          /* of exp(logit - max); NaN once a logit was NaN */
    float best;         /* the largest logit, or logit / temperature + noise, so far; -inf at first */
    float best_logit;   /* the logit of that token */
    int32_t best_token; /* -1 at first */
} VocabRow;

typedef struct CpuKernels {
    const char *name;

    /* floats of scratch that attention needs for this many keys and this head width */
    size_t (*attention_scratch)(int keys, int head_width);
    void (*attention)(const AttentionUnit *unit, float *scratch);

    void (*layernorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                          const void *x, Dtype x_dtype, const float *w, const float *b, float eps,
                          int64_t n);
    /* y[i] = sum of the rows that are not NULL */
    void (*sum_rows)(void *y, Dtype y_dtype, const void *const *rows, const Dtype *dtypes, int count,
                     int64_t n);
    void (*convert_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n);
    void (*activation_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, Activation activation,
                           int64_t n);
    /* Takes n logits of the ids first_id, first_id + 1, ... into the row's state; `bias` may be NULL.
     * Ids equal to choice->banned or from choice->limit on are left out. */
    void (*vocab_scan)(VocabRow *row, const float *logits, const float *bias, int32_t first_id,
                       int64_t n, const VocabChoice *choice, uint64_t stream, int64_t index);
} CpuKernels;

/* The best set that this processor has, or the one of that name ("base", "avx2", "avx512"); NULL if
 * the processor or the build lacks it. */
const CpuKernels *cpu_kernels_find(const char *name);

#endif
