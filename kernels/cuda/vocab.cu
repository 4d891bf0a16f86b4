/* Proposals over a large vocabulary.
 *
 * The vocabulary is processed in chunks: a matmul writes the logits of all rows and one chunk into
 * the workspace, and one kernel scans them. For few rows (decoding) the time is that of reading the
 * weight, V D values, once; the logits stay in the L2 cache and take a twentieth of that time for
 * 16 rows. The scan is split into slices of 4092 ids, one block for each slice of each row, so that
 * a single row of 250,002 ids still has 62 blocks. Each writes its result, a RowPart, and finally
 * one warp a row merges its parts, in order: so the result is deterministic, for any number of
 * rows.
 *
 * The host waits once, for the tokens and scores.
 */
#include "kernels/cuda/vocab.cuh"

#include <string.h>

/* Groups of 4 ids for each thread of the scan; a slice is one group less than a block could
 * process, since groups are aligned to Philox blocks of 4, up to 3 ids before the slice. */
enum { GROUPS = 4, SLICE = 4 * (GROUPS * SCAN_THREADS - 1) };

/* Rows and bytes of logits in memory at a time. */
#ifdef EASYFIRST_EMULATED
enum { BLOCK_ROWS = 256, LOGITS_BYTES = 64 << 10 }; /* several blocks and chunks in a test */
#else
enum { BLOCK_ROWS = 1024, LOGITS_BYTES = 32 << 20 };
#endif

/* The result of a slice of a row. */
typedef struct RowPart {
    double sum;       /* of exp(logit - max); NaN if a logit is NaN or +inf */
    double best;      /* the largest value; see VocabChoice */
    float max;        /* of the logits, ignoring NaN; -inf: none above that */
    float best_logit; /* that of the largest value */
    int32_t token;    /* -1: no value above -inf */
    int32_t unused;
} RowPart;

typedef struct Scan {
    const float *logits; /* [rows, ld], the ids first, first + 1, ... */
    int64_t ld;
    int32_t first, count, banned;
    float temperature;
    uint64_t seed;
    const uint64_t *stream; /* [rows] */
    const int64_t *index;   /* [rows] */
    RowPart *parts;         /* [rows, row_parts], the first of the chunk's */
    int64_t row_parts;
} Scan;

/* ---- Drawing. ---- */

/* The noise of a random word, as in random_gumbel. */
static __device__ double gumbel(uint32_t word) {
    return -log(-log(((double)word + 0.5) * 0x1p-32));
}

/* The same to 2e-5, in a tenth of the time. -log(u) is computed from 1 - u if u is near 1, where
 * the noise is large and f32 would lose digits. */
static __device__ __forceinline__ float gumbel_near(uint32_t word) {
    const float rest = ((float)~word + 0.5f) * 0x1p-32f;
    const float series =
        rest * (1.0f + rest * (0.5f + rest * (1.0f / 3 + rest * (0.25f + rest * 0.2f))));
    const float e = rest < 0.0625f ? series : -__logf(((float)word + 0.5f) * 0x1p-32f);
    return -__logf(e);
}

/* Candidates by approximate value are compared by their exact value, in double. The approximation
 * errs by the noise's 2e-5 and by rounding of its terms, none of which exceeds |largest| + 64 where
 * it matters. */
static __device__ __forceinline__ float least_value(float largest) {
    if (isinf(largest)) return largest;
    return largest - (1e-4f + (fabsf(largest) + 64.0f) * 0x1p-21f);
}

typedef struct Best {
    double value;
    float logit;
    int32_t token;
} Best;

/* Of equal values the lowest id's wins; nothing wins with -inf or NaN. */
static __device__ __forceinline__ void best_offer(Best *best, double value, float logit,
                                                  int32_t token) {
    const bool wins =
        value > best->value || (value == best->value && value > -INFINITY && token < best->token);
    if (!wins) return;
    best->value = value, best->logit = logit, best->token = token;
}

static __device__ __forceinline__ void warp_best(Best *best) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const double value = __shfl_xor_sync(FULL_WARP, best->value, offset);
        const float logit = __shfl_xor_sync(FULL_WARP, best->logit, offset);
        const int32_t token = __shfl_xor_sync(FULL_WARP, best->token, offset);
        best_offer(best, value, logit, token);
    }
}

/* ---- The scan. ---- */

/* What thread `lane` of a scan has in group g as value i is id 4 * (SCAN_THREADS g + lane) + i,
 * less the ids that groups begin before the slice. */
static __device__ __forceinline__ int group_offset(int g) {
    return 4 * SCAN_THREADS * g;
}

/* The largest logit, and its id. */
static __device__ __forceinline__ void thread_argmax(Best *best, const float (&v)[GROUPS][4],
                                                     int32_t id, float largest) {
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (v[g][i] == largest) best_offer(best, largest, largest, id + group_offset(g) + i);
}

