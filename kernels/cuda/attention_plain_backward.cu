/* The backward pass of attention in f32 arithmetic, for the calls of attention_plain.cu. The method
 * is that of attention_backward.cu: a kernel for dq, by query rows, then one for dk and dv, by key
 * rows.
 */
#include "kernels/cuda/attention_plain.cuh"

/* The log-sum-exp and the sum of dout * out of a thread's eight rows, also for the dk and dv
 * kernel. */
template <typename T>
static __device__ __forceinline__ void plain_stats(float2 (&stats)[8], const BackwardArgs &args,
                                                   const AttentionItem &item, int head,
                                                   bool first_group) {
    const int64_t column = (int64_t)head * args.width;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int r = plain_ty() * 8 + i;
        const int64_t row = item.q_begin + r;
        const bool there = r < item.rows;
        float sum = 0;
        for (int c = plain_tx(); there && c < args.width; c += 16)
            sum = __fmaf_rn(to_f32(*head_at<T>(args.dout, row, column + c)),
                            to_f32(*head_at<T>(args.out, row, column + c)), sum);
        sum = plain_row_sum(sum);
        stats[i] = make_float2(there ? args.lse[row * args.lse_ld + head] : 0.0f, sum);
        if (there && first_group && plain_tx() == 0) args.stats[head * args.rows + row] = stats[i];
    }
}

/* Writes the mask bits of a row's 64 keys, of which each of its 16 threads has four. */
static __device__ __forceinline__ void plain_mask_write(uint32_t bits, const BackwardArgs &args,
                                                        int64_t row, bool there, int head,
                                                        int place) {
    uint32_t word = bits << (4 * (plain_tx() % 8)); /* of the thread's half */
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) word |= __shfl_xor_sync(FULL_WARP, word, offset);
    const int at = place / 32 + plain_tx() / 8;
    if (there && plain_tx() % 8 == 0 && at < args.plan.words)
        args.mask[(row * args.heads + head) * args.plan.words + at] = word;
}

/* Reads a row's four mask bits from `place` on, up to `end`: words after it may be
 * uninitialized. */
static __device__ __forceinline__ uint32_t plain_mask_read(const BackwardArgs &args, int64_t row,
                                                           int head, int place, int end) {
    const uint32_t *words = args.mask + (row * args.heads + head) * args.plan.words;
    const int at = place / 32;
    const uint64_t low = words[at], high = 32 * (at + 1) < end ? words[at + 1] : 0;
    return (uint32_t)((high << 32 | low) >> (place % 32));
}

/* dq = scale ds k. Shared memory: the loaded tile, and ds as [key][row]. */
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_dq_kernel(BackwardArgs args, unsigned groups) {
    SHARED_MEMORY(float, memory);
    __shared__ AttentionItem item;
    __shared__ Drop drop;
    __shared__ int key_table[64], row_table[64];
    float *derivatives = memory + PLAIN_TILE;
    drop_load(&drop, args.drop);
    item_load(&item, args.plan.items + blockIdx.x / groups / args.heads);
    const int head = blockIdx.x / groups % args.heads;
    const int first = blockIdx.x % groups * CHUNKS * PLAIN_COLUMNS;
    const int64_t column = (int64_t)head * args.width,
                  key_column = (int64_t)(head / args.shared) * args.width;
    plain_rows(row_table, item.q_begin, item.rows);

    float2 stats[8];
    float total[CHUNKS][8][4] = {};
    plain_stats<T>(stats, args, item, head, first == 0);
    for (int place = first_tile(item); place < item.keys; place += TILE_KEYS) {
        const int keys = item.keys - place;
        float s[8][4] = {}, dp[8][4] = {};
        plain_key_rows(key_table, item, place);
        plain_scores<T, 8>(s, memory, args.q, row_table, args.k, key_table, column, key_column,
                           args.width);
        plain_scores<T, 8>(dp, memory, args.dout, row_table, args.v, key_table, column, key_column,
                           args.width);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int r = plain_ty() * 8 + i;
            const int own = min(keys, item.seen + r - place), from = item.first + r - place;
            uint32_t keep = 0xf;
            if (drop.on) {
                keep = drop_keeps(drop, drop_block(item.q_begin + r, args.heads, head) +
                                            (uint64_t)(place / 4 + plain_tx()));
                if (first == 0)
                    plain_mask_write(keep, args, item.q_begin + r, r < item.rows, head, place);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float p = expf(s[i][j] * args.scale - stats[i].x);
                const float derivative = keep >> j & 1 ? dp[i][j] * drop.factor : 0.0f;
                const int key = 4 * plain_tx() + j;
                derivatives[key * PLAIN_LINE + r] =
                    key >= from && key < own ? p * (derivative - stats[i].y) : 0.0f;
            }
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            plain_load<T>(memory, args.k, key_table, key_column, first + c * PLAIN_COLUMNS,
                          args.width);
            __syncthreads();
            plain_multiply<8>(total[c], derivatives, memory, keys < TILE_KEYS ? keys : TILE_KEYS);
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = plain_ty() * 8 + i;
        if (row >= item.rows) break;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = first + c * PLAIN_COLUMNS + plain_tx() * 4;
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = total[c][i][j] * args.scale;
            values_put_as(args.dq.data, args.dq.dtype,
                          (item.q_begin + row) * args.dq.ld + column + at, v, args.width - at,
                          args.dq.aligned);
        }
    }
}

