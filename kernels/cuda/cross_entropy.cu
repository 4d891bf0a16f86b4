/* The loss over a large vocabulary and its gradients.
 *
 * The logits of all rows would be by far the largest matrix of training and never exist at once:
 * the vocabulary is processed in chunks, in two passes. The first pass finds each row's largest
 * logit and sum of exponentials, from which one warp a row computes its loss and its gradient's
 * factors. The second pass recomputes the logits, turns them into their gradients, in the type of
 * the matmuls, and multiplies these: dx = dy w and dw += dy^T x. db is also summed from them, in
 * f32. That is four matmuls, the minimum without storing the logits; they dominate the time.
 * Without dw it is three, and without gradients one. (The CPU's method, which computes dx in the
 * first pass and rescales it whenever the largest logit changes, would save one of the three;
 * perhaps a twentieth of a step with frozen token embeddings.)
 *
 * All rows of a chunk are multiplied together, up to BLOCK_ROWS: dw, 768 MB of f32 for XLM-R, is
 * read and written once for each block of rows.
 *
 * The target's own logit is left out of the first pass's sums and added at the end: its gradient p
 * - 1 is minus the sum of the others', which is accurate even for a fully learned row, where p - 1
 * would be a difference of rounded values.
 *
 * The host must check the targets, since one outside of the vocabulary is an error, and the
 * weights, since the number of rows of non-zero weight determines the shapes of the matmuls: it
 * waits for the GPU once, before the matmuls.
 */
#include "kernels/cuda/vocab.cuh"

extern "C" {
#include "kernels/parts.h"
}

/* Ids for a block of the first pass: 8 for each thread. */
enum { GROUPS = 2, SLICE = 4 * GROUPS * SCAN_THREADS };

/* Rows that a thread of the second pass sums for db, in f32; and the threads of its blocks, with 4
 * columns each. */
enum { RUN = 32, GRADIENT_THREADS = 128, GRADIENT_COLUMNS = 4 * GRADIENT_THREADS };

/* Rows and bytes of logits in memory at a time. More than in vocab.cu: chunks of 8192 ids for 2048
 * rows give dw 384 tiles of 128 x 128, three for each SM of an H100, and half as many would leave a
 * quarter of them idle. */
#ifdef EASYFIRST_EMULATED
enum { BLOCK_ROWS = 256, LOGITS_BYTES = 64 << 10 }; /* several blocks and chunks in a test */
#else
enum { BLOCK_ROWS = 4096, LOGITS_BYTES = 64 << 20 };
#endif

/* Statistics of a slice of a row, without the target. */
typedef struct LossPart {
    double sum, logit_sum; /* of exp(logit - max); of all logits, including the target's */
    float max, target;     /* the target's logit, if it is in the slice */
} LossPart;

/* A row's values for the second pass: the derivative with respect to a logit is scale exp(logit -
 * max) - even, or `own` for the target's. */
struct alignas(16) LossRow {
    float max, scale, even, own;
    int32_t target, unused[3];
};

typedef struct Loss {
    Tensor x, w, b; /* x: the rows of non-zero weight, contiguous */
    const int32_t *target;
    const float *weight, *smoothing_weight; /* the latter may be NULL */
    float *loss;
    int64_t rows, count; /* all, and those of non-zero weight */
    int64_t vocabulary, chunk, block, row_parts;
    int64_t together; /* ids whose rows of w are in memory at once (kernels/parts.h) */
    double hard;      /* 1 - smoothing */
    int32_t *list;    /* [count] the rows of non-zero weight; NULL: all rows */
    int32_t *slot;    /* [rows] their index in the list, or -1; NULL likewise */
    float *logits;    /* [block, chunk] */
    void *gradient;   /* [block, chunk] of x's type; for f32 the same memory */
    LossPart *parts;  /* [count, row_parts] */
    LossRow *row;     /* [count] */
    float *db_parts;  /* [block / RUN, chunk] */
    Tensor sum;       /* [count, D] f32: dx of the rows of non-zero weight */
} Loss;

