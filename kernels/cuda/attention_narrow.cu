/* Attention of a few query rows on tensor cores: block-causal decoding, where the answer's dozen
 * rows attend to some hundred cached keys.
 *
 * With 12 to 32 heads and one answer there are only that many blocks: the call takes as long as one
 * block, which is bound by latency, first of memory and then of dependent matmuls. So a block has
 * 16 rows; its up to eight warps process a tile of keys each, in parallel, and then accumulate the
 * tiles in order, as attention_wide.cu does in turn, with the same bits (attention_tile.cuh). 512
 * keys of heads of 64 are one round. Expected, not measured: a microsecond to load all keys and
 * values, half of one for two chains of matmuls and a quarter for the rest; one warp processing the
 * tiles in turn would need four.
 *
 * Keys are not also split over blocks: that would need a second kernel, which costs more than the
 * round or two that it saves at these lengths.
 */
#include "kernels/cuda/attention_tile.cuh"

enum { ROWS = 16, WARPS_MOST = 8 };

/* Shared by the warps, before their tiles. A tile's keys are followed by its values; the product
 * with the values overwrites the keys. */
template <int D> struct Narrow {
    float total[ROWS][D];
    float largest[ROWS], sum[ROWS][4]; /* of the total; a share of the sum for each t */
    float tile_largest[WARPS_MOST][ROWS], tile_sum[WARPS_MOST][ROWS][4];
    float2 factors[WARPS_MOST][ROWS]; /* from_total and from_tile of each tile */
    bf16 queries[ROWS * Tile<D>::LD];
};
template <int D> static constexpr size_t narrow_shared(int warps) {
    return sizeof(Narrow<D>) + (size_t)warps * 2 * Tile<D>::bytes(TILE_KEYS);
}
enum {
    PART_GAP = 8
}; /* padding of a line of a tile's product, in floats, against bank
                          conflicts */

/* One warp processes one tile of keys: writes its unnormalized product with the values over the
 * keys. */
template <int D>
static __device__ __forceinline__ void
narrow_tile(Narrow<D> *shared, bf16 *keys, const AttentionItem &item, int tile, float scale_log2) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const bf16 *values = keys + TILE_KEYS * Tile<D>::LD;
    float s[1][TILE_KEYS / 8][4], largest[2], sum[2];
    uint32_t q[1][D / 16][4], weights[1][TILE_KEYS / 16][4];
#pragma unroll
    for (int d = 0; d < D / 16; d++) rows_fragment<D>(q[0][d], shared->queries, 0, 16 * d);
    tile_scores<D, 1, TILE_KEYS>(s, q, keys);
    tile_softmax(s[0], largest, sum, scale_log2, item.keys - tile * TILE_KEYS,
                 item.seen - tile * TILE_KEYS);
    tile_pack<TILE_KEYS>(weights[0], s[0]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (t == 0) shared->tile_largest[warp][g + 8 * i] = largest[i]; /* each t has the same */
        shared->tile_sum[warp][g + 8 * i][t] = sum[i];
    }
    copy_wait<0>(); /* the values */
    __syncwarp();   /* and the keys are no longer read */
    float *part = reinterpret_cast<float *>(keys);
    enum { COLUMNS = D % 32 == 0 ? 32 : 16 };
#pragma unroll
    for (int c = 0; c < D; c += COLUMNS) {
        float p[1][COLUMNS / 8][4] = {};
        tile_matmul<D, 1, TILE_KEYS, COLUMNS>(p, weights, values, c);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<float2 *>(part + (g + 8 * i) * (D + PART_GAP) + c + 8 * n +
                                            2 * t) =
                    make_float2(p[0][n][2 * i], p[0][n][2 * i + 1]);
    }
}

/* Accumulates the round's tiles, of the first `count` warps, in order. */
template <int D>
static __device__ __forceinline__ void narrow_join(Narrow<D> *shared, const bf16 *tiles, int count,
                                                   float scale_log2) {
    const int threads = blockDim.x;
    for (int i = threadIdx.x; i < ROWS * 4; i += threads) {
        const int row = i / 4, t = i % 4;
        float largest = shared->largest[row], sum = shared->sum[row][t];
        for (int w = 0; w < count; w++) {
            float2 f;
            tile_factors(largest, shared->tile_largest[w][row], scale_log2, &f.x, &f.y);
            sum = tile_join(sum, f.x, shared->tile_sum[w][row][t], f.y);
            if (t == 0) shared->factors[w][row] = f;
        }
        __syncwarp(); /* the four of a row have read its largest */
        shared->sum[row][t] = sum;
        if (t == 0) shared->largest[row] = largest;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * D; i += threads) {
        const int row = i / D, column = i % D;
        float total = shared->total[row][column];
        for (int w = 0; w < count; w++) {
            const float2 f = shared->factors[w][row];
            const float *part =
                reinterpret_cast<const float *>(tiles + w * 2 * TILE_KEYS * Tile<D>::LD);
            total = tile_join(total, f.x, part[row * (D + PART_GAP) + column], f.y);
        }
        shared->total[row][column] = total;
    }
    __syncthreads();
}