/* Adds to four columns of row `row` of a gradient, or to those that the head has from `at` on. */
static __device__ __forceinline__ void plain_add(const HeadMatrix &m, int64_t row, int64_t column,
                                                 int at, int width, const float (&sums)[4],
                                                 float factor) {
    float v[4];
    const int64_t place = row * m.ld + column + at;
    values_get_as(v, m.data, m.dtype, place, width - at, m.aligned);
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] += sums[j] * factor;
    values_put_as(m.data, m.dtype, place, v, width - at, m.aligned);
}

/* For a thread's row r of a step and its four keys: the mask bits, and the row's statistics. */
static __device__ __forceinline__ uint32_t plain_kept(const BackwardArgs &args, const KeyTile &tile,
                                                      const KeyStep &step, int r, int head) {
    if (!args.drop.on || r >= step.rows || 4 * plain_tx() >= tile.rows) return 0xf;
    return plain_mask_read(args, step.q_begin + r, head, tile.begin + 4 * plain_tx() + step.shift,
                           tile.begin + tile.rows + step.shift);
}
static __device__ __forceinline__ float2 plain_stats_of(const BackwardArgs &args,
                                                        const KeyStep &step, int r, int head) {
    return r < step.rows ? args.stats[head * args.rows + step.q_begin + r] : make_float2(0, 0);
}

/* From scores, writes z p without its factor to `weights` and p to `derivatives`, both as
 * [row][key]. */
static __device__ __forceinline__ void plain_weights(const float (&s)[8][4], float *weights,
                                                     float *derivatives, const BackwardArgs &args,
                                                     const KeyTile &tile, const KeyStep &step,
                                                     int head) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int r = plain_ty() * 8 + i, at = r * PLAIN_LINE + 4 * plain_tx();
        const float lse = plain_stats_of(args, step, r, head).x;
        const uint32_t keep = plain_kept(args, tile, step, r, head);
        const int first_key = tile.begin + step.shift; /* the tile's, in the span */
        const int own = step.seen + r - first_key, from = step.first + r - first_key;
        float p[4], kept[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int key = 4 * plain_tx() + j;
            p[j] = key >= from && key < own ? expf(s[i][j] * args.scale - lse) : 0.0f;
            kept[j] = keep >> j & 1 ? p[j] : 0.0f;
        }
        values_write(weights + at, kept);
        values_write(derivatives + at, p);
    }
}

/* Replaces p in `derivatives` by ds: a thread's own values, spilled to shared memory while dp was
 * computed. */
static __device__ __forceinline__ void
plain_derivatives(const float (&dp)[8][4], float *derivatives, const BackwardArgs &args,
                  const KeyTile &tile, const KeyStep &step, int head) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int r = plain_ty() * 8 + i, at = r * PLAIN_LINE + 4 * plain_tx();
        const float sum = plain_stats_of(args, step, r, head).y;
        const uint32_t keep = plain_kept(args, tile, step, r, head);
        float p[4], ds[4];
        values_read(p, derivatives + at);
