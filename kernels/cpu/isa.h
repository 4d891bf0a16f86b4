/* isa.h - the vector kernels, compiled once for each instruction set. Private to kernels/cpu/.
 *
 * Every function here is called by one thread on some of the rows, which its caller divides among
 * threads; the result's bits do not depend on the division (within one instruction set: another one
 * adds in another order). f32 arithmetic throughout; the Dtype next to a pointer says how the
 * values are stored: f32 or bf16, and f16 too where said. Arrays need no more alignment than their
 * elements. */
#ifndef EASYFIRST_KERNELS_CPU_ISA_H
#define EASYFIRST_KERNELS_CPU_ISA_H

#include "kernels/op_list.h"

/* One head of one piece of an attention span: queries [q_begin, q_end), counted from the span's
 * first row. The result of a row does not depend on how a span is cut into pieces. */
typedef struct AttentionUnit {
    const AttentionSpan *span;
    int q_begin, q_end;
    int head, heads, head_width;
    int key_head; /* the head of k and v */
    float scale;
    Tensor out, lse, q, k, v;
    const Dropout *dropout; /* NULL or with p > 0 */
} AttentionUnit;

/* The gradients of a unit, in addition to its forward pass's tensors: dq is overwritten, dk and dv
 * are added to. */
typedef struct AttentionGradient {
    Tensor dq, dk, dv, dout;
} AttentionGradient;

/* The running state of one row of vocab_propose over the chunks of the vocabulary. */
typedef struct VocabRow {
    float max;          /* of the logits so far, ignoring NaN; -inf at first */
    double sum;         /* of exp(logit - max); NaN once a logit was NaN or +inf; 0 at first */
    double best;        /* the largest value so far, see vocab_scan; -inf at first */
    float best_logit;   /* the logit of that token; -inf at first */
    int32_t best_token; /* -1 at first, and as long as no value was above -inf */
} VocabRow;

static inline VocabRow vocab_row_empty(void) {
    return (VocabRow){.max = -__builtin_inff(),
                      .best = -__builtin_inf(),
                      .best_logit = -__builtin_inff(),
                      .best_token = -1};
}

#define CPU_ROW_ENTRY(X, name, type, parameter)                                              \
    void (*name##_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, type parameter, \
                       int64_t n);

