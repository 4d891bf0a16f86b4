/* Attention in f32 arithmetic, for f32 and for heads that the tensor core kernels do not support:
 * any width, any alignment.
 *
 * A block has 64 query rows of one head, or 16 where there are few; it keeps the sums of up to 128
 * columns of the output and loops over the keys, a tile of 64 at a time. Bound by the multiply-adds
 * (and half by shared memory, attention_plain.cuh): 60 % of the f32 peak is expected at a width of
 * 64. A row's sums run over the keys in order, in tiles that begin at its span's first key: they
 * have the same bits in any block.
 */
#include "kernels/cuda/attention_plain.cuh"

/* Replaces a thread's scores by their exponentials, relative to the largest so far, and returns the
 * factor for the earlier sums. Of the tile's `keys` keys, row r sees the first seen + r, from
 * from + r on. */
template <int R>
static __device__ __forceinline__ void plain_softmax(float (&s)[R][4], float (&largest)[R],
                                                     float (&sum)[R], float (&from_before)[R],
                                                     float scale, int keys, int seen, int from) {
    const int first = plain_tx() * 4;
#pragma unroll
    for (int i = 0; i < R; i++) {
        const int row = plain_ty() * R + i, own = min(keys, seen + row);
        float most = -INFINITY, share = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] =
                first + j < own && first + j >= from + row ? __fmul_rn(s[i][j], scale) : -INFINITY;
            most = fmaxf(most, s[i][j]);
        }
        most = fmaxf(largest[i], plain_row_max(most));
        const float origin = most == -INFINITY ? 0.0f : most;
        from_before[i] = expf(largest[i] - origin);
        largest[i] = most;
#pragma unroll
        for (int j = 0; j < 4; j++) share += s[i][j] = expf(s[i][j] - origin);
        sum[i] = __fmaf_rn(sum[i], from_before[i], plain_row_sum(share));
    }
}

/* R rows a thread, CHUNKS times 64 columns of the output a block. Shared memory: the loaded tile,
 * and the probabilities as [key][row]. */
template <typename T, int R, int CHUNKS>
__global__ void __launch_bounds__(PLAIN_THREADS) plain_kernel(ForwardArgs args, unsigned groups) {
    SHARED_MEMORY(float, memory);
    __shared__ AttentionItem item;
    __shared__ Drop drop;
    __shared__ int key_table[64], row_table[64];
    float *weights = memory + PLAIN_TILE;
    drop_load(&drop, args.drop);
    item_load(&item, args.items + blockIdx.x / groups / args.heads);
    const int head = blockIdx.x / groups % args.heads;
    const int first = blockIdx.x % groups * CHUNKS * PLAIN_COLUMNS;
    const int64_t column = (int64_t)head * args.width,
                  key_column = (int64_t)(head / args.shared) * args.width;
    plain_rows(row_table, item.q_begin, item.rows);

    float total[CHUNKS][R][4] = {}, sum[R] = {}, largest[R], from_before[R];
#pragma unroll
    for (int i = 0; i < R; i++) largest[i] = -INFINITY;
    for (int place = first_tile(item); place < item.keys; place += TILE_KEYS) {
        const int keys = item.keys - place;
        float s[R][4] = {};
        plain_key_rows(key_table, item, place); /* the last tile's table was read before a
                                                   barrier */
        plain_scores<T, R>(s, memory, args.q, row_table, args.k, key_table, column, key_column,
                           args.width);
        plain_softmax<R>(s, largest, sum, from_before, args.scale, keys, item.seen - place,
                         item.first - place);
#pragma unroll
        for (int i = 0; i < R; i++) {
            uint32_t keep = 0xf;
            if (drop.on)
                keep = drop_keeps(drop,
                                  drop_block(item.q_begin + plain_ty() * R + i, args.heads, head) +
                                      (uint64_t)(place / 4 + plain_tx()));
#pragma unroll
            for (int j = 0; j < 4; j++)
                weights[(4 * plain_tx() + j) * PLAIN_LINE + plain_ty() * R + i] =
                    keep >> j & 1 ? s[i][j] : 0.0f;
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) total[c][i][j] *= from_before[i];
            plain_load<T>(memory, args.v, key_table, key_column, first + c * PLAIN_COLUMNS,
                          args.width);
            __syncthreads();
            plain_multiply<R>(total[c], weights, memory, keys < TILE_KEYS ? keys : TILE_KEYS);
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < R; i++) {
        const int row = plain_ty() * R + i;
        if (row >= item.rows) break;
        if (args.lse && plain_tx() == 0 && first == 0)
            args.lse[(item.q_begin + row) * args.lse_ld + head] = largest[i] + logf(sum[i]);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = first + c * PLAIN_COLUMNS + plain_tx() * 4;
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = total[c][i][j] * args.drop.factor / sum[i];
            values_put(head_at<T>(args.out, item.q_begin + row, column + at), v, args.width - at,
                       args.out.aligned);
        }
    }
}

template <typename T, int R, int CHUNKS>
static int plain_launch(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                        Error *err) {
    const unsigned groups = plain_groups(args->width, CHUNKS);
    const unsigned blocks = (unsigned)plan->item_count * (unsigned)args->heads * groups;
    const size_t shared = 2 * PLAIN_TILE * sizeof(float);
    const ForwardArgs a = *args;
    LAUNCH(device, (plain_kernel<T, R, CHUNKS>), blocks, PLAIN_THREADS, shared, err, a, groups);
    return 0;
}

template <typename T>
static int plain_launch_for(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                            int item_rows, Error *err) {
    const bool one = args->width <= PLAIN_COLUMNS;
    if (item_rows == 16)
        return one ? plain_launch<T, 2, 1>(device, plan, args, err)
                   : plain_launch<T, 2, 2>(device, plan, args, err);
    return one ? plain_launch<T, 8, 1>(device, plan, args, err)
               : plain_launch<T, 8, 2>(device, plan, args, err);
}

int attention_plain(Device *device, const AttentionPlan *plan, const ForwardArgs *args,
                    int item_rows, Error *err) {
    WITH_TYPE(T, args->q.dtype, return plain_launch_for<T>(device, plan, args, item_rows, err));
}