/* The largest of logit / temperature + noise: by approximations first, which leave a value or two
 * of a slice, then of those exactly. `logits` points to the thread's first value, whose id is `id`
 * and whose random number `index`, a multiple of 4. */
static __device__ __forceinline__ void thread_draw(Best *best, const Scan &s,
                                                   const float (&v)[GROUPS][4], const float *logits,
                                                   int32_t id, uint64_t stream, uint64_t index) {
    float near[GROUPS][4], top = -INFINITY;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        uint32_t word[4];
        philox(word, s.seed, stream, (index + (uint64_t)group_offset(g)) / 4);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            near[g][i] = v[g][i] / s.temperature + gumbel_near(word[i]);
            top = fmaxf(top, near[g][i]); /* ignores NaN */
        }
    }
    const float least = least_value(block_largest(top));
    unsigned candidates = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (v[g][i] > -INFINITY && near[g][i] >= least) candidates |= 1u << (4 * g + i);
    for (; candidates; candidates &= candidates - 1) {
        const int which = __ffs((int)candidates) - 1, at = group_offset(which / 4) + which % 4;
        uint32_t word[4];
        philox(word, s.seed, stream, (index + (uint64_t)at) / 4);
        const uint32_t own = which % 4 == 0   ? word[0]
                             : which % 4 == 1 ? word[1]
                             : which % 4 == 2 ? word[2]
                                              : word[3];
        const float logit = logits[at];
        best_offer(best, (double)logit / s.temperature + gumbel(own), logit, id + at);
    }
}

