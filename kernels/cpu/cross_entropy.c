/* The loss over a large vocabulary and its gradients.
 *
 * The logits of all rows would be by far the largest matrix of training (16,000 rows of XLM-R: 16
 * GB) and never exist at once: the vocabulary is processed in chunks.
 *
 * The first pass finds each row's largest logit and sum of exponentials, and dx with them, by the
 * online softmax of flash attention (Dao et al., 2022): exponentials are relative to the largest
 * logit so far and accumulated into dx unnormalized; when a later chunk has a larger one, the
 * accumulators are scaled down, and the sum divides everything at the end. The target's own logit
 * is left out of all this and added at the end: its gradient p - 1 is minus the sum of the others',
 * which is accurate even for a fully learned row, where p - 1 would be a difference of rounded
 * values.
 *
 * dw and db need the sum first: a second pass recomputes the logits, turns them into their
 * gradients in place and multiplies them while they are in the cache. This costs one matmul more
 * than storing them.
 *
 * Rows of weight 0 are removed first: they cost nothing, and their values do not matter.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"
#include "kernels/parts.h"

#include <math.h>
#include <string.h>

/* Rows whose logits of one chunk are in memory at a time, 4 MiB of f32. */
enum { BLOCK_ROWS = 256 };

/* A row of non-zero weight. */
typedef struct LossRow {
    VocabRow scan;      /* largest logit and sum of exponentials of all ids but the target */
    double logit_sum;   /* of all, for the smoothing; 0 without it */
    float target_logit; /* NaN until its chunk is processed */
    int32_t target;
    int64_t at;            /* index among all rows */
    double weight, smooth; /* of the whole row, of the mean within it */
    /* After the first pass: the largest logit of all, the sum of exponentials relative to it, and
     * the probabilities of the target and of all others, neither computed as 1 minus the other. */
    double max, sum, own, rest;
} LossRow;

typedef struct Loss {
    Tensor x, w, b;  /* x: the rows of non-zero weight, contiguous */
    Tensor logits;   /* [block, chunk] f32 */
    Tensor gradient; /* the same memory, or separate if x is not f32: in x's type */
    LossRow *row;
    Tensor kept; /* w in parts: [rows, D], each row's target's of w */
    int64_t vocabulary, chunk;
    double hard; /* 1 - smoothing */
    bool even;   /* smoothing: dx has an extra row, for the sum of all rows of w */
} Loss;

/* Allocates from the workspace. With `base` NULL it only counts the bytes. */
static void *carve(char *base, size_t *used, size_t bytes) {
    void *at = base ? base + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return at;
}

/* The tensors' first rows and columns as a matrix without gaps. */
static Tensor part(Tensor t, int64_t rows, int64_t columns) {
    return tensor_2d(t.data, t.dtype, rows, columns);
}

/* The chunk from `first` on: its length. Its rows of w are in memory then. */
static int chunk_begin(const Loss *loss, PartsUse use, int64_t first, int64_t *count, Error *err) {
    const int64_t left = parts_together(loss->w, first);
    *count = left < loss->chunk ? left : loss->chunk;
    return parts_enter(loss->w, use, first, err);
}

static int chunk_logits(Device *device, const Loss *loss, Tensor y, int64_t top, int64_t first,
                        Error *err) {
    device_poke(device);
    if (loss->w.parts) {
        const Tensor b = {.data = loss->b.data ? (float *)loss->b.data + first : NULL};
        return cpu_linear_rows(device, y, tensor_rows(loss->x, top, y.shape[0]),
                               parts_rows(loss->w, first, y.shape[1]), b, 0, y.shape[1],
                               ACTIVATION_NONE, false, err);
    }
    return cpu_linear_rows(device, y, tensor_rows(loss->x, top, y.shape[0]), loss->w, loss->b,
                           first, y.shape[1], ACTIVATION_NONE, false, err);
}

/* ---- The first pass: loss and dx. ---- */

