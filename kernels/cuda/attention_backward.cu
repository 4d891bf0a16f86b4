/* The backward pass of attention on tensor cores, after FlashAttention-2 (Dao, 2023).
 *
 * With s the scores, p = exp(scale s - lse) the softmax, z the mask of dropout (0 or 1 / (1 - p))
 * and r the sum over a row of dout * out: dp = z * (dout v^T), ds = p * (dp - r), dq = scale ds k,
 * dk += scale ds^T q, dv += (z * p)^T dout.
 *
 * Two kernels, each of which recomputes s and dp: one for dq, where a block has query rows and
 * loops over the keys, and one for dk and dv, where a block has key rows and loops over the queries
 * that attend to them. That is seven matmuls instead of five, but the alternative adds to dq from
 * every tile of keys by f32 atomics: 40 % less arithmetic, but the order of the sums, and their
 * last digits, would differ in every run. Key rows shared by several spans also belong to one block
 * (attention_plan.cu), so that dk and dv are read, added to and written once.
 *
 * The dq kernel runs first and stores for the other, in the workspace, each row's log-sum-exp and
 * r, and the dropout mask as bits: random numbers are generated for four keys at a time from a
 * span's first key, where the first kernel's tiles begin, but not the other's.
 *
 * For each 64 x 64 scores, both do 3 or 4 matmuls of 2 * 64 * 64 * D operations on 256 D bytes from
 * the L2 cache: so they are bound by the tensor cores and shared memory. Four warps of 16 rows.
 */
#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/attention_tile.cuh"

enum { THREADS = 128, STAGES = 2 };

/* ---- dq. ---- */

template <int D> static constexpr size_t dq_shared() {
    return STAGES * 2 * Tile<D>::bytes(TILE_KEYS);
}

template <int D>
static __device__ __forceinline__ void dq_copy_stage(bf16 *buffer, const BackwardArgs &args,
                                                     const AttentionItem &item, int place,
                                                     int column) {
    tile_copy_keys<D, THREADS>(buffer, args.k, item, place, column, args.width, threadIdx.x);
    tile_copy_keys<D, THREADS>(buffer + TILE_KEYS * Tile<D>::LD, args.v, item, place, column,
                               args.width, threadIdx.x);
}

/* lse * log2(e) and r of the lane's two rows, from dout as fragments, for this kernel and the
 * other. */
template <int D>
static __device__ __forceinline__ void
dq_stats(float2 (&stats)[2], const uint32_t (&dout)[D / 16][4], const BackwardArgs &args,
         int64_t first, int rows, int head) {
    const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = lane / 4 + 8 * i;
        const bool there = r < rows;
        const bf16 *out =
            head_at<bf16>(args.out, first + (there ? r : 0), (int64_t)head * args.width + 2 * t);
        float sum = 0;
#pragma unroll
        for (int d = 0; d < D / 8; d++) {
            if (!there || 8 * d >= args.width) continue;
            const float2 x = unpack_bf16(dout[d / 2][d % 2 * 2 + i]);
            const float2 y = unpack_bf16(*reinterpret_cast<const uint32_t *>(out + 8 * d));
            sum = __fmaf_rn(x.y, y.y, __fmaf_rn(x.x, y.x, sum));
        }
        sum = row_sum(sum);
        const float lse = there ? args.lse[(first + r) * args.lse_ld + head] : 0.0f;
        stats[i] = make_float2(lse * LOG2_E, sum);
        if (there && t == 0) args.stats[head * args.rows + first + r] = stats[i];
    }
}

/* Writes a tile's mask bits of the lane's rows; each of the four lanes of a row has all and writes
 * one word. */
static __device__ __forceinline__ void dq_mask_write(const RowBits (&keep)[2],
                                                     const BackwardArgs &args, int64_t first,
                                                     int rows, int head, int place) {
    const int lane = threadIdx.x % 32, t = lane % 4;
    const int r = lane / 4 + 8 * (t / 2), at = place / 32 + t % 2;
    const RowBits bits = t / 2 ? keep[1] : keep[0];
    if (r < rows && at < args.plan.words)
        args.mask[((first + r) * args.heads + head) * args.plan.words + at] =
            t % 2 ? bits.high : bits.low;
}

/* Replaces s by ds, for 16 rows and COLUMNS keys from the tile's key n0 * 8 on, `keys` of which
 * exist; row r sees the first seen + r. */