/* ---- The rows of non-zero weight. ---- */

/* One block: list and slot of the rows whose weight is not 0 (NaN included), in order. */
__global__ void __launch_bounds__(SCAN_THREADS)
    rows_list_kernel(int32_t *list, int32_t *slot, const float *weight, int rows) {
    __shared__ int totals[SCAN_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int before = 0; /* rows of the list so far */
    for (int first = 0; first < rows; first += SCAN_THREADS) {
        const int r = first + (int)threadIdx.x;
        const bool counts = r < rows && weight[r] != 0;
        const unsigned ballot = __ballot_sync(FULL_WARP, counts);
        __syncthreads(); /* the previous round's totals have been read */
        if (lane == 0) totals[warp] = __popc(ballot);
        __syncthreads();
        int place = before + __popc(ballot & ((1u << lane) - 1));
        for (int i = 0; i < SCAN_WARPS; i++) {
            if (i < warp) place += totals[i];
            before += totals[i];
        }
        if (r < rows) slot[r] = counts ? place : -1;
        if (counts) list[place] = r;
    }
}

/* y[r] = x[list[r]], rows of `words` words. */
template <typename Word>
__global__ void rows_pick_kernel(Word *y, const Word *x, const int32_t *list, int rows,
                                 int64_t words) {
    for (int r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < words;
             i += (int64_t)gridDim.x * blockDim.x)
            y[r * words + i] = x[list[r] * words + i];
}

/* dx[r] = sum[slot[r]], and 0 for rows of weight 0. */
template <typename T>
__global__ void rows_put_kernel(T *dx, const float *sum, const int32_t *slot, int rows, int64_t d) {
    for (int r = blockIdx.y; r < rows; r += gridDim.y) {
        const int64_t from = slot ? slot[r] : r;
        for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < d;
             i += (int64_t)gridDim.x * blockDim.x)
            from_f32(dx + r * d + i, from < 0 ? 0.0f : sum[from * d + i]);
    }
}

/* Copies weights and targets to the host, checks the targets and counts the rows. */
static int rows_count(Device *device, int64_t *count, Tensor target, Tensor weight,
                      int64_t vocabulary, Error *err) {
    const int64_t rows = weight.shape[0];
    const size_t bytes = (size_t)rows * sizeof(float);
    cudaStream_t stream = cuda_state(device)->stream;
    void *staging;
    TRY(cuda_staging(device, &staging, 2 * bytes, err));
    const float *weights = (const float *)staging;
    const int32_t *targets = (const int32_t *)((const char *)staging + bytes);
    CUDA_TRY(cudaMemcpyAsync(staging, weight.data, bytes, cudaMemcpyDeviceToHost, stream), err);
    CUDA_TRY(cudaMemcpyAsync((char *)staging + bytes, target.data, bytes, cudaMemcpyDeviceToHost,
                             stream),
             err);
    CUDA_TRY(cudaStreamSynchronize(stream), err);
    cuda_count_down(device, 2 * bytes);
    *count = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (weights[r] == 0) continue;
        ++*count;
        if (targets[r] < 0 || targets[r] >= vocabulary)
            return error_set(err,
                             "vocab_cross_entropy: the target of row %lld is %d, expected an id "
                             "below %lld",
                             (long long)r, targets[r], (long long)vocabulary);
    }
    return 0;
}

/* ---- The first pass. ---- */

/* The slice of an id: each part of the vocabulary begins with a new one. */
static __host__ __device__ int64_t slice_of(int64_t together, int64_t id) {
    return id / together * ((together + SLICE - 1) / SLICE) + id % together / SLICE;
}

typedef struct LossScan {
    const float *logits; /* [rows, ld], the ids first, first + 1, ... */
    int64_t ld;
    int32_t first, count;
    const int32_t *list, *target;
    int32_t top;     /* index in the list of the first row */
    LossPart *parts; /* [rows, row_parts], the first of the chunk's */
    int64_t row_parts;
} LossScan;

