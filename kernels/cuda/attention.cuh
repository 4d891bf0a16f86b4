/* attention.cuh - shared by the forward and backward kernels of attention: the pieces of a call's
 * work, the arguments, the iteration over a span's keys, the dropout mask. Private to
 * kernels/cuda/.
 *
 * Two sets of kernels: those of attention_wide.cu, attention_narrow.cu and attention_backward.cu
 * multiply bf16 on tensor cores, those of attention_plain.cu and attention_plain_backward.cu handle
 * the rest: f32 (without TF32), and heads whose width or alignment the others do not support.
 */
#ifndef EASYFIRST_KERNELS_CUDA_ATTENTION_CUH
#define EASYFIRST_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/values.cuh"

enum {
    TILE_KEYS = 64,  /* keys processed together, in every kernel */
    TILE_ROWS = 64,  /* query rows of a block in the plain kernels and the backward kernels */
    WIDTH_MOST = 128 /* the widest head of the tensor core kernels */
};

/* ---- The pieces: the work of a thread block, for one head. ---- */

/* Some query rows of a span and all its keys. Key j of the span is row j + shift[r], for the first
 * r with j < until[r]; ranges without rows are omitted, and the last one is repeated for missing
 * ones. Row r of the item sees the first min(keys, seen + r) keys: in a causal span `keys` are those
 * of the item's last row, and else seen is keys. With a window it sees none before first + r, and
 * else first is far below 0. */
struct __align__(16) AttentionItem {
    int32_t q_begin, rows, keys, seen;
    int32_t until[ATTENTION_RANGES], shift[ATTENTION_RANGES];
    int32_t first, unused[3];
};

/* For the gradients of keys and values: some key rows that belong to the same spans, and those
 * spans' query rows, a few at a time. In a step, key row j is key j + shift of the queries'
 * span, and row r sees the first seen + r keys of that, from first + r on. */
struct __align__(16) KeyTile {
    int32_t begin, rows, first_step, steps;
};
struct __align__(16) KeyStep {
    int32_t q_begin, rows, shift, seen;
    int32_t first, unused[3];
};

/* Lists in device memory, valid until the next plan. */
typedef struct AttentionPlan {
    int item_count, key_tile_count;
    int words; /* of 32 bits, enough for a mask over the keys of any span */
    const AttentionItem *items;
    const KeyTile *key_tiles; /* by their rows; no row is in two of them */
    const KeyStep *steps;     /* of one key tile in the order of the spans */
} AttentionPlan;

/* Items of up to `item_rows` query rows and, unless step_rows is 0, key tiles with steps of up to
 * step_rows. The lists are rebuilt and sent only if the spans differ from the last call's. */
int attention_plan(Device *device, AttentionPlan *plan, const AttentionSpan *spans, int count,
                   int item_rows, int step_rows, Error *err);

/* Whether a span has a window: only the plain kernels support them. */
bool attention_windowed(const AttentionSpan *spans, int count);

/* The place of the first tile of keys that a row of the item sees. */
static __device__ __forceinline__ int first_tile(const AttentionItem &item) {
    return item.first > 0 ? item.first / TILE_KEYS * TILE_KEYS : 0;
}

static __device__ __forceinline__ int64_t key_row(const AttentionItem &item, int place) {
    int shift = item.shift[3];
    if (place < item.until[2]) shift = item.shift[2];
    if (place < item.until[1]) shift = item.shift[1];
    if (place < item.until[0]) shift = item.shift[0];
    return place + shift;
}

/* Loads the block's item into shared memory, to save registers; ends with a barrier. */
static __device__ __forceinline__ void item_load(AttentionItem *to, const AttentionItem *from) {
    enum { WORDS = sizeof *to / sizeof(int32_t) };
    if (threadIdx.x < WORDS)
        reinterpret_cast<int32_t *>(to)[threadIdx.x] =
            reinterpret_cast<const int32_t *>(from)[threadIdx.x];
    __syncthreads();
}

/* ---- Arguments. ---- */

typedef struct HeadMatrix {
    void *data;
    int64_t ld;
    Dtype dtype;
    bool aligned; /* every head's start and width are multiples of four values */
} HeadMatrix;

static inline HeadMatrix head_matrix(Tensor t, int heads) {
    const HeadMatrix m = {t.data, t.ld, t.dtype, rows_aligned(t, 4) && t.shape[1] / heads % 4 == 0};
    return m;
}

template <typename T>
static __device__ __forceinline__ T *head_at(const HeadMatrix &m, int64_t row, int64_t column) {
    return static_cast<T *>(m.data) + row * m.ld + column;
}

/* A value is kept, times `factor`, if its random word >= threshold. */
typedef struct Drop {
    uint64_t seed, stream;
    uint32_t threshold;
    float factor;
    bool on;
} Drop;

Drop attention_drop(const Dropout *dropout); /* NULL: no dropout */

/* Into shared memory, visible after the next barrier: otherwise the compiler would keep the
 * constant keys of all Philox rounds in registers. */
static __device__ __forceinline__ void drop_load(Drop *to, const Drop &from) {
    if (threadIdx.x == 0) *to = from;
}

/* Heads h shared ... h shared + shared - 1 have head h of keys and values. */
typedef struct ForwardArgs {
    const AttentionItem *items;
    HeadMatrix out, q, k, v;
    float *lse; /* NULL: not computed */
    int64_t lse_ld;
    int heads, shared, width;
    float scale;
    Drop drop;
} ForwardArgs;

/* `stats` [heads, rows of q]: of each row the log-sum-exp, in the base of the kernels, and the sum
 * of dout * out; `mask` [rows of q, heads, words]: bit j % 32 of word j / 32 is set if the value of
 * key j is kept. The dq kernel writes them and the dk and dv kernel reads them. */
typedef struct BackwardArgs {
    AttentionPlan plan;
    HeadMatrix dq, dk, dv, dout, out, q, k, v;
    const float *lse;
    int64_t lse_ld, rows;
    float2 *stats;
    uint32_t *mask;
    int heads, shared, width;
    float scale;
    Drop drop;
} BackwardArgs;

/* The first Philox block, of four words, of a row's keys; key j's word is in block j / 4. */
static __device__ __forceinline__ uint64_t drop_block(int64_t row, int heads, int head) {
    return (uint64_t)(row * heads + head) * (65536 / 4);
}

/* Which of a Philox block's four values are kept, as bits. */
static __device__ __forceinline__ uint32_t drop_keeps(const Drop &drop, uint64_t block) {
    uint32_t word[4], bits = 0;
    philox(word, drop.seed, drop.stream, block);
#pragma unroll
    for (int i = 0; i < 4; i++) bits |= (word[i] >= drop.threshold ? 1u : 0u) << i;
    return bits;
}

/* ---- The launches, by file. ---- */

/* Whether the tensor core kernels support such a matrix of heads. */
bool attention_on_units(Tensor t, int heads);

int attention_wide_rows(int width, bool drop); /* query rows of a block, if there are enough */
int attention_wide(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                   int item_rows, Error *err);
int attention_narrow(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                     Error *err);
int attention_plain(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                    int item_rows, Error *err);
int attention_plain_backward(Device *device, const BackwardArgs *args, Error *err);

/* Allows a kernel more than the default 48 KiB of dynamic shared memory, of which 1 KiB is left for
 * its static variables. */
template <typename Kernel> static inline int allow_shared(Kernel kernel, size_t bytes, Error *err) {
    if (bytes <= 47 << 10) return 0;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
             err);
    return 0;
}

#endif