template <int COLUMNS, bool DROP>
static __device__ __forceinline__ void
dq_derivatives(float (&s)[COLUMNS / 8][4], const float (&dp)[COLUMNS / 8][4],
               const float2 (&stats)[2], const RowBits (&keep)[2], int n0, int keys, int seen,
               float scale_log2, float drop_factor) {
    const int first = threadIdx.x % 4 * 2, row_number = threadIdx.x % 32 / 4;
    const int own[2] = {min(keys, seen + row_number), min(keys, seen + row_number + 8)};
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 row = stats[e / 2];
            const float p = exp2_fast(__fmaf_rn(s[n][e], scale_log2, -row.x));
            float derivative = dp[n][e];
            if (DROP)
                derivative =
                    tile_kept(keep[e / 2], n0 + n, e % 2) ? derivative * drop_factor : 0.0f;
            s[n][e] = 8 * n + first + e % 2 < own[e / 2] ? p * (derivative - row.y) : 0.0f;
        }
}

template <int D>
static __device__ __forceinline__ void dq_write(bf16 *own, const float (&dq)[D / 8][4],
                                                const BackwardArgs &args, int64_t first, int rows,
                                                int column) {
    const int lane = threadIdx.x % 32;
    const float factor[2] = {args.scale, args.scale};
    if (args.dq.dtype == DTYPE_BF16) {
        fragment_write<D>(own, dq, factor, args.dq, first, rows, column, args.width);
        return;
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = lane / 4 + 8 * i;
            if (r < rows && 8 * n < args.width)
                *reinterpret_cast<float2 *>(
                    head_at<float>(args.dq, first + r, column + 8 * n + 2 * (lane % 4))) =
                    make_float2(dq[n][2 * i] * args.scale, dq[n][2 * i + 1] * args.scale);
        }
}

template <int D, bool DROP>
__global__ void __launch_bounds__(THREADS, D <= 64 ? 3 : 2) dq_kernel(BackwardArgs args) {
    SHARED_MEMORY(bf16, memory);
    __shared__ AttentionItem item;
    __shared__ Drop drop;
    /* Keys at a time: a tile, or half of one if the rows need the registers. */
    enum { LD = Tile<D>::LD, STAGE = 2 * TILE_KEYS * LD, COLUMNS = D <= 32 ? 64 : 32 };
    drop_load(&drop, args.drop);
    item_load(&item, args.plan.items + blockIdx.x / args.heads);
    const int head = blockIdx.x % args.heads, column = head * args.width;
    const int key_column = head / args.shared * args.width;
    const int warp_row = 16 * (threadIdx.x / 32), rows = item.rows - warp_row;
    const int64_t first = item.q_begin + warp_row;
    const float scale_log2 = args.scale * LOG2_E;

    /* The rows wait in the second buffer until they are in registers. */
    tile_copy_rows<D, TILE_ROWS, THREADS>(memory + STAGE, args.q, item.q_begin, item.rows, column,
                                          args.width, threadIdx.x);
    tile_copy_rows<D, TILE_ROWS, THREADS>(memory + STAGE + TILE_ROWS * LD, args.dout, item.q_begin,
                                          item.rows, column, args.width, threadIdx.x);
    dq_copy_stage<D>(memory, args, item, 0, key_column);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    uint32_t q[1][D / 16][4], dout[1][D / 16][4];
    float2 stats[2];
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        rows_fragment<D>(q[0][d], memory + STAGE, warp_row, 16 * d);
        rows_fragment<D>(dout[0][d], memory + STAGE + TILE_ROWS * LD, warp_row, 16 * d);
    }
    dq_stats<D>(stats, dout[0], args, first, rows, head);

    float dq[1][D / 8][4] = {};
    for (int place = 0; place < item.keys; place += TILE_KEYS) {
        const bf16 *keys = memory + place / TILE_KEYS % STAGES * STAGE;
        const bf16 *values = keys + TILE_KEYS * LD;
        /* The tile is visible to all threads, and no thread reads the other buffer any more. */
        copy_wait<0>();
        __syncthreads();
        if (place + TILE_KEYS < item.keys)
            dq_copy_stage<D>(memory + (place / TILE_KEYS + 1) % STAGES * STAGE, args, item,
                             place + TILE_KEYS, key_column);
        copy_commit();
        if (rows <= 0) continue;

        RowBits keep[2] = {};
        if (DROP) {
            tile_keeps(keep, drop, first, args.heads, head, place);
            dq_mask_write(keep, args, first, rows, head, place);
        }
#pragma unroll 1
        for (int c = 0; c < TILE_KEYS; c += COLUMNS) {
            float s[1][COLUMNS / 8][4], dp[1][COLUMNS / 8][4];
            uint32_t ds[1][COLUMNS / 16][4];
            tile_scores<D, 1, COLUMNS>(s, q, keys + c * LD);
            tile_scores<D, 1, COLUMNS>(dp, dout, values + c * LD);
            dq_derivatives<COLUMNS, DROP>(s[0], dp[0], stats, keep, c / 8, item.keys - place - c,
                                          item.seen + warp_row - place - c, scale_log2,
                                          args.drop.factor);
            tile_pack<COLUMNS>(ds[0], s[0]);
            tile_matmul<D, 1, COLUMNS, D>(dq, ds, keys + c * LD, 0);
        }
    }
    __syncthreads(); /* the buffers are free for the results */
    dq_write<D>(memory + warp_row * LD, dq[0], args, first, rows, column);
}

