/* ops.h - every operation that models consist of, declared once for all devices.
 *
 * Letters: T tokens (rows), K and N columns in and out, D width, H heads, V vocabulary, R some
 * rows. `c` is the compute type of the model, f32 or bf16; sums are always f32. Matrices may be
 * column slices (Tensor.ld) where said.
 *
 * Rows of a batch are the tokens of its sequences end to end. No row's result depends on another
 * row, except in attention and the mean, which say on which.
 *
 * Every operation checks types and shapes first and fails with the operation's name, what was found
 * and what was expected. `d` before a name is its gradient. Backward operations add (+=) to the
 * gradients of parameters, so that several batches accumulate, and overwrite those of activations.
 * A gradient that is not needed is TENSOR_NONE and costs nothing.
 *
 * Index tensors (i32) live on the device like all tensors. Attention spans are read from the host
 * during the call. */
#ifndef EASYFIRST_KERNELS_OPS_H
#define EASYFIRST_KERNELS_OPS_H

#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/tensor.h"

typedef enum Activation {
    ACTIVATION_NONE,
    ACTIVATION_GELU,       /* x/2 (1 + erf(x / sqrt 2)) */
    ACTIVATION_QUICK_GELU, /* x sigmoid(1.702 x), CLIP's */
    ACTIVATION_RELU,
    ACTIVATION_TANH,
    ACTIVATION_SILU, /* x sigmoid(x), LLaMA's */
    ACTIVATION_COUNT
} Activation;

const char *activation_name(Activation activation);

/* y = act(x w^T + b), or y += x w^T + b with `accumulate` (then without activation).
 *   x [T, K] c, y [T, N] c or f32 (both may be column slices), w [N, K] c or packed, b [N] f32 or
 *   none. With a packed weight x must have the type it was packed for. */
int linear_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Activation activation,
                   bool accumulate, Error *err);
/* dx = dy w (overwritten, or += with accumulate_dx); dw += dy^T x; db += column sums of dy. dy is
 * the gradient before the activation (activation_backward). dw, db f32. */
int linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,
                    bool accumulate_dx, Error *err);

/* y = act(x), elementwise, each f32 or bf16; y may be x if they are of one type. */
int activation_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err);
/* dx = dy act'(x), x being the input of the forward; dx may be dy. */
int activation_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                        Error *err);

/* y = (x - mean) / sqrt(var + eps) * w + b over each row; var is the mean square deviation.
 *   x [T, D] f32 or bf16, y [T, D] f32 or bf16 (may be x if of one type), w [D] f32, b [D] f32 or
 * none; `copy` [T,
 *   D], if present, receives the same values in its own type; `stats` [T, 2] f32, if present,
 *   receives mean and 1/sqrt(var + eps) for the backward pass, whose dx may be dy if they are of
 *   one type. */
int layernorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                      Tensor b, float eps, Error *err);
int layernorm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                       Tensor w, Tensor stats, bool accumulate_dx, Error *err);

/* y = x / sqrt(mean of the squares + eps) * w over each row: layernorm_forward without mean and
 * bias (Zhang, Sennrich, 2019). `stats` [T, 2] receives 0 and 1/sqrt(mean of the squares + eps).
 * The rest is as in layernorm. */
int rmsnorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                    float eps, Error *err);
int rmsnorm_backward(Device *device, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                     Tensor stats, bool accumulate_dx, Error *err);

/* Rotary positions (Su et al., 2021): turns pair (i, i + Dh/2) of each head by the angle whose
 * cosine and sine are columns i and i + Dh/2 of row index[t] of the table, or back (the backward
 * pass).
 *   x, y [T, heads * Dh] c or f32, column slices allowed (y may be x if of one type), table [P, Dh]
 *   f32, index [T] i32, every value below P. */
int rotary_forward(Device *device, Tensor y, Tensor x, Tensor table, Tensor index, bool back,
                   Error *err);

/* y = act(gate) * up with [gate, up] = x: x [T, 2F], y [T, F], each f32 or bf16. */
int gated_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err);
/* dx [T, 2F] from dy [T, F] and the input x of the forward. dx may be x if of one type. */
int gated_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                   Error *err);