/* In eight independent sums, which a compiler can vectorize. */
static double logits_sum(const float *v, int64_t n) {
    double sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += v[i + j];
    for (; i < n; i++) sum[0] += v[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* Adds a chunk's logits to the row's statistics. With dx [d] f32, dx is rescaled to the new largest
 * logit, and the logits become exponentials, 0 for the target. */
static void row_scan(const CpuKernels *kernels, const Loss *loss, LossRow *row, float *v,
                     int64_t first, int64_t count, float *dx) {
    /* All ids; the best token is not needed. */
    const VocabChoice all = {.banned = -1, .limit = (int32_t)loss->vocabulary};
    const float before = row->scan.max;
    if (row->smooth != 0) row->logit_sum += logits_sum(v, count);
    if (row->target >= first && row->target - first < count) {
        row->target_logit = v[row->target - first];
        v[row->target - first] = -INFINITY;
    }
    kernels->vocab_scan(&row->scan, v, NULL, (int32_t)first, count, &all, 0, 0);
    if (!dx) return;
    const float max = row->scan.max, shift = max == -INFINITY ? 0 : max;
    const int64_t d = loss->x.shape[1];
    if (first > 0 && max > before)
        kernels->scale_row(dx, DTYPE_F32, dx, DTYPE_F32, expf(before - max), d);
    kernels->softmax_gradient_row(v, shift, 1, 0, count);
}

/* Sets the row below dy [rows, count] to ones. */
static void ones_put(Tensor dy) {
    char *at = (char *)dy.data + tensor_bytes(dy);
    for (int64_t j = 0; j < dy.shape[1]; j++)
        if (dy.dtype == DTYPE_F32)
            ((float *)at)[j] = 1;
        else
            ((uint16_t *)at)[j] = f32_to_bf16(1);
}

/* The rows of w of targets in the chunk, which dx needs at the end. */
static void keep_targets(const Loss *loss, int64_t first, int64_t count) {
    if (!loss->w.parts) return;
    const size_t bytes = (size_t)loss->w.shape[1] * dtype_size(loss->w.dtype);
    for (int64_t i = 0; i < loss->x.shape[0]; i++) {
        const int64_t target = loss->row[i].target;
        if (target >= first && target - first < count)
            memcpy((char *)loss->kept.data + (size_t)i * bytes, parts_rows(loss->w, target, 1).data,
                   bytes);
    }
}

/* dx [rows of non-zero weight, D] f32 becomes the sum of exponentials times rows of w; it may be
 * absent. With smoothing the last matmul has an extra row of ones, which costs almost nothing. */
static int rows_scan(Device *device, const Loss *loss, Tensor dx, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const bool convert = dx.data && loss->gradient.dtype != DTYPE_F32;
    const int64_t rows = loss->x.shape[0], d = loss->x.shape[1];
    for (int64_t first = 0, count; first < loss->vocabulary; first += count) {
        TRY(chunk_begin(loss, PARTS_SCAN, first, &count, err));
        if (dx.data) keep_targets(loss, first, count);
        for (int64_t top = 0; top < rows; top += BLOCK_ROWS) {
            const int64_t here = rows - top < BLOCK_ROWS ? rows - top : BLOCK_ROWS;
            const Tensor y = part(loss->logits, here, count);
            const Tensor dy = part(loss->gradient, here, count);
            TRY(chunk_logits(device, loss, y, top, first, err));
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, here *count))
            for (int64_t i = 0; i < here; i++) {
                float *v = (float *)y.data + i * count;
                row_scan(kernels, loss, &loss->row[top + i], v, first, count,
                         dx.data ? (float *)dx.data + (top + i) * d : NULL);
                if (convert)
                    kernels->convert_row((char *)dy.data + (size_t)(i * count) * 2, dy.dtype, v,
                                         DTYPE_F32, count);
            }
            if (!dx.data) continue;
            const bool last = loss->even && top + here == rows;
            if (last) ones_put(dy);
            TRY(cpu_matmul_dx(device, tensor_rows(dx, top, here + last),
                              part(dy, here + last, count), parts_rows(loss->w, first, count),
                              first > 0, err));
        }
    }
    return 0;
}

/* By differences to the largest logit: if all logits are large, -log p is small in comparison. */
static float row_loss(const Loss *loss, LossRow *row) {
    row->max = row->target_logit > row->scan.max ? row->target_logit : row->scan.max;
    row->own = exp(row->target_logit - row->max);
    row->rest = row->scan.sum * exp(row->scan.max - row->max);
    row->sum = row->rest + row->own;
    /* The loss of a confident row is about the others' probability, which log(sum) would lose. */
    const double log_sum = row->own == 1 ? log1p(row->rest) : log(row->sum);
    row->own /= row->sum, row->rest /= row->sum;
    double value = loss->hard * (log_sum + (row->max - row->target_logit));
    if (row->smooth != 0)
        value += row->smooth * (log_sum + (row->max - row->logit_sum / (double)loss->vocabulary));
    return (float)(row->weight * value);
}

/* The derivative of the loss with respect to the target's logit. */
static double target_gradient(const Loss *loss, const LossRow *row) {
    const double even = 1 / (double)loss->vocabulary;
    return row->weight * (row->smooth * (row->own - even) - loss->hard * row->rest);
}