/* One slice of one row, as in scan_kernel of vocab.cu. */
__global__ void __launch_bounds__(SCAN_THREADS) loss_scan_kernel(const LossScan s) {
    const int row = blockIdx.y, begin = blockIdx.x * SLICE, place = s.top + row;
    const int end = s.count - begin < SLICE ? s.count : begin + SLICE;
    const float *logits = s.logits + row * s.ld;
    const int target = s.target[s.list ? s.list[place] : place] - s.first;
    float v[GROUPS][4], largest = -INFINITY, all = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int at = begin + 4 * (SCAN_THREADS * g + (int)threadIdx.x);
        values_get(v[g], logits + at, end - at, true);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            all += v[g][i]; /* 0 beyond the end */
            if (at + i >= end || at + i == target) v[g][i] = -INFINITY;
            largest = fmaxf(largest, v[g][i]); /* ignores NaN */
        }
    }
    largest = block_largest(largest);
    const float shift = largest == -INFINITY ? 0.0f : largest;
    float few = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int i = 0; i < 4; i++) few += expf(v[g][i] - shift);
    LossPart part;
    part.sum = block_sum_f64(few), part.logit_sum = block_sum_f64(all);
    part.max = largest;
    part.target = target >= begin && target < end ? logits[target] : 0.0f;
    if (threadIdx.x == 0) s.parts[row * s.row_parts + blockIdx.x] = part;
}

/* Sets *loss and the row's gradient factors from the sums over all ids but the target. By
 * differences to the largest logit: if all logits are large, -log p is small in comparison. */
static __device__ void row_finish(float *loss, LossRow *row, float max, double sum,
                                  double logit_sum, float target_logit, double weight,
                                  double smooth, double hard, double vocabulary) {
    const float most = target_logit > max ? target_logit : max;
    double own = exp((double)target_logit - most), rest = sum * exp((double)max - most);
    const double total = rest + own;
    /* The loss of a confident row is about the others' probability, which log(sum) would lose. */
    const double log_sum = own == 1 ? log1p(rest) : log(total);
    own /= total, rest /= total; /* neither computed as 1 minus the other */
    double value = hard * (log_sum + ((double)most - target_logit));
    if (smooth != 0) value += smooth * (log_sum + ((double)most - logit_sum / vocabulary));
    *loss = (float)(weight * value);
    row->max = most;
    row->scale = (float)(weight * (hard + smooth) / total);
    row->even = (float)(weight * smooth / vocabulary);
    row->own = (float)(weight * (smooth * (own - 1 / vocabulary) - hard * rest));
}

/* One warp a row. */
__global__ void loss_finish_kernel(const Loss l) {
    const int i = (int)((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
    if (i >= l.count) return;
    const LossPart *parts = l.parts + i * l.row_parts;
    float max = -INFINITY;
    double sum = 0, logit_sum = 0;
    for (int p = lane; p < l.row_parts; p += 32) {
        softmax_merge(&max, &sum, parts[p].max, parts[p].sum);
        logit_sum += parts[p].logit_sum;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const float other_max = __shfl_xor_sync(FULL_WARP, max, offset);
        const double other_sum = __shfl_xor_sync(FULL_WARP, sum, offset);
        softmax_merge(&max, &sum, other_max, other_sum);
    }
    logit_sum = warp_sum_f64(logit_sum);
    if (lane != 0) return;
    const int32_t r = l.list ? l.list[i] : i, target = l.target[r];
    LossRow row = {};
    row.target = target;
    row_finish(&l.loss[r], &row, max, sum, logit_sum, parts[slice_of(l.together, target)].target,
               l.weight[r], l.smoothing_weight ? l.smoothing_weight[r] : 0.0f, l.hard,
               (double)l.vocabulary);
    l.row[i] = row;
}

/* ---- The second pass. ---- */

/* Replaces logits by their gradients, in place if T is f32. Bound by the L2 cache, from which the
 * logits come: 4 bytes read and 2 or 4 written for each. A thread processes RUN rows of its 4
 * columns, so that the sums for db stay in registers; `sums` [rows / RUN, ld] may be NULL. Columns
 * from `count` to the next multiple of 4 have no logits; they are written too, but not used. */
template <typename T>
__global__ void __launch_bounds__(GRADIENT_THREADS)
    gradient_kernel(T *gradient, float *sums, const float *logits, int64_t ld, const LossRow *rows,
                    int count_rows, int first, int count) {
    const int column = ((int)blockIdx.x * GRADIENT_THREADS + (int)threadIdx.x) * 4;
    if (column >= count) return;
    const int begin = blockIdx.y * RUN, end = count_rows - begin < RUN ? count_rows : begin + RUN;
    float sum[4] = {};
#pragma unroll 4
    for (int r = begin; r < end; r++) {
        const LossRow row = rows[r];
        const int own = row.target - first - column;
        float v[4];
        values_get(v, logits + r * ld + column, count - column, true);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] = own == i ? row.own : row.scale * expf(v[i] - row.max) - row.even;
            sum[i] += v[i];
        }
        values_write(gradient + r * ld + column, v);
    }
    if (sums) values_write(sums + blockIdx.y * ld + column, sum);
}