template <int D> static __device__ __forceinline__ void narrow_begin(Narrow<D> *shared) {
    for (int i = threadIdx.x; i < ROWS * D; i += blockDim.x) (&shared->total[0][0])[i] = 0;
    for (int i = threadIdx.x; i < ROWS * 4; i += blockDim.x) (&shared->sum[0][0])[i] = 0;
    if (threadIdx.x < ROWS) shared->largest[threadIdx.x] = -INFINITY;
}

template <int D>
static __device__ __forceinline__ void narrow_write(const Narrow<D> *shared,
                                                    const ForwardArgs &args,
                                                    const AttentionItem &item, int head) {
    for (int i = threadIdx.x; i < item.rows * (D / 8); i += blockDim.x) {
        const int row = i / (D / 8), column = i % (D / 8) * 8;
        if (column >= args.width) continue;
        const float *s = shared->sum[row];
        const float all = (s[0] + s[1]) + (s[2] + s[3]); /* in row_sum's order */
        const float factor = __fmul_rn(args.drop.factor, 1.0f / all);
        float v[8];
#pragma unroll
        for (int e = 0; e < 8; e++) v[e] = shared->total[row][column + e] * factor;
        values_write(head_at<bf16>(args.out, item.q_begin + row, head * args.width + column), v);
        if (args.lse && column == 0)
            args.lse[(item.q_begin + row) * args.lse_ld + head] =
                row_lse(shared->largest[row], all, args.scale);
    }
}

template <int D>
__global__ void __launch_bounds__(32 * WARPS_MOST) narrow_kernel(ForwardArgs args) {
    SHARED_MEMORY(Narrow<D>, shared);
    __shared__ AttentionItem item;
    item_load(&item, args.items + blockIdx.x / args.heads);
    const int head = blockIdx.x % args.heads, column = head * args.width;
    const int key_column = head / args.shared * args.width;
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    const float scale_log2 = args.scale * LOG2_E;
    const int tiles = (item.keys + TILE_KEYS - 1) / TILE_KEYS;
    bf16 *all = reinterpret_cast<bf16 *>(shared + 1);
    bf16 *keys = all + warp * 2 * TILE_KEYS * Tile<D>::LD;

    narrow_begin(shared);
    if (warp == 0)
        tile_copy_rows<D, ROWS, 32>(shared->queries, args.q, item.q_begin, item.rows, column,
                                    args.width, lane);
    for (int first = 0; first < tiles; first += warps) {
        const int tile = first + warp, count = tiles - first < warps ? tiles - first : warps;
        if (warp < count)
            tile_copy_keys<D, 32>(keys, args.k, item, tile * TILE_KEYS, key_column, args.width,
                                  lane);
        copy_commit();
        if (warp < count)
            tile_copy_keys<D, 32>(keys + TILE_KEYS * Tile<D>::LD, args.v, item, tile * TILE_KEYS,
                                  key_column, args.width, lane);
        copy_commit();
        copy_wait<1>();  /* the keys, and in the first round the queries */
        __syncthreads(); /* makes the queries visible to all, and a warp's keys to its lanes */
        if (warp < count) narrow_tile<D>(shared, keys, item, tile, scale_log2);
        __syncthreads();
        narrow_join<D>(shared, all, count, scale_log2);
    }
    narrow_write<D>(shared, args, item, head);
}

template <int D>
static int narrow_launch(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                         Error *err) {
    const unsigned blocks = (unsigned)plan->item_count * (unsigned)args->heads;
    const size_t most = cuda_state(device)->properties.sharedMemPerBlockOptin - 1024;
    const int tiles = (plan->words * 32 + TILE_KEYS - 1) / TILE_KEYS; /* of the longest span */
    int warps = tiles < WARPS_MOST ? tiles : WARPS_MOST;
    while (warps > 1 && narrow_shared<D>(warps) > most) warps--;
    const ForwardArgs a = *args;
    /* Always the maximum: a call with few keys must not lower the limit that a recording
     * (replay.cu) of one with many needs. */
    TRY(allow_shared(narrow_kernel<D>, most, err));
    LAUNCH(device, (narrow_kernel<D>), blocks, 32 * warps, narrow_shared<D>(warps), err, a);
    return 0;
}

int attention_narrow(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                     Error *err) {
    if (args->width <= 32) return narrow_launch<32>(device, plan, args, err);
    if (args->width <= 64) return narrow_launch<64>(device, plan, args, err);
    if (args->width <= 80) return narrow_launch<80>(device, plan, args, err);
    return narrow_launch<128>(device, plan, args, err);
}