static float value_at(Tensor t, int64_t i) {
    return t.dtype == DTYPE_F32 ? ((const float *)t.data)[i]
                                : bf16_to_f32(((const uint16_t *)t.data)[i]);
}

/* From the sums of rows_scan to the gradients, in place. */
static void rows_finish(Device *device, const Loss *loss, Tensor dx) {
    const int64_t rows = loss->x.shape[0], d = loss->x.shape[1];
    const float *w_sum = loss->even ? (const float *)dx.data + rows * d : NULL;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *d))
    for (int64_t i = 0; i < rows; i++) {
        const LossRow *row = &loss->row[i];
        const Tensor w =
            loss->w.parts ? tensor_rows(loss->kept, i, 1) : tensor_rows(loss->w, row->target, 1);
        float *v = (float *)dx.data + i * d;
        const double others = row->weight * (loss->hard + row->smooth),
                     even = row->weight * row->smooth / (double)loss->vocabulary;
        const double scale = others * exp(row->scan.max - row->max) / row->sum;
        /* w_sum includes the smoothing term of the target. */
        const double own = target_gradient(loss, row) + even;
        for (int64_t j = 0; j < d; j++) {
            double sum = scale * v[j] + own * value_at(w, j);
            if (w_sum) sum -= even * w_sum[j];
            v[j] = (float)sum;
        }
    }
}

/* ---- The second pass: dw and db. ---- */

/* Overwrites the logits with the derivative of the loss with respect to each:
 *     weight (hard p + smooth (p - 1 / V)), with p - 1 for the first p at the target. */
static void row_gradient(const CpuKernels *kernels, const Loss *loss, const LossRow *row, float *v,
                         int64_t first, int64_t count) {
    const float scale = (float)(row->weight * (loss->hard + row->smooth) / row->sum);
    const float even = (float)(row->weight * row->smooth / (double)loss->vocabulary);
    kernels->softmax_gradient_row(v, (float)row->max, scale, even, count);
    if (row->target >= first && row->target - first < count)
        v[row->target - first] = (float)target_gradient(loss, row);
}

/* Either may be absent. */
static int rows_gradient(Device *device, const Loss *loss, Tensor dw, Tensor db, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const bool convert = loss->gradient.dtype != DTYPE_F32;
    const int64_t rows = loss->x.shape[0];
    for (int64_t first = 0, count; first < loss->vocabulary; first += count) {
        TRY(chunk_begin(loss, PARTS_GRADIENT, first, &count, err));
        for (int64_t top = 0; top < rows; top += BLOCK_ROWS) {
            const int64_t here = rows - top < BLOCK_ROWS ? rows - top : BLOCK_ROWS;
            const Tensor y = part(loss->logits, here, count);
            const Tensor dy = part(loss->gradient, here, count);
            TRY(chunk_logits(device, loss, y, top, first, err));
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, here *count))
            for (int64_t i = 0; i < here; i++) {
                float *v = (float *)y.data + i * count;
                row_gradient(kernels, loss, &loss->row[top + i], v, first, count);
                if (convert)
                    kernels->convert_row((char *)dy.data + (size_t)(i * count) * 2, dy.dtype, v,
                                         DTYPE_F32, count);
            }
            if (dw.data)
                TRY(cpu_matmul_dw(device, parts_grad_rows(loss->w, dw, first, count), dy,
                                  tensor_rows(loss->x, top, here), err));
            if (db.data) cpu_column_sums(device, (float *)db.data + first, y);
        }
    }
    return 0;
}

/* ---- The operation. ---- */

/* Fills loss->row with the rows whose weight is not 0 (NaN included). */
static void rows_collect(const Loss *loss, Tensor target, Tensor weight, Tensor smoothing_weight) {
    LossRow *row = loss->row;
    for (int64_t r = 0; r < weight.shape[0]; r++) {
        const float w = ((const float *)weight.data)[r];
        if (w == 0) continue;
        *row++ = (LossRow){
            .scan = vocab_row_empty(),
            .target_logit = NAN,
            .target = ((const int32_t *)target.data)[r],
            .at = r,
            .weight = w,
            .smooth = smoothing_weight.data ? ((const float *)smoothing_weight.data)[r] : 0,
        };
    }
}