/* ---- dk and dv. ---- */

/* Query rows at a time, and whether the block's keys and values stay in registers. */
template <int D> struct KeyBlock {
    enum { ROWS = D <= 80 ? 64 : 32, LD = Tile<D>::LD, STAGE = 2 * ROWS * LD };
    static constexpr bool held = D <= 80;
    /* Where keys and values are; or the second buffer, which holds them until they are in
     * registers. */
    enum { KEYS = D <= 80 ? STAGE : STAGES * STAGE };
    static_assert(!held || 2 * ROWS >= 2 * TILE_KEYS, "they have to fit");
    enum { TILES = STAGES * STAGE + (D <= 80 ? 0 : 2 * TILE_KEYS * LD) };
    struct Rest { /* after the tiles */
        float2 stats[STAGES][ROWS];
        uint32_t words[STAGES][ROWS][4]; /* three words of the mask cover 64 keys; stride of 2
                                            banks */
    };
    static constexpr size_t bytes() {
        return TILES * sizeof(bf16) + sizeof(Rest);
    }
};

/* Loads a step's rows of q and dout, their statistics, and the mask bits of the block's keys. */
template <int D, bool DROP>
static __device__ __forceinline__ void step_copy(bf16 *buffer, float2 *stats, uint32_t (*words)[4],
                                                 const BackwardArgs &args, const KeyTile &tile,
                                                 const KeyStep &step, int head) {
    enum { ROWS = KeyBlock<D>::ROWS };
    const int column = head * args.width, thread = threadIdx.x;
    tile_copy_rows<D, ROWS, THREADS>(buffer, args.q, step.q_begin, step.rows, column, args.width,
                                     thread);
    tile_copy_rows<D, ROWS, THREADS>(buffer + ROWS * Tile<D>::LD, args.dout, step.q_begin,
                                     step.rows, column, args.width, thread);
    if (thread < ROWS) {
        const bool there = thread < step.rows;
        copy_async<8>(&stats[thread],
                      args.stats + head * args.rows + step.q_begin + (there ? thread : 0), there);
    }
    for (int i = thread; DROP && i < ROWS * 3; i += THREADS) {
        const int row = i / 3, at = (tile.begin + step.shift) / 32 + i % 3;
        /* Words after the block's last key may be uninitialized. */
        const bool there = row < step.rows && 32 * at < tile.begin + tile.rows + step.shift;
        const int64_t line = ((int64_t)(step.q_begin + row) * args.heads + head) * args.plan.words;
        copy_async<4>(&words[row][i % 3], args.mask + (there ? line + at : 0), there);
    }
}

/* Replaces s by z p without its factor and dp by ds: 16 keys, in rows, and ROWS queries, in
 * columns. `bit` is the first key's in the words of a query. Query r sees keys only if they are
 * before seen + r. Missing queries have 0 for everything,
 * which gives p = 1 but adds nothing to the matmuls. */
template <int ROWS, bool DROP>
static __device__ __forceinline__ void
key_derivatives(float (&s)[ROWS / 8][4], float (&dp)[ROWS / 8][4], const float2 *stats,
                const uint32_t (*words)[4], int bit, int seen, float scale_log2,
                float drop_factor) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int query = 8 * n + 2 * t + j;
            const float2 row = stats[query];
            uint32_t bits = 0;
            if (DROP) {
                const uint32_t low = words[query][bit / 32],
                               high = words[query][(bit / 32 + 1) % 4];
                bits = (uint32_t)(((uint64_t)high << 32 | low) >> (bit % 32)) >> g;
            }