/* Which rows attend to which: each of the query rows [q_begin, q_end) attends to all key rows of up
 * to ATTENTION_RANGES ranges, in that order; in a causal span, which has at least as many keys as
 * queries, the last query attends to all of them and each query before it to one less. Full
 * attention over packed sequences is one span a sequence, whose queries and keys are the same rows;
 * causal attention is the same with `causal`; block-causal attention is one span a block.
 *
 * In a span with a window, too, the queries are the last keys: a query attends, of the keys that it
 * would see without one, to those at most `window` places before and after its own. */
enum { ATTENTION_RANGES = 4 };
typedef struct AttentionSpan {
    int32_t q_begin, q_end;
    int32_t range_count;
    struct {
        int32_t begin, end;
    } range[ATTENTION_RANGES];
    int32_t causal; /* 0 or 1 */
    int32_t window; /* 0: none */
} AttentionSpan;

/* The number of keys of a span, to all of which its last query attends. */
static inline int attention_keys(const AttentionSpan *span) {
    int n = 0;
    for (int r = 0; r < span->range_count; r++) n += span->range[r].end - span->range[r].begin;
    return n;
}

/* Of those keys, query i of the span, counted from q_begin, attends to [first, seen): where they
 * end ... */
static inline int attention_seen(const AttentionSpan *span, int keys, int i) {
    const int own = keys - (span->q_end - span->q_begin) + i;
    if (span->causal) return own + 1;
    return span->window && own + span->window < keys ? own + span->window + 1 : keys;
}

/* ... and where they begin. */
static inline int attention_first(const AttentionSpan *span, int keys, int i) {
    const int first = keys - (span->q_end - span->q_begin) + i - span->window;
    return span->window && first > 0 ? first : 0;
}

/* Dropout: each value is kept with probability 1 - p and then divided by 1 - p. Whether a value is
 * kept is random_uniform(seed, stream, index) >= p, so the backward pass draws the same mask. */
typedef struct Dropout {
    float p; /* 0: none */
    uint64_t seed, stream;
} Dropout;

/* out = softmax(q k^T * scale) v for each head, over the spans.
 *   q, out [T, H*Dh], k, v [rows, G*Dh], all c, column slices allowed; head h is columns
 *   [h*Dh, (h+1)*Dh) of q and out. With fewer heads of keys and values (G < H, a divisor), H/G
 *   adjacent heads share one: head h reads that of h / (H/G). `lse` [T, H] f32, if present, receives the log-sum-exp of the scaled scores.
 *   Dropout (may be NULL) applies to the softmax; the index of a value is
 *   (row * H + h) * 65536 + its position among the row's keys. */
int attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                      int heads, float scale, const AttentionSpan *spans, int span_count,
                      const Dropout *dropout, Error *err);
/* dk and dv are added to, since several spans may share keys: clear them first. dq, dk and dv are c
 * or f32; prefer f32 for dk and dv where spans share keys, since in bf16 the sum is rounded after
 * each span. lse and out are the forward pass's, dropout is the same. Rows of dq in no span are
 * left unchanged. */
int attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                       Tensor lse, Tensor q, Tensor k, Tensor v, int heads, float scale,
                       const AttentionSpan *spans, int span_count, const Dropout *dropout,
                       Error *err);

/* One term of a gather: row t adds table[index[t]], or nothing where index[t] is negative. */
typedef struct GatherTerm {
    Tensor table; /* [R, D], f32, bf16, f16, or i8 with scales */
    Tensor index; /* [T] i32, every value below R */
} GatherTerm;

/* y[t] = sum over the terms, in their order, in f32. y [T, D] f32 or bf16. For embeddings (token,
 * position and type), class tokens, and selecting rows (one term). */
int gather_forward(Device *device, Tensor y, const GatherTerm *terms, int count, Error *err);
/* dtable[index[t]] += dy[t]; one call for each table. dtable f32. */
int gather_backward(Device *device, Tensor dtable, Tensor dy, Tensor index, Error *err);

/* y = x in another type, row by row. f32, bf16 and f16. */
int convert_forward(Device *device, Tensor y, Tensor x, Error *err);

