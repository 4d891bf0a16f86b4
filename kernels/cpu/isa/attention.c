/* attention.c - softmax(q k^T * scale) v of one head, for a piece of a span's queries.
 *
 * Both matmuls are the same small matmul, [rows, depth] times [depth, columns]: scores take the
 * queries' width as depth and the keys as columns, the output takes the keys as depth and the
 * head's width as columns. Its right operand is packed once for the unit, as f32, in the order in
 * which it is read: panels of a few vectors of columns, each [depth][vectors * LANES]. For keys
 * this is a transposition. Then, a few rows at a time, the scores stay in the L1 cache between the
 * two matmuls, and no [queries, keys] matrix exists.
 *
 * In a causal span later queries see more keys: a tile's matmuls end with those that its last row
 * sees, and a row's weights of keys that it does not see are zeros. With a window, they also begin
 * with those that its first row sees.
 *
 * For any tile shape, each element is one chain of multiply-adds over the depth, in order: so a
 * row's result has the same bits in any tile, hence in any batch.
 */
#include "kernels/cpu/isa/attention.h"
#include "kernels/cpu/isa/kernels.h"

/* ---- Between the matmuls. ---- */

/* Replaces scores by exp(score - largest) and returns their sum; those before `first` count as
 * -inf. */
static float softmax_row(float *scores, int first, int keys, float *largest) {
    int end = round_up(keys);
    for (int j = 0; j < first; j++) scores[j] = -INFINITY;
    for (int j = keys; j < end; j++) scores[j] = -INFINITY; /* padding: exp gives 0 */
    Vec m = vec_load(scores);
    for (int j = LANES; j < end; j += LANES) m = vec_max(vec_load(scores + j), m);
    *largest = vec_largest(m);
    Vec sum = {0};
    for (int j = 0; j < end; j += LANES) {
        Vec e = vec_exp_bounded(vec_load(scores + j) - *largest);
        vec_store(scores + j, e);
        sum += e;
    }
    return vec_sum(sum);
}

/* ---- The unit. ---- */

/* Offsets of the parts of the scratch, in floats. Lines of scores get one vector more than they
 * need: for dropout_row, and since lines a multiple of 4096 bytes apart would share their cache
 * set. */
typedef struct Scratch {
    int line;
    size_t values, scores, queries, out, size;
} Scratch;

static Scratch scratch_layout(int keys, int head_width) {
    Scratch s = {.line = round_up(keys) + LANES};
    size_t wide = (size_t)round_up(head_width);
    s.values = (size_t)round_up(keys) * (size_t)head_width;
    s.scores = s.values + (size_t)keys * wide;
    s.queries = s.scores + (size_t)TILE_ROWS * (size_t)s.line;
    s.out = s.queries + TILE_ROWS * wide;
    s.size = s.out + TILE_ROWS * wide;
    return s;
}

size_t ISA_NAME(attention_scratch)(int keys, int head_width) {
    return scratch_layout(keys, head_width).size;
}

static void store_lse(const AttentionUnit *u, int64_t row, float lse) {
    if (u->lse.data) ((float *)u->lse.data)[row * u->lse.ld + u->head] = lse;
}

void ISA_NAME(attention)(const AttentionUnit *u, float *scratch) {
    const int all = attention_keys(u->span), keys = attention_seen(u->span, all, u->q_end - 1);
    const int width = u->head_width, wide = round_up(width);
    const Scratch at = scratch_layout(keys, width);
    float *scores = scratch + at.scores, *queries = scratch + at.queries, *out = scratch + at.out;
    const Panels key_panels = panels_of(keys), value_panels = panels_of(width);
    pack_turned(scratch, u, u->k, key_panels);
    pack_straight(scratch + at.values, u, u->v, keys, value_panels);
    for (int i = u->q_begin; i < u->q_end; i += TILE_ROWS) {
        const int rows = u->q_end - i < TILE_ROWS ? u->q_end - i : TILE_ROWS;
        const int64_t first = u->span->q_begin + i;
        /* By any of the rows. */
        const int begin = attention_begin(u, all, i),
                  seen = attention_seen(u->span, all, i + rows - 1);
        const Part own_keys = {begin, seen}, whole = {0, width};
        float sum[TILE_ROWS], largest[TILE_ROWS];
        for (int r = 0; r < rows; r++) load_row(queries + r * wide, u, u->q, first + r, u->scale);
        panels_multiply(scores, at.line, queries, wide, scratch, key_panels, width, whole, own_keys,
                        rows);
        for (int r = 0; r < rows; r++) {
            float *line = scores + (int64_t)r * at.line;
            uint64_t index = (uint64_t)((first + r) * u->heads + u->head) * 65536;
            const int own = attention_seen(u->span, all, i + r);
            sum[r] = softmax_row(line + begin, attention_first(u->span, all, i + r) - begin,
                                 own - begin, &largest[r]);
            for (int j = 0; j < begin; j++) line[j] = 0; /* dropout_row reads them */
            for (int j = round_up(own); j < seen; j++) line[j] = 0;
            if (u->dropout) dropout_row(line, own, u->dropout, index);
        }
        panels_multiply(out, wide, scores, at.line, scratch + at.values, value_panels, keys,
                        own_keys, whole, rows);
        for (int r = 0; r < rows; r++) {
            store_row(u, u->out, first + r, out + r * wide, 1 / sum[r]);
            store_lse(u, first + r, largest[r] + logf(sum[r]));
        }
    }
}