typedef struct CpuKernels {
    const char *name;

    /* floats of scratch that attention needs for this many keys and this head width */
    size_t (*attention_scratch)(int keys, int head_width);
    /* The span has at least one key. */
    void (*attention)(const AttentionUnit *unit, float *scratch);

    /* y may be x if they are of one type; copy (or NULL) and stats (or NULL: mean, 1/deviation)
     * not. b may be NULL. */
    void (*layernorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                          const void *x, Dtype x_dtype, const float *w, const float *b, float eps,
                          int64_t n);
    void (*rmsnorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                        const void *x, Dtype x_dtype, const float *w, float eps, int64_t n);
    /* A row of `heads` heads of `width` values; cosines and sines as in the table. y may be x if
     * they are of one type. */
    void (*rotary_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, const float *turns,
                       bool back, int64_t heads, int64_t width);
    /* A row of n results. */
    void (*gated_row)(void *y, Dtype y_dtype, const void *gate, const void *up, Dtype x_dtype,
                      Activation activation, int64_t n);
    /* y[i] = sum of the rows that are not NULL, in their order; zeros if there is none. Any of f32,
     * bf16 and f16, or i8, whose values are multiplied by the row's scale. */
    void (*sum_rows)(void *y, Dtype y_dtype, const void *const *rows, const Dtype *dtypes,
                     const float *scales, int count, int64_t n);
    /* y[i] = mean of `rows` rows of x, which are ld elements apart; at least one. */
    void (*mean_rows)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t ld,
                      int64_t rows, int64_t n);
    /* Any of f32, bf16 and f16. y may be x if they are of one type. */
    void (*convert_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n);
    /* activation_row, scale_row, ...: y = f(x) with the operation's parameter; y may be x if they
     * are of one type. */
    ELEMENTWISE_LIST(CPU_ROW_ENTRY, )

    /* Gradients of a unit that is one head of a whole span. Units that share keys add to the same
     * rows of dk and dv, so one thread must process them in turn. */
    size_t (*attention_backward_scratch)(int keys, int head_width);
    void (*attention_backward)(const AttentionUnit *unit, const AttentionGradient *gradient,
                               float *scratch);

    /* dx may be dy if they are of one type. */
    void (*activation_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                    const void *x, Dtype x_dtype, Activation activation, int64_t n);
    /* dx is overwritten or, with `accumulate`, added to; it may be dy if they are of one type. */
    void (*layernorm_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                   const void *x, Dtype x_dtype, const float *w, const float *stats,
                                   bool accumulate, int64_t n);
    /* dx as above; dw is layernorm_backward_columns' with the same stats. */
    void (*rmsnorm_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                 const void *x, Dtype x_dtype, const float *w, const float *stats,
                                 bool accumulate, int64_t n);
    /* dgate may be gate and dup may be up if they are of one type. */
    void (*gated_backward_row)(void *dgate, void *dup, Dtype dx_dtype, const void *dy,
                               Dtype dy_dtype, const void *gate, const void *up, Dtype x_dtype,
                               Activation activation, int64_t n);
    /* dw, db (either may be NULL) += sums over all rows of n columns, in the order of the rows;
     * dy and x point to the first of the columns. */
    void (*layernorm_backward_columns)(float *dw, float *db, const void *dy, int64_t dy_ld,
                                       Dtype dy_dtype, const void *x, int64_t x_ld, Dtype x_dtype,
                                       const float *stats, int64_t stats_ld, int64_t rows,
                                       int64_t n);
    void (*add_row)(float *y, const void *x, Dtype x_dtype, int64_t n); /* y += x */

    /* Takes n logits of the ids first_id, first_id + 1, ... into the row's state; `bias` [n], added
     * to them in f32, may be NULL. The id choice->banned and ids >= choice->limit are left out.
     *
     * Ids are compared by the logit itself at temperature 0, else, in double, by
     *     (double)logit / temperature + random_gumbel(choice->seed, stream, index + id).
     * Of equal values the lowest id's wins, in any order of the chunks. */
    void (*vocab_scan)(VocabRow *row, const float *logits, const float *bias, int32_t first_id,
                       int64_t n, const VocabChoice *choice, uint64_t stream, int64_t index);

    /* Quantizes x to integers from -127 to 127, plus 128, and returns the scale that multiplies
     * them: the largest magnitude / 127, 0 for a row of zeros, NaN if a value is not finite. */
    float (*quantize_row)(uint8_t *y, const void *x, Dtype x_dtype, int64_t n);
    /* y = scale x; y is f32, bf16 or f16 */
    void (*dequantize_row)(void *y, Dtype y_dtype, const int8_t *x, float scale, int64_t n);
    /* y = act(x_scale w_scales (sums - zero) + bias), or += with `accumulate`; bias may be NULL. */
    void (*int8_finish_row)(void *y, Dtype y_dtype, const int32_t *sums, const int32_t *zero,
                            float x_scale, const float *w_scales, const float *bias,
                            Activation activation, bool accumulate, int64_t n);

    /* v = scale exp(v - max) - even, in place, for v <= max. */
    void (*softmax_gradient_row)(float *v, float max, float scale, float even, int64_t n);
} CpuKernels;

/* Their names, from which each set's prototypes and table are made: X(name). */
#define CPU_ROW(X, name, type, parameter) X(name##_row)
#define CPU_KERNEL_LIST(X)        \
    X(attention_scratch)          \
    X(attention)                  \
    X(layernorm_row)              \
    X(rmsnorm_row)                \
    X(rotary_row)                 \
    X(gated_row)                  \
    X(sum_rows)                   \
    X(mean_rows)                  \
    X(convert_row)                \
    ELEMENTWISE_LIST(CPU_ROW, X)  \
    X(attention_backward_scratch) \
    X(attention_backward)         \
    X(activation_backward_row)    \
    X(layernorm_backward_row)     \
    X(rmsnorm_backward_row)       \
    X(gated_backward_row)         \
    X(layernorm_backward_columns) \
    X(add_row)                    \
    X(vocab_scan)                 \
    X(quantize_row)               \
    X(dequantize_row)             \
    X(int8_finish_row)            \
    X(softmax_gradient_row)

/* The best set that this processor supports (name NULL), or the one of that name ("base", "avx2",
 * "avx512"); NULL if the processor or the build lacks it. */
const CpuKernels *cpu_kernels_find(const char *name);

/* One table for each instruction set (isa/table.c); only the first on processors other than
 * x86-64. */
extern const CpuKernels cpu_kernels_base, cpu_kernels_avx2, cpu_kernels_avx512;

#endif