/* Pixels to the rows of a patch embedding's matmul: x [B, C*S*S] f32 (planes), S = side, into y
 * [B*(S/P)^2, C*P*P] c: patches in reading order, each as its channels' P x P squares, the order of
 * a convolution's weights [out, C, P, P]. */
int patches_forward(Device *device, Tensor y, Tensor x, int channels, int side, int patch,
                    Error *err);

/* A convolution of square filters over images whose channels lie together: an image [height, width,
 * channels] is height * width rows of a matrix, in reading order. */
typedef struct Conv2d {
    int height, width;  /* of an input image */
    int channels, out;  /* channels in and out */
    int kernel, stride; /* sides of the filter and distance of its places */
    int before, after;  /* rows and columns of zeros added at the top and left, bottom and right */
    bool depthwise;     /* each channel has a filter of its own: out == channels */
    bool relu6;         /* results are limited to [0, 6] */
} Conv2d;

/* Places of the filter along `length` values; the height or width of an output image. */
static inline int conv2d_places(const Conv2d *conv, int length) {
    return (length + conv->before + conv->after - conv->kernel) / conv->stride + 1;
}

/* y = conv(x, w) + b, or y += conv(x, w) + b with `accumulate` (then without relu6), for each image
 * by itself. x [B * height * width, channels] c, y [B * its places, out] c, w packed by
 * conv2d_pack, which also has the shape, b [out] f32. */
int conv2d_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, bool accumulate,
                   Error *err);

/* y[s] = mean of x[begin[s]..begin[s+1]). x [T, D] f32 or bf16, y [S, D] f32 or bf16, begin [S+1]
 * i32 on the host. */
int segment_mean_forward(Device *device, Tensor y, Tensor x, const int32_t *begin, int segments,
                         Error *err);
int segment_mean_backward(Device *device, Tensor dx, Tensor dy, const int32_t *begin, int segments,
                          Error *err);

/* How a proposal is chosen; see vocab_propose. */
typedef struct VocabChoice {
    int32_t banned;    /* this id is never proposed and is left out of the softmax (<mask>); -1 */
    int32_t limit;     /* nor are ids >= limit (XL's rows without a piece); V for none */
    float temperature; /* 0: the largest logit; else a draw from softmax(logits / temperature) */
    uint64_t seed;
    const uint64_t *stream; /* [R], host: per row, the random stream ... */
    const int64_t *index;   /* [R], host: ... and the first index: id v draws with index[r] + v */
} VocabChoice;

/* For each row, over logits = x w^T + b: a token and its log-probability (without temperature), in
 * one pass over chunks of the vocabulary; the full logits are never stored. A draw is the largest
 * of logit / temperature + Gumbel noise. Ties go to the lowest id. x [R, D] c, w [V, D] packed for
 * a vocabulary (or c), b [V] f32 or none; tokens [R] i32 and scores [R] f32 on the host. A row with
 * a NaN logit gets a NaN score. */
int vocab_propose(Device *device, int32_t *tokens, float *scores, Tensor x, Tensor w, Tensor b,
                  const VocabChoice *choice, Error *err);

/* Logits of all rows, for small vocabularies and tests: y [R, V] f32. The same as linear_forward,
 * for weights that are packed for a vocabulary. */
int vocab_logits(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Error *err);

/* Weighted cross-entropy over the vocabulary, forward and backward in one call, in chunks. With p
 * the softmax of logits = x w^T + b,
 *     loss[r] = weight[r] * ((1 - smoothing) * -log p[target[r]]
 *                            + smoothing_weight[r] * (mean over all V ids of -log p))
 * so that `smoothing` scales the first term only: smoothing_weight holds the whole factor of the
 * second, which weight multiplies too; omitted (with smoothing 0), it is 0. dx, dw and db are of
 * the sum of all loss[r]; dw and db are added to. A row of weight 0 has loss 0 and dx 0 and is
 * otherwise ignored, even if its x is NaN or its target invalid; the targets of the others are ids
 * below V.
 *   x [R, D] c; w [V, D] c, or packed if there is no dx; dx [R, D] c; dw [V, D], db [V] f32;
 * target [R] i32; weight, smoothing_weight, loss [R] f32. dx, dw and db are optional. w may come in
 * parts (kernels/parts.h), and dw then has one part's rows at a time, too. */