/* Counts them, and refuses targets outside of the vocabulary. */
static int rows_count(int64_t *count, Tensor target, Tensor weight, int64_t vocabulary,
                      Error *err) {
    *count = 0;
    for (int64_t r = 0; r < weight.shape[0]; r++) {
        if (((const float *)weight.data)[r] == 0) continue;
        ++*count;
        const int32_t t = ((const int32_t *)target.data)[r];
        if (t < 0 || t >= vocabulary)
            return error_set(err,
                             "vocab_cross_entropy: the target of row %lld is %d, expected an id "
                             "below %lld",
                             (long long)r, t, (long long)vocabulary);
    }
    return 0;
}

int cpu_vocab_cross_entropy(Device *device, Tensor loss, Tensor dx, Tensor dw, Tensor db, Tensor x,
                            Tensor w, Tensor b, Tensor target, Tensor weight, float smoothing,
                            Tensor smoothing_weight, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], d = x.shape[1], vocabulary = w.shape[0];
    /* The type of a packed weight's plain rows is unknown, if it has any. */
    if (dx.data && w.packed)
        return error_set(err, "vocab_cross_entropy: w is packed, expected plain rows for dx");
    if (vocabulary > INT32_MAX)
        return error_set(err, "vocab_cross_entropy: a vocabulary of %lld, expected at most %d",
                         (long long)vocabulary, INT32_MAX);
    int64_t count;
    TRY(rows_count(&count, target, weight, vocabulary, err));
    memset(loss.data, 0, (size_t)rows * sizeof(float));
    if (count == 0) {
        if (dx.data) memset(dx.data, 0, tensor_bytes(dx));
        return 0;
    }

    Loss l = {.w = w, .b = b, .vocabulary = vocabulary, .hard = 1 - (double)smoothing};
    l.chunk = w.packed ? w.packed->chunk_rows : VOCAB_CHUNK;
    if (l.chunk > vocabulary) l.chunk = vocabulary;
    l.even = dx.data && smoothing_weight.data;
    const int64_t block = (count < BLOCK_ROWS ? count : BLOCK_ROWS) + l.even;
    /* If no row has weight 0 and nothing is converted, x is read and dx written in place. */
    const bool some = count < rows, narrow = x.dtype != DTYPE_F32;
    const bool apart = dx.data && (some || narrow || l.even);
    const int64_t sums = count + l.even;
    const size_t logits_bytes = (size_t)(block * l.chunk) * sizeof(float);
    const size_t row_bytes = (size_t)d * dtype_size(x.dtype);
    char *base = NULL;
    void *logits, *gradient, *some_x, *sum, *kept;
    for (size_t used = 0;; used = 0) {
        logits = carve(base, &used, logits_bytes);
        gradient = carve(base, &used, narrow ? logits_bytes / 2 : 0);
        some_x = carve(base, &used, some ? (size_t)count * row_bytes : 0);
        sum = carve(base, &used, apart ? (size_t)(sums * d) * sizeof(float) : 0);
        l.row = carve(base, &used, (size_t)count * sizeof(LossRow));
        kept = carve(base, &used, w.parts && dx.data ? (size_t)count * row_bytes : 0);
        if (base) break;
        void *memory;
        TRY(cpu_workspace(device, &memory, used, err));
        base = memory;
    }
    l.logits = tensor_2d(logits, DTYPE_F32, block, l.chunk);
    l.gradient = narrow ? tensor_2d(gradient, x.dtype, block, l.chunk) : l.logits;
    l.kept = tensor_2d(kept, w.dtype, count, d);
    rows_collect(&l, target, weight, smoothing_weight);
    l.x = part(x, rows, d);
    if (some) {
        l.x = tensor_2d(some_x, x.dtype, count, d);
        for (int64_t i = 0; i < count; i++)
            memcpy((char *)some_x + (size_t)i * row_bytes,
                   (const char *)x.data + (size_t)l.row[i].at * row_bytes, row_bytes);
    }

    Tensor to = apart ? tensor_2d(sum, DTYPE_F32, sums, d) : dx.data ? part(dx, rows, d) : dx;
    TRY(rows_scan(device, &l, to, err));
    for (int64_t i = 0; i < count; i++) ((float *)loss.data)[l.row[i].at] = row_loss(&l, &l.row[i]);
    if (dw.data || db.data) TRY(rows_gradient(device, &l, dw, db, err));
    if (!dx.data) return 0;
    rows_finish(device, &l, to);
    if (!apart) return 0;
    if (some) memset(dx.data, 0, tensor_bytes(dx));
    for (int64_t i = 0; i < count; i++)
        kernels->convert_row((char *)dx.data + (size_t)l.row[i].at * row_bytes, dx.dtype,
                             (const float *)sum + i * d, DTYPE_F32, d);
    return 0;
}
