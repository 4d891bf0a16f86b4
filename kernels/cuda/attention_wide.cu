/* Attention of many query rows on tensor cores, after FlashAttention-2 (Dao, 2023): a block keeps
 * some query rows of one head and loops over the keys, a tile at a time.
 *
 * Each tile of 64 keys and each 64 rows cost 4 * 64 * 64 * D operations on the tile's 256 D bytes
 * from the L2 cache (which easily holds a sequence's keys and values) and 4096 exponentials, 16 a
 * cycle of a multiprocessor. With 128 rows a block that is 128 operations a byte from the cache,
 * enough for Hopper; the exponentials take half as many cycles as the matmuls on Ampere at D = 64,
 * and overlap with the matmuls of other warps. Expected, not measured: half of mma.sync's peak at D
 * = 64, more at D = 128.
 *
 * Four warps of 16 M rows each: with M = 2 each fragment of keys that is read from shared memory
 * serves 32 rows. Blocks of 64 rows (M = 1) are for calls that would otherwise not fill the GPU;
 * they give the same bits (attention_tile.cuh). Warps without rows, in the last block of a span,
 * only take part in copies and barriers.
 */
#include "kernels/cuda/attention_tile.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, STAGES = 2 };

template <int D> static constexpr size_t wide_shared() {
    return STAGES * 2 * Tile<D>::bytes(TILE_KEYS);
}

/* Copies a tile of keys, followed by its values, into one of two buffers. */
template <int D>
static __device__ __forceinline__ void copy_stage(bf16 *buffer, const ForwardArgs &args,
                                                  const AttentionItem &item, int tile,
                                                  int column) { /* of keys */
    tile_copy_keys<D, THREADS>(buffer, args.k, item, tile * TILE_KEYS, column, args.width,
                               threadIdx.x);
    tile_copy_keys<D, THREADS>(buffer + TILE_KEYS * Tile<D>::LD, args.v, item, tile * TILE_KEYS,
                               column, args.width, threadIdx.x);
}

/* total = total * from_total + (weights values) * from_tile, a few columns at a time, so that the
 * matmul needs few extra registers but has enough independent sums to keep the tensor cores
 * busy. */
template <int D, int M>
static __device__ __forceinline__ void
add_values(float (&total)[M][D / 8][4], const uint32_t (&weights)[M][TILE_KEYS / 16][4],
           const bf16 *values, const float (&from_total)[M][2], const float (&from_tile)[M][2]) {
    enum { COLUMNS = D % 32 == 0 ? 32 : 16 };
#pragma unroll
    for (int c = 0; c < D; c += COLUMNS) {
        float part[M][COLUMNS / 8][4] = {};
        tile_matmul<D, M, TILE_KEYS, COLUMNS>(part, weights, values, c);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    total[m][c / 8 + n][e] = tile_join(total[m][c / 8 + n][e], from_total[m][e / 2],
                                                       part[m][n][e], from_tile[m][e / 2]);
    }
}

/* Blocks for each multiprocessor that limit the compiler's registers: as many as possible without
 * spilling. */
template <int D, int M, bool DROP> static constexpr int wide_blocks() {
    return M == 1 && D <= (DROP ? 64 : 80) ? 3 : 2;
}