int vocab_cross_entropy(Device *device, Tensor loss, Tensor dx, Tensor dw, Tensor db, Tensor x,
                        Tensor w, Tensor b, Tensor target, Tensor weight, float smoothing,
                        Tensor smoothing_weight, Error *err);

/* y = dropout(x), or y += dropout(x); index = element number. Each is f32 or bf16, of one shape,
 * without gaps; y may be x if of one type. The backward pass is the same call on gradients. With p
 * = 0 it copies, converts or adds. */
int dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout, bool accumulate,
                    Error *err);

/* y = scale x, elementwise; each f32 or bf16; y may be x if of one type. */
int scale_forward(Device *device, Tensor y, Tensor x, float scale, Error *err);

/* One AdamW step (Loshchilov, Hutter, ICLR 2019) on a flat run of parameters: `p` f32 master
 * weights, `g` gradients, `m`, `v` moments, all f32 [n]; `copy` [n] receives the new weights in its
 * type. step counts from 1.
 *
 * Or `p` bf16, without a copy: new weights are computed in f32 and rounded stochastically, up with the
 * probability of the fraction that rounding down would lose, so that on average none of many small
 * updates is lost. The random bits are a function of (seed, stream, first + i) alone. */
typedef struct AdamW {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /* gradients are multiplied by this first (clipping) */
    int64_t step;
    uint64_t seed, stream; /* bf16 */
    int64_t first;         /* the index of p's first value */
} AdamW;
int adamw_step(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
               const AdamW *adamw, Error *err);

/* The same with the moments in 8 bits (Dettmers et al., ICLR 2022): of each block of 256 values one
 * scale, the largest of their magnitudes, and for each value the index of the number of the map that
 * is nearest to value / scale, of two as near the lower. A step computes with the moments in f32 and
 * rounds them at its end. m, v u8 [n]; m_scale, v_scale f32 [(n + 255) / 256]; maps f32 [4, 256]:
 * of m its numbers, ascending, and the 255 midpoints between them, and the same of v (moments.h). */
enum { MOMENT_BLOCK = 256 };
typedef struct Moments8 {
    Tensor m, v, m_scale, v_scale, maps;
} Moments8;
int adamw8_step(Device *device, Tensor p, Tensor copy, const Moments8 *moments, Tensor g,
                const AdamW *adamw, Error *err);

/* The sum of the squares of all values, in f64. */
int square_sum(Device *device, double *sum, Tensor x, Error *err);

/* ---- Weights in the device's layout. ---- */

/* Called while a weight is packed, when rows [first, first + count) of the stack have been read. */
typedef struct PackProgress {
    void (*call)(void *user, int64_t first, int64_t count);
    void *user;
} PackProgress;

/* Packs the rows of `pieces` (each [Ni, K], any float type, or i8 with scales; host memory or the
 * device's, scales always the host's), stacked, for linear_forward with inputs of type `compute`;
 * `vocabulary` packs in the chunks that vocab_propose walks. The pack is a copy: matmuls do not
 * need the pieces afterwards. `progress` may be NULL.
 *
 * If all pieces are i8, the pack is i8 too. A matmul then dequantizes some rows at a time into the
 * compute type; or, where the device multiplies i8 faster and `compute` is bf16, each row of x is
 * quantized as well (kernels/NOTES.md). */
int pack_weight(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                Dtype compute, bool vocabulary, const PackProgress *progress, Error *err);

/* Packs a convolution's weight, f32 in host memory, [out, channels, kernel, kernel] or depthwise
 * [out, 1, kernel, kernel], for conv2d_forward with inputs of type `compute`. */
int conv2d_pack(Device *device, struct Packed **packed, const Conv2d *conv, Tensor w, Dtype compute,
                Error *err);

void packed_free(Device *device, struct Packed *packed); /* NULL is allowed */
size_t packed_bytes(const struct Packed *packed);

/* The bytes that pack_weight would allocate for pieces of type `stored`. */
size_t pack_size(Device *device, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                 bool vocabulary);

#endif