#pragma unroll
        for (int j = 0; j < 4; j++)
            ds[j] = p[j] * ((keep >> j & 1 ? dp[i][j] * args.drop.factor : 0.0f) - sum);
        values_write(derivatives + at, ds);
    }
}

/* dk += scale ds^T q, dv += (z p)^T dout. Shared memory: the loaded tile, then z p without its
 * factor and ds, as [row][key]. */
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(PLAIN_THREADS, 2)
    plain_dkdv_kernel(BackwardArgs args, unsigned groups) {
    SHARED_MEMORY(float, memory);
    __shared__ int key_table[64], row_table[64];
    float *weights = memory + PLAIN_TILE, *derivatives = weights + PLAIN_TILE;
    const int key_heads = args.heads / args.shared, key_head = blockIdx.x / groups % key_heads;
    const KeyTile tile = args.plan.key_tiles[blockIdx.x / groups / key_heads];
    const int first = blockIdx.x % groups * CHUNKS * PLAIN_COLUMNS;
    const int64_t key_column = (int64_t)key_head * args.width;
    plain_rows(key_table, tile.begin, tile.rows);

    float dk[CHUNKS][8][4] = {}, dv[CHUNKS][8][4] = {};
    /* All steps of the first head that has these keys, then those of the next. */
    for (int n = 0; n < tile.steps * args.shared; n++) {
        const KeyStep step = args.plan.steps[tile.first_step + n % tile.steps];
        const int head = key_head * args.shared + n / tile.steps;
        const int64_t column = (int64_t)head * args.width;
        plain_rows(row_table, step.q_begin, step.rows);
        {
            float s[8][4] = {};
            plain_scores<T, 8>(s, memory, args.q, row_table, args.k, key_table, column, key_column,
                               args.width);
            plain_weights(s, weights, derivatives, args, tile, step, head);
        }
        float dp[8][4] = {};
        plain_scores<T, 8>(dp, memory, args.dout, row_table, args.v, key_table, column, key_column,
                           args.width);
        plain_derivatives(dp, derivatives, args, tile, step, head);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = first + c * PLAIN_COLUMNS;
            plain_load<T>(memory, args.dout, row_table, column, at, args.width);
            __syncthreads();
            plain_multiply<8>(dv[c], weights, memory, step.rows);
            __syncthreads();
            plain_load<T>(memory, args.q, row_table, column, at, args.width);
            __syncthreads();
            plain_multiply<8>(dk[c], derivatives, memory, step.rows);
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = plain_ty() * 8 + i;
        if (row >= tile.rows) break;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = first + c * PLAIN_COLUMNS + plain_tx() * 4;
            plain_add(args.dk, tile.begin + row, key_column, at, args.width, dk[c][i], args.scale);
            plain_add(args.dv, tile.begin + row, key_column, at, args.width, dv[c][i],
                      args.drop.factor);
        }
    }
}

template <typename T, int CHUNKS>
static int plain_backward_launch(Device *device, const BackwardArgs *args, Error *err) {
    const unsigned groups = plain_groups(args->width, CHUNKS);
    const unsigned per_piece = (unsigned)args->heads * groups,
                   per_tile = per_piece / (unsigned)args->shared;
    const size_t tile = PLAIN_TILE * sizeof(float);
    const BackwardArgs a = *args;
    TRY(allow_shared(plain_dkdv_kernel<T, CHUNKS>, 3 * tile, err));
    LAUNCH(device, (plain_dq_kernel<T, CHUNKS>), (unsigned)a.plan.item_count * per_piece,
           PLAIN_THREADS, 2 * tile, err, a, groups);
    LAUNCH(device, (plain_dkdv_kernel<T, CHUNKS>), (unsigned)a.plan.key_tile_count * per_tile,
           PLAIN_THREADS, 3 * tile, err, a, groups);
    return 0;
}

int attention_plain_backward(Device *device, const BackwardArgs *args, Error *err) {
    if (args->width <= PLAIN_COLUMNS)
        WITH_TYPE(T, args->q.dtype, return plain_backward_launch<T, 1>(device, args, err));
    else
        WITH_TYPE(T, args->q.dtype, return plain_backward_launch<T, 2>(device, args, err));
}