/* Of the whole block; in the threads of the first warp. */
static __device__ __forceinline__ void block_best(Best *best) {
    __shared__ Best shared[SCAN_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    warp_best(best);
    if (lane == 0) shared[warp] = *best;
    __syncthreads(); /* all warps' results are written */
    *best = shared[lane % SCAN_WARPS];
    warp_best(best);
}

/* One slice of one row: its logits are read once, 16 bytes at a time, and stay in registers. A
 * thread sums 16 exponentials in f32; the few further sums are in f64. */
template <bool DRAW> __global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(const Scan s) {
    const int row = blockIdx.y, begin = blockIdx.x * SLICE;
    const int end = s.count - begin < SLICE ? s.count : begin + SLICE;
    const float *logits = s.logits + row * s.ld;
    const uint64_t stream = DRAW ? s.stream[row] : 0;
    const uint64_t index = DRAW ? (uint64_t)s.index[row] + (uint64_t)s.first + begin : 0;
    /* Words of the first Philox block that belong to ids before the slice. */
    const int skip = (int)(index % 4), column = begin - skip + 4 * (int)threadIdx.x;
    float v[GROUPS][4], largest = -INFINITY;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int at = column + group_offset(g);
        if (skip == 0 && at + 4 <= end) {
            values_read(v[g], logits + at);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[g][i] = at + i >= begin && at + i < end ? logits[at + i] : -INFINITY;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (s.first + at + i == s.banned) v[g][i] = -INFINITY;
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
    const double sum = block_sum_f64(few);
    Best best = {-INFINITY, -INFINITY, -1};
    if (DRAW)
        thread_draw(&best, s, v, logits + column, s.first + column, stream,
                    index - skip + 4 * (uint64_t)threadIdx.x);
    else
        thread_argmax(&best, v, s.first + column, largest);
    block_best(&best);
    if (threadIdx.x == 0) {
        const RowPart part = {sum, best.value, largest, best.logit, best.token, 0};
        s.parts[row * s.row_parts + blockIdx.x] = part;
    }
}

/* One warp a row merges its parts to a token and its log p. A row without any choice gets the
 * lowest id and a NaN score, which no caller mistakes for a proposal. */
__global__ void finish_kernel(int32_t *tokens, float *scores, const RowPart *parts, int rows,
                              int row_parts) {
    const int row = (int)((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
    if (row >= rows) return;
    Best best = {-INFINITY, -INFINITY, -1};
    float max = -INFINITY;
    double sum = 0;
    for (int i = lane; i < row_parts; i += 32) {
        const RowPart part = parts[(int64_t)row * row_parts + i];
        softmax_merge(&max, &sum, part.max, part.sum);
        best_offer(&best, part.best, part.best_logit, part.token);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const float other_max = __shfl_xor_sync(FULL_WARP, max, offset);
        const double other_sum = __shfl_xor_sync(FULL_WARP, sum, offset);
        softmax_merge(&max, &sum, other_max, other_sum);
    }
    warp_best(&best);
    if (lane != 0) return;
    tokens[row] = best.token < 0 ? 0 : best.token;
    scores[row] =
        best.token < 0 ? __int_as_float(0x7fc00000) : (float)((double)best.logit - max - log(sum));
}

/* ---- The operations. ---- */

/* The workspace shared by all chunks. */
typedef struct Proposal {
    float *logits;  /* [block, chunk] */
    RowPart *parts; /* [rows, row_parts] */
    uint64_t *stream;
    int64_t *index;
    int32_t *tokens; /* followed by as many scores */
    int64_t rows, block, chunk, row_parts;
} Proposal;

static int proposal_open(Device *device, Proposal *p, int64_t rows, int64_t ids, Error *err) {
    p->rows = rows;
    p->block = smaller(rows, BLOCK_ROWS);
    p->chunk = chunk_columns(LOGITS_BYTES, p->block, ids, SLICE);
    p->row_parts = (ids + SLICE - 1) / SLICE;
    char *base = NULL;
    for (size_t used = 0;; used = 0) {
        p->logits = (float *)carve(base, &used, (size_t)(p->block * p->chunk) * sizeof(float));
        p->parts = (RowPart *)carve(base, &used, (size_t)(rows * p->row_parts) * sizeof(RowPart));
        p->stream = (uint64_t *)carve(base, &used, (size_t)rows * 16);
        p->index = (int64_t *)(p->stream + rows);
        p->tokens = (int32_t *)carve(base, &used, (size_t)rows * 8);
        if (base) return 0;
        void *memory;
        TRY(cuda_workspace(device, &memory, used, err));
        base = (char *)memory;
    }
}

/* Sends the rows' streams and indices through the page-locked memory that later receives the
 * results: so it is free again when the operation returns. */
static int proposal_send(Device *device, const Proposal *p, char *staging,
                         const VocabChoice *choice, Error *err) {
    const size_t n = (size_t)p->rows;
    memcpy(staging, choice->stream, n * 8);
    memcpy(staging + n * 8, choice->index, n * 8);
    CUDA_TRY(cudaMemcpyAsync(p->stream, staging, n * 16, cudaMemcpyHostToDevice,
                             cuda_state(device)->stream),
             err);
    cuda_count_up(device, n * 16);
    return 0;
}

/* Logits of the rows [top, top + here) and the ids [first, first + count), and their scan. */
static int proposal_scan(Device *device, const Proposal *p, Tensor x, Tensor w, Tensor b,
                         const VocabChoice *choice, int64_t top, int64_t first, int64_t count,
                         Error *err) {
    const int64_t here = smaller(p->rows - top, p->block);
    Tensor y = tensor_2d(p->logits, DTYPE_F32, here, count);
    y.ld = p->chunk;
    TRY(cuda_matmul_weight(device, y, tensor_rows(x, top, here), w, first, count,
                           b.data ? (const float *)b.data + first : NULL, false, err));
    Scan s = {};
    s.logits = p->logits, s.ld = p->chunk;
    s.first = (int32_t)first, s.count = (int32_t)count, s.banned = choice->banned;
    s.temperature = choice->temperature, s.seed = choice->seed;
    s.stream = p->stream + top, s.index = p->index + top;
    s.parts = p->parts + top * p->row_parts + first / SLICE;
    s.row_parts = p->row_parts;
    const dim3 grid(cuda_blocks(count, SLICE, INT32_MAX), (unsigned)here);
    if (choice->temperature > 0)
        LAUNCH(device, scan_kernel<true>, grid, SCAN_THREADS, 0, err, s);
    else
        LAUNCH(device, scan_kernel<false>, grid, SCAN_THREADS, 0, err, s);
    return 0;
}

/* The outer loop is over chunks, so that a chunk of the weight is read from memory once for any
 * number of rows. */
int cuda_vocab_propose(Device *device, int32_t *tokens, float *scores, Tensor x, Tensor w, Tensor b,
                       const VocabChoice *choice, Error *err) {
    const int64_t rows = x.shape[0], ids = choice->limit;
    const size_t n = (size_t)rows;
    cudaStream_t stream = cuda_state(device)->stream;
    Proposal p;
    void *memory;
    TRY(proposal_open(device, &p, rows, ids, err));
    TRY(cuda_staging(device, &memory, n * 16, err));
    char *staging = (char *)memory;
    if (choice->temperature > 0) TRY(proposal_send(device, &p, staging, choice, err));
    for (int64_t first = 0; first < ids; first += p.chunk) {
        const int64_t count = smaller(ids - first, p.chunk);
        for (int64_t top = 0; top < rows; top += p.block)
            TRY(proposal_scan(device, &p, x, w, b, choice, top, first, count, err));
    }
    LAUNCH(device, finish_kernel, cuda_blocks(rows, 4, INT32_MAX), 128, 0, err, p.tokens,
           (float *)(p.tokens + rows), p.parts, (int)rows, (int)p.row_parts);
    CUDA_TRY(cudaMemcpyAsync(staging, p.tokens, n * 8, cudaMemcpyDeviceToHost, stream), err);
    CUDA_TRY(cudaStreamSynchronize(stream), err);
    cuda_count_down(device, n * 8);
    memcpy(tokens, staging, n * sizeof *tokens);
    memcpy(scores, staging + n * sizeof *tokens, n * sizeof *scores);
    return 0;
}

int cuda_vocab_logits(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Error *err) {
    return cuda_linear_forward(device, y, x, w, b, ACTIVATION_NONE, false, err);
}