/* Adds the runs' sums, in f64 and in order. */
__global__ void db_kernel(float *db, const float *sums, int runs, int64_t ld, int count) {
    const int column = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (column >= count) return;
    double sum = 0;
    for (int i = 0; i < runs; i++) sum += sums[i * ld + column];
    db[column] = (float)(db[column] + sum);
}

/* ---- The loop over chunks and blocks. ---- */

static Tensor chunk_of(void *data, Dtype dtype, const Loss *l, int64_t rows, int64_t columns) {
    Tensor t = tensor_2d(data, dtype, rows, columns);
    t.ld = l->chunk;
    return t;
}

static int chunk_logits(Device *device, const Loss *l, int64_t top, int64_t here, int64_t first,
                        int64_t count, Error *err) {
    const bool parts = l->w.parts != NULL;
    return cuda_matmul_weight(
        device, chunk_of(l->logits, DTYPE_F32, l, here, count), tensor_rows(l->x, top, here),
        parts ? parts_rows(l->w, first, count) : l->w, parts ? 0 : first, count,
        l->b.data ? (const float *)l->b.data + first : NULL, false, err);
}

static int chunk_scan(Device *device, const Loss *l, int64_t top, int64_t here, int64_t first,
                      int64_t count, Error *err) {
    LossScan s = {};
    s.logits = l->logits, s.ld = l->chunk;
    s.first = (int32_t)first, s.count = (int32_t)count;
    s.list = l->list, s.target = l->target, s.top = (int32_t)top;
    s.parts = l->parts + top * l->row_parts + slice_of(l->together, first),
    s.row_parts = l->row_parts;
    const dim3 grid(cuda_blocks(count, SLICE, INT32_MAX), (unsigned)here);
    LAUNCH(device, loss_scan_kernel, grid, SCAN_THREADS, 0, err, s);
    return 0;
}

static int chunk_gradient(Device *device, const Loss *l, Tensor db, int64_t top, int64_t here,
                          int64_t first, int64_t count, Error *err) {
    float *sums = db.data ? l->db_parts : NULL;
    const float *logits = l->logits;
    const LossRow *rows = l->row + top;
    const int64_t ld = l->chunk;
    const unsigned runs = cuda_blocks(here, RUN, INT32_MAX);
    const dim3 grid(cuda_blocks(count, GRADIENT_COLUMNS, INT32_MAX), runs);
    WITH_TYPE(T, l->x.dtype, {
        T *gradient = (T *)l->gradient;
        LAUNCH(device, gradient_kernel<T>, grid, GRADIENT_THREADS, 0, err, gradient, sums, logits,
               ld, rows, (int)here, (int)first, (int)count);
    });
    if (db.data)
        LAUNCH(device, db_kernel, cuda_blocks(count, 128, INT32_MAX), 128, 0, err,
               (float *)db.data + first, sums, (int)runs, ld, (int)count);
    return 0;
}