#pragma unroll
            for (int e = j; e < 4; e += 2) { /* of keys g and g + 8 */
                const bool kept = !DROP || (bits >> (4 * (e - j)) & 1);
                const bool sees = g + 4 * (e - j) < seen + query;
                const float p = sees ? exp2_fast(__fmaf_rn(s[n][e], scale_log2, -row.x)) : 0.0f;
                const float derivative = kept ? dp[n][e] * drop_factor : 0.0f;
                s[n][e] = kept ? p : 0.0f;
                dp[n][e] = p * (derivative - row.y);
            }
        }
}

/* Adds to pairs of columns; 16 rows, of which `rows` exist. */
template <int D>
static __device__ __forceinline__ void
gradient_add(const HeadMatrix &to, const float (&c)[D / 8][4], float factor, int64_t first,
             int rows, int column, int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = lane / 4 + 8 * i;
            if (r >= rows || 8 * n >= width) continue;
            const int64_t at = (first + r) * to.ld + column + 8 * n + 2 * (lane % 4);
            float v[2];
            values_get_as(v, to.data, to.dtype, at, 2, true);
            v[0] = __fmaf_rn(c[n][2 * i], factor, v[0]);
            v[1] = __fmaf_rn(c[n][2 * i + 1], factor, v[1]);
            values_put_as(to.data, to.dtype, at, v, 2, true);
        }
}

template <int D, bool DROP>
__global__ void __launch_bounds__(THREADS, 2) dkdv_kernel(BackwardArgs args) {
    typedef KeyBlock<D> Block;
    enum { LD = Block::LD, ROWS = Block::ROWS };
    SHARED_MEMORY(bf16, memory);
    typename Block::Rest *rest = reinterpret_cast<typename Block::Rest *>(memory + Block::TILES);
    const bf16 *keys = memory + Block::KEYS, *values = keys + TILE_KEYS * LD;
    const int key_heads = args.heads / args.shared;
    const KeyTile tile = args.plan.key_tiles[blockIdx.x / key_heads];
    const KeyStep *steps = args.plan.steps + tile.first_step;
    /* All steps of the first head that has these keys, then those of the next. */
    const int head = blockIdx.x % key_heads * args.shared, turns = tile.steps * args.shared;
    const int column = blockIdx.x % key_heads * args.width;
    const int warp_row = 16 * (threadIdx.x / 32);
    const float scale_log2 = args.scale * LOG2_E;

    KeyStep step = steps[0], next = steps[1 % tile.steps];
    tile_copy_rows<D, TILE_KEYS, THREADS>(memory + Block::KEYS, args.k, tile.begin, tile.rows,
                                          column, args.width, threadIdx.x);
    tile_copy_rows<D, TILE_KEYS, THREADS>(memory + Block::KEYS + TILE_KEYS * LD, args.v, tile.begin,
                                          tile.rows, column, args.width, threadIdx.x);
    step_copy<D, DROP>(memory, rest->stats[0], rest->words[0], args, tile, step, head);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    uint32_t k[1][D / 16][4], v[1][D / 16][4];
#pragma unroll
    for (int d = 0; Block::held && d < D / 16; d++) {
        rows_fragment<D>(k[0][d], keys, warp_row, 16 * d);
        rows_fragment<D>(v[0][d], values, warp_row, 16 * d);
    }

    float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};
    for (int n = 0; n < turns; n++) {
        const int stage = n % STAGES, other = (n + 1) % STAGES;
        const bf16 *queries = memory + stage * Block::STAGE, *douts = queries + ROWS * LD;
        /* The step's rows are visible to all threads, and no thread reads the other buffer any
         * more. */
        copy_wait<0>();
        __syncthreads();
        const int shift = step.shift, seen = step.seen;
        if (n + 1 < turns) {
            step_copy<D, DROP>(memory + other * Block::STAGE, rest->stats[other],
                               rest->words[other], args, tile, next, head + (n + 1) / tile.steps);
            step = next;
            if (n + 2 < turns) next = steps[(n + 2) % tile.steps];
        }
        copy_commit();
        if (warp_row >= tile.rows) continue;

        float s[1][ROWS / 8][4], dp[1][ROWS / 8][4];
        uint32_t weights[1][ROWS / 16][4];
        if (Block::held) {
            tile_scores<D, 1, ROWS>(s, k, queries);
            tile_scores<D, 1, ROWS>(dp, v, douts);
        } else {
            tile_scores_between<D, ROWS>(s, keys, warp_row, queries);
            tile_scores_between<D, ROWS>(dp, values, warp_row, douts);
        }
        key_derivatives<ROWS, DROP>(s[0], dp[0], rest->stats[stage], rest->words[stage],
                                    (tile.begin + shift) % 32 + warp_row,
                                    seen - (tile.begin + shift + warp_row), scale_log2,
                                    args.drop.factor);
        tile_pack<ROWS>(weights[0], s[0]);
        tile_matmul<D, 1, ROWS, D>(dv, weights, douts, 0);
        tile_pack<ROWS>(weights[0], dp[0]);
        tile_matmul<D, 1, ROWS, D>(dk, weights, queries, 0);
    }
    const int64_t first = tile.begin + warp_row;
    const int rows = tile.rows - warp_row;
    gradient_add<D>(args.dk, dk[0], args.scale, first, rows, column, args.width);
    gradient_add<D>(args.dv, dv[0], args.drop.factor, first, rows, column, args.width);
}