template <int D, int M, bool DROP>
__global__ void __launch_bounds__(THREADS, (wide_blocks<D, M, DROP>()))
    wide_kernel(ForwardArgs args) {
    SHARED_MEMORY(bf16, memory);
    __shared__ AttentionItem item;
    __shared__ Drop drop;
    enum { LD = Tile<D>::LD, STAGE = 2 * TILE_KEYS * LD };
    drop_load(&drop, args.drop);
    item_load(&item, args.items + blockIdx.x / args.heads);
    const int head = blockIdx.x % args.heads, column = head * args.width;
    const int key_column = head / args.shared * args.width;
    const int first = 16 * M * (threadIdx.x / 32); /* the warp's first row in the item */
    const float scale_log2 = args.scale * LOG2_E;
    const int tiles = (item.keys + TILE_KEYS - 1) / TILE_KEYS;

    /* The second buffer, as large as 128 queries, holds them until they are in registers. */
    tile_copy_rows<D, 64 * M, THREADS>(memory + STAGE, args.q, item.q_begin, item.rows, column,
                                       args.width, threadIdx.x);
    copy_stage<D>(memory, args, item, 0, key_column);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    uint32_t q[M][D / 16][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int d = 0; d < D / 16; d++)
            rows_fragment<D>(q[m][d], memory + STAGE, first + 16 * m, 16 * d);

    float total[M][D / 8][4] = {}, sum[M][2] = {}, largest[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITY;
    for (int tile = 0; tile < tiles; tile++) {
        bf16 *keys = memory + tile % STAGES * STAGE;
        /* The tile is visible to all threads, and no thread reads the other buffer any more. */
        copy_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles)
            copy_stage<D>(memory + (tile + 1) % STAGES * STAGE, args, item, tile + 1, key_column);
        copy_commit();
        if (first >= item.rows) continue;
        if (item.seen + first + 16 * M <= tile * TILE_KEYS) continue; /* the warp sees none of it */

        float s[M][TILE_KEYS / 8][4], from_total[M][2], from_tile[M][2];
        uint32_t weights[M][TILE_KEYS / 16][4];
        tile_scores<D, M, TILE_KEYS>(s, q, keys);
#pragma unroll
        for (int m = 0; m < M; m++) {
            float tile_largest[2], tile_sum[2];
            tile_softmax(s[m], tile_largest, tile_sum, scale_log2, item.keys - tile * TILE_KEYS,
                         item.seen + first + 16 * m - tile * TILE_KEYS);
            if (DROP) {
                RowBits keep[2];
                tile_keeps(keep, drop, item.q_begin + first + 16 * m, args.heads, head,
                           tile * TILE_KEYS);
                tile_drop(s[m], keep);
            }
            tile_pack<TILE_KEYS>(weights[m], s[m]);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                tile_factors(largest[m][i], tile_largest[i], scale_log2, &from_total[m][i],
                             &from_tile[m][i]);
                sum[m][i] = tile_join(sum[m][i], from_total[m][i], tile_sum[i], from_tile[m][i]);
            }
        }
        add_values<D, M>(total, weights, keys + TILE_KEYS * LD, from_total, from_tile);
    }
    __syncthreads(); /* the buffers are free for what is written */
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int row = first + 16 * m, rows = item.rows - row, lane = threadIdx.x % 32;
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float all = row_sum(sum[m][i]);
            const int r = lane / 4 + 8 * i;
            factor[i] = __fmul_rn(args.drop.factor, 1.0f / all);
            if (args.lse && lane % 4 == 0 && r < rows)
                args.lse[(item.q_begin + row + r) * args.lse_ld + head] =
                    row_lse(largest[m][i], all, args.scale);
        }
        fragment_write<D>(memory + row * LD, total[m], factor, args.out, item.q_begin + row, rows,
                          column, args.width);
    }
}

template <int D, int M, bool DROP>
static int wide_launch_as(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                          Error *err) {
    const unsigned blocks = (unsigned)plan->item_count * (unsigned)args->heads;
    const ForwardArgs a = *args;
    TRY(allow_shared(wide_kernel<D, M, DROP>, wide_shared<D>(), err));
    LAUNCH(device, (wide_kernel<D, M, DROP>), blocks, THREADS, wide_shared<D>(), err, a);
    return 0;
}

template <int D>
static int wide_launch(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                       Error *err) {
    return args->drop.on ? wide_launch_as<D, 1, true>(device, plan, args, err)
                         : wide_launch_as<D, 1, false>(device, plan, args, err);
}

/* 32 rows a warp use all its registers at D = 64; wider heads always have 16, as do calls with
 * dropout, which are bound by random numbers rather than shared memory. */
int attention_wide_rows(int width, bool drop) {
    return width > 32 && width <= 64 && !drop ? 128 : 64;
}

int attention_wide(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                   int item_rows, Error *err) {
    if (args->width <= 32) return wide_launch<32>(device, plan, args, err);
    if (args->width > 80) return wide_launch<128>(device, plan, args, err);
    if (args->width > 64) return wide_launch<80>(device, plan, args, err);
    if (item_rows == 64) return wide_launch<64>(device, plan, args, err);
    return wide_launch_as<64, 2, false>(device, plan, args, err);
}