/* The outer loop is over chunks, so that a chunk's rows of w and dw stay in the cache. If all
 * logits fit the workspace (of up to 67 rows for XLM-R) the second pass does not recompute them. */
static int walk(Device *device, const Loss *l, bool second, Tensor dw, Tensor db, Error *err) {
    const bool there = second && l->chunk >= l->vocabulary && l->block == l->count && !l->w.parts;
    for (int64_t first = 0, count; first < l->vocabulary; first += count) {
        count = smaller(parts_together(l->w, first), l->chunk);
        TRY(parts_enter(l->w, second ? PARTS_GRADIENT : PARTS_SCAN, first, err));
        for (int64_t top = 0; top < l->count; top += l->block) {
            const int64_t here = smaller(l->count - top, l->block);
            if (!there) TRY(chunk_logits(device, l, top, here, first, count, err));
            if (!second) {
                TRY(chunk_scan(device, l, top, here, first, count, err));
                continue;
            }
            TRY(chunk_gradient(device, l, db, top, here, first, count, err));
            const Tensor dy = chunk_of(l->gradient, l->x.dtype, l, here, count);
            if (l->sum.data)
                TRY(cuda_matmul(device, tensor_rows(l->sum, top, here), operand(dy, false),
                                l->w.parts ? operand(parts_rows(l->w, first, count), false)
                                           : weight_operand(l->w, first, count, false),
                                NULL, first > 0, err));
            if (dw.data)
                TRY(cuda_matmul(device, parts_grad_rows(l->w, dw, first, count), operand(dy, true),
                                operand(tensor_rows(l->x, top, here), false), NULL, true, err));
        }
    }
    return 0;
}

/* ---- The operation. ---- */

static int loss_open(Device *device, Loss *l, Tensor x, Tensor dx, Tensor db, Error *err) {
    const int64_t d = x.shape[1];
    const bool some = l->count < l->rows, narrow = x.dtype != DTYPE_F32;
    l->block = smaller(l->count, BLOCK_ROWS);
    l->chunk = chunk_columns(LOGITS_BYTES, l->block, l->vocabulary, SLICE);
    l->together = l->w.parts ? l->w.parts->rows : l->vocabulary;
    l->row_parts = slice_of(l->together, l->vocabulary - 1) + 1;
    const size_t logits = (size_t)(l->block * l->chunk) * sizeof(float);
    const size_t runs = (size_t)(l->block + RUN - 1) / RUN;
    /* If no row has weight 0 and nothing is converted, x is read and dx written in place. */
    l->x = tensor_2d(x.data, x.dtype, l->rows, d);
    l->sum = dx.data ? tensor_2d(dx.data, DTYPE_F32, l->rows, d) : TENSOR_NONE;
    char *base = NULL;
    for (size_t used = 0;; used = 0) {
        l->logits = (float *)carve(base, &used, logits);
        l->gradient = narrow ? carve(base, &used, logits / 2) : l->logits;
        l->parts =
            (LossPart *)carve(base, &used, (size_t)(l->count * l->row_parts) * sizeof(LossPart));
        l->row = (LossRow *)carve(base, &used, (size_t)l->count * sizeof(LossRow));
        if (db.data)
            l->db_parts = (float *)carve(base, &used, runs * (size_t)l->chunk * sizeof(float));
        if (some) {
            l->list = (int32_t *)carve(base, &used, (size_t)l->rows * sizeof(int32_t));
            l->slot = (int32_t *)carve(base, &used, (size_t)l->rows * sizeof(int32_t));
            void *picked = carve(base, &used, (size_t)(l->count * d) * dtype_size(x.dtype));
            l->x = tensor_2d(picked, x.dtype, l->count, d);
        }
        if (dx.data && (some || narrow)) {
            void *sum = carve(base, &used, (size_t)(l->count * d) * sizeof(float));
            l->sum = tensor_2d(sum, DTYPE_F32, l->count, d);
        }
        if (base) return 0;
        void *memory;
        TRY(cuda_workspace(device, &memory, used, err));
        base = (char *)memory;
    }
}