/* ---- The call. ---- */

template <int D, bool DROP>
static int backward_launch(Device *device, const BackwardArgs *args, Error *err) {
    const unsigned heads = (unsigned)args->heads;
    const BackwardArgs a = *args;
    TRY(allow_shared(dq_kernel<D, DROP>, dq_shared<D>(), err));
    TRY(allow_shared(dkdv_kernel<D, DROP>, KeyBlock<D>::bytes(), err));
    LAUNCH(device, (dq_kernel<D, DROP>), (unsigned)a.plan.item_count * heads, THREADS,
           dq_shared<D>(), err, a);
    LAUNCH(device, (dkdv_kernel<D, DROP>),
           (unsigned)a.plan.key_tile_count * (heads / (unsigned)a.shared), THREADS,
           KeyBlock<D>::bytes(), err, a);
    return 0;
}

template <int D>
static int backward_launch_for(Device *device, const BackwardArgs *args, Error *err) {
    return args->drop.on ? backward_launch<D, true>(device, args, err)
                         : backward_launch<D, false>(device, args, err);
}

static int step_rows_of(int width) {
    return width <= 80 ? 64 : 32; /* as in KeyBlock */
}

static int backward_on_units(Device *device, const BackwardArgs *args, Error *err) {
    static_assert(KeyBlock<80>::ROWS == 64 && KeyBlock<128>::ROWS == 32, "see step_rows_of");
    if (args->width <= 32) return backward_launch_for<32>(device, args, err);
    if (args->width <= 64) return backward_launch_for<64>(device, args, err);
    if (args->width <= 80) return backward_launch_for<80>(device, args, err);
    return backward_launch_for<128>(device, args, err);
}

int cuda_attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                            Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, int heads,
                            float scale, const AttentionSpan *spans, int count,
                            const Dropout *dropout, Error *err) {
    if (fused_attention_backward(device, dq, dk, dv, dout, out, lse, q, k, v, heads, scale, spans,
                                 count, dropout))
        return 0;
    BackwardArgs args = {};
    const int key_heads = (int)(k.shape[1] / (q.shape[1] / heads));
    args.dq = head_matrix(dq, heads), args.dk = head_matrix(dk, key_heads);
    args.dv = head_matrix(dv, key_heads), args.dout = head_matrix(dout, heads);
    args.out = head_matrix(out, heads), args.q = head_matrix(q, heads);
    args.k = head_matrix(k, key_heads), args.v = head_matrix(v, key_heads);
    args.lse = (const float *)lse.data, args.lse_ld = lse.ld, args.rows = q.shape[0];
    args.heads = heads, args.shared = heads / key_heads, args.width = (int)(q.shape[1] / heads);
    args.scale = scale;
    args.drop = attention_drop(dropout);
    const bool units = !attention_windowed(spans, count) && attention_on_units(q, heads) &&
                       attention_on_units(k, key_heads) && attention_on_units(v, key_heads) &&
                       attention_on_units(dout, heads) && rows_aligned(out, 2) &&
                       rows_aligned(dk, 2) && rows_aligned(dv, 2) &&
                       rows_aligned(dq, dq.dtype == DTYPE_F32 ? 2 : 8);
    TRY(attention_plan(device, &args.plan, spans, count, TILE_ROWS,
                       units ? step_rows_of(args.width) : TILE_ROWS, err));
    if (args.plan.item_count == 0) return 0;

    void *memory = NULL;
    const size_t lines = (size_t)args.rows * (size_t)heads;
    const size_t words = args.drop.on ? lines * (size_t)args.plan.words : 0;
    TRY(cuda_workspace(device, &memory, lines * sizeof(float2) + words * sizeof(uint32_t), err));
    args.stats = (float2 *)memory;
    args.mask = (uint32_t *)(args.stats + lines);
    return units ? backward_on_units(device, &args, err)
                 : attention_plain_backward(device, &args, err);
}