/* Gathers the rows of x of non-zero weight, unless these are all. */
static int rows_pick(Device *device, const Loss *l, Tensor x, Error *err) {
    if (!l->list) return 0;
    const size_t row = (size_t)x.shape[1] * dtype_size(x.dtype);
    const int32_t *list = l->list;
    const int count = (int)l->count;
    LAUNCH(device, rows_list_kernel, 1, SCAN_THREADS, 0, err, l->list, l->slot, l->weight,
           (int)l->rows);
    const dim3 grid(1, cuda_blocks(count, 1, 65535));
    if (row % 16 == 0 && (uintptr_t)x.data % 16 == 0)
        LAUNCH(device, rows_pick_kernel<uint4>, grid, 128, 0, err, (uint4 *)l->x.data,
               (const uint4 *)x.data, list, count, (int64_t)(row / 16));
    else
        LAUNCH(device, rows_pick_kernel<uint16_t>, grid, 128, 0, err, (uint16_t *)l->x.data,
               (const uint16_t *)x.data, list, count, (int64_t)(row / 2));
    return 0;
}

static int rows_put(Device *device, const Loss *l, Tensor dx, Error *err) {
    if (!dx.data || l->sum.data == dx.data) return 0;
    const dim3 grid(cuda_blocks(dx.shape[1], 256, 1024), cuda_blocks(l->rows, 1, 65535));
    const float *sum = (const float *)l->sum.data;
    const int32_t *slot = l->slot;
    WITH_TYPE(T, dx.dtype,
              LAUNCH(device, rows_put_kernel<T>, grid, 256, 0, err, (T *)dx.data, sum, slot,
                     (int)l->rows, dx.shape[1]));
    return 0;
}

static int clear(Device *device, Tensor t, Error *err) {
    CUDA_TRY(cudaMemsetAsync(t.data, 0, tensor_bytes(t), cuda_state(device)->stream), err);
    return 0;
}

int cuda_vocab_cross_entropy(Device *device, Tensor loss, Tensor dx, Tensor dw, Tensor db, Tensor x,
                             Tensor w, Tensor b, Tensor target, Tensor weight, float smoothing,
                             Tensor smoothing_weight, Error *err) {
    const int64_t vocabulary = w.shape[0];
    if (dx.data && w.packed)
        return error_set(err, "vocab_cross_entropy: w is packed, expected plain rows for dx");
    if (vocabulary > INT32_MAX || x.shape[0] > INT32_MAX)
        return error_set(err,
                         "vocab_cross_entropy: %lld rows, a vocabulary of %lld, expected at "
                         "most %d",
                         (long long)x.shape[0], (long long)vocabulary, INT32_MAX);
    Loss l = {};
    l.w = w, l.b = b, l.vocabulary = vocabulary, l.rows = x.shape[0];
    l.hard = 1 - (double)smoothing;
    l.target = (const int32_t *)target.data, l.weight = (const float *)weight.data;
    l.smoothing_weight = (const float *)smoothing_weight.data, l.loss = (float *)loss.data;
    TRY(rows_count(device, &l.count, target, weight, vocabulary, err));
    if (l.count < l.rows) TRY(clear(device, loss, err));
    if (l.count == 0) return dx.data ? clear(device, dx, err) : 0;

    TRY(loss_open(device, &l, x, dx, db, err));
    TRY(rows_pick(device, &l, x, err));
    TRY(walk(device, &l, false, dw, db, err));
    LAUNCH(device, loss_finish_kernel, cuda_blocks(l.count, 4, INT32_MAX), 128, 0, err, l);
    if (!dx.data && !dw.data && !db.data) return 0;
    TRY(walk(device, &l, true, dw, db, err));
    return rows_put(device, &l, dx, err);
}
