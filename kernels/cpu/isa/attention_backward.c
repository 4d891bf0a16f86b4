/* attention_backward.c - the gradients of one head over one span.
 *
 * With s the scaled scores, p = exp(s - lse) the softmax, z the mask of dropout (0 or 1 / (1 - p))
 * and r the sum over a row of dout * out:
 *     dp = z * (dout v^T), ds = p * (dp - r), dq = scale ds k, dk += scale ds^T q,
 *     dv += (z * p)^T dout.
 * r equals the sum over a row of p * dp, also with dropout, since out = (z * p) v.
 *
 * All five matmuls are the tile's of attention.h. Queries are processed in blocks: p and ds, which
 * all keys need, stay in the L2 cache, and a block is deep enough for the tile where the sum is
 * over queries. Each sum is in the order of the queries.
 */
#include "kernels/cpu/isa/attention.h"
#include "kernels/cpu/isa/kernels.h"

enum { BLOCK = 8 * TILE_ROWS }; /* queries */

/* Offsets of the parts of the scratch, in floats. Lines of scores as in attention.c. */
typedef struct Scratch {
    int line;
    size_t values_turned, keys, dk, dv, scores, derivatives, mask, queries, douts, dq, size;
} Scratch;

static Scratch scratch_layout(int keys, int head_width) {
    Scratch s = {.line = round_up(keys) + LANES};
    const size_t wide = (size_t)round_up(head_width), line = (size_t)s.line;
    const size_t turned = (size_t)round_up(keys) * (size_t)head_width,
                 of_keys = (size_t)keys * wide;
    s.values_turned = turned; /* the transposed keys are first */
    s.keys = s.values_turned + turned;
    s.dk = s.keys + of_keys;
    s.dv = s.dk + of_keys;
    s.scores = s.dv + of_keys;
    s.derivatives = s.scores + BLOCK * line;
    s.mask = s.derivatives + BLOCK * line;
    s.queries = s.mask + line;
    s.douts = s.queries + BLOCK * wide;
    s.dq = s.douts + BLOCK * wide;
    s.size = s.dq + TILE_ROWS * wide;
    return s;
}

size_t ISA_NAME(attention_backward_scratch)(int keys, int head_width) {
    return scratch_layout(keys, head_width).size;
}

/* c += a^T b: a sum over the lines of a, `a_line` apart, and of b, `b_line` apart. */
static void tile_add_turned(float *c, int c_ld, const float *a, int64_t a_line, const float *b,
                            int64_t b_line, int depth, int rows, int vectors) {
#define TILE(r, v)                                                        \
    case (r)*8 + (v):                                                     \
        tile_matmul(c, c_ld, a, 1, a_line, b, b_line, depth, r, v, true); \
        return;
    switch (rows * 8 + vectors) { ALL_TILES }
#undef TILE
}

/* gradient [keys, wide] += weights [rows, line]^T x [rows, wide], for some of the keys. */
static void add_to_keys(float *gradient, const float *weights, int line, const float *x, int wide,
                        Part keys, int rows) {
    const Panels p = panels_of(wide);
    for (int i = 0; i < p.count; i++) {
        const int begin = panel_begin(p, i), vectors = panel_begin(p, i + 1) - begin;
        for (int key = keys.begin; key < keys.end; key += TILE_ROWS)
            tile_add_turned(gradient + (int64_t)key * wide + begin * LANES, wide, weights + key,
                            line, x + begin * LANES, wide, rows,
                            keys.end - key < TILE_ROWS ? keys.end - key : TILE_ROWS, vectors);
    }
}

/* Replaces scores by z * p and derivatives (dp before the mask) by ds; mask is NULL without
 * dropout. */
static void softmax_backward_row(float *scores, float *derivatives, const float *mask, int keys,
                                 float lse, float r) {
    for (int j = 0; j < keys; j += LANES) {
        Vec p = vec_exp_bounded(vec_load(scores + j) - lse), dp = vec_load(derivatives + j);
        Vec kept = p;
        if (mask) {
            Vec z = vec_load(mask + j);
            dp *= z, kept = p * z;
        }
        vec_store(derivatives + j, p * (dp - r));
        vec_store(scores + j, kept);
    }
}

static float dot(const float *a, const AttentionUnit *u, Tensor t, int64_t row) {
    const void *b = head_row(u, t, row);
    Vec sum = {0};
    for (int d = 0; d < u->head_width; d += LANES)
        sum +=
            vec_load(a + d) * (t.dtype == DTYPE_F32 ? vec_get(b, DTYPE_F32, d, u->head_width - d)
                                                    : vec_get(b, DTYPE_BF16, d, u->head_width - d));
    return vec_sum(sum);
}

/* Adds the sums of all queries to the tensor. A key that is in the span twice gets both. */
static void add_gradient(const AttentionUnit *u, Tensor to, const float *gradient, int wide) {
    KeyCursor cursor = key_first(u->span);
    for (int64_t row = key_next(&cursor); row >= 0; row = key_next(&cursor), gradient += wide) {
        void *place = key_head_row(u, to, row);
        for (int d = 0; d < u->head_width; d += LANES) {
            const int count = u->head_width - d;
            Vec v = vec_load(gradient + d);
            if (to.dtype == DTYPE_F32)
                vec_put(place, DTYPE_F32, d, count, vec_get(place, DTYPE_F32, d, count) + v);
            else
                vec_put(place, DTYPE_BF16, d, count, vec_get(place, DTYPE_BF16, d, count) + v);
        }
    }
}

void ISA_NAME(attention_backward)(const AttentionUnit *u, const AttentionGradient *g,
                                  float *scratch) {
    const int keys = attention_keys(u->span), width = u->head_width, wide = round_up(width);
    const Scratch at = scratch_layout(keys, width);
    const Panels key_panels = panels_of(keys), width_panels = panels_of(width);
    float *scores = scratch + at.scores, *derivatives = scratch + at.derivatives,
          *dq = scratch + at.dq;
    float *queries = scratch + at.queries, *douts = scratch + at.douts;
    float *dk = scratch + at.dk, *dv = scratch + at.dv;
    float *mask = u->dropout ? scratch + at.mask : NULL;
    pack_turned(scratch, u, u->k, key_panels);
    pack_turned(scratch + at.values_turned, u, u->v, key_panels);
    pack_straight(scratch + at.keys, u, u->k, keys, width_panels);
    memset(dk, 0, (size_t)keys * (size_t)wide * sizeof *dk);
    memset(dv, 0, (size_t)keys * (size_t)wide * sizeof *dv);

    for (int i = u->q_begin; i < u->q_end; i += BLOCK) {
        const int block = u->q_end - i < BLOCK ? u->q_end - i : BLOCK;
        /* By any of the block. */
        const int begin = attention_begin(u, keys, i),
                  seen = attention_seen(u->span, keys, i + block - 1);
        const Part own_keys = {begin, seen}, whole = {0, width};
        for (int j = 0; j < block; j += TILE_ROWS) {
            const int rows = block - j < TILE_ROWS ? block - j : TILE_ROWS;
            const int64_t first = u->span->q_begin + i + j;
            float *q = queries + j * wide, *dout = douts + j * wide;
            float *s = scores + (int64_t)j * at.line, *ds = derivatives + (int64_t)j * at.line;
            for (int r = 0; r < rows; r++) {
                load_row(q + r * wide, u, u->q, first + r, u->scale);
                load_row(dout + r * wide, u, g->dout, first + r, 1);
            }
            panels_multiply(s, at.line, q, wide, scratch, key_panels, width, whole, own_keys, rows);
            panels_multiply(ds, at.line, dout, wide, scratch + at.values_turned, key_panels, width,
                            whole, own_keys, rows);
            for (int r = 0; r < rows; r++) {
                const int own = attention_seen(u->span, keys, i + j + r);
                if (mask) {
                    for (int m = 0; m < at.line; m++) mask[m] = 1;
                    dropout_row(mask, own, u->dropout,
                                (uint64_t)((first + r) * u->heads + u->head) * 65536);
                }
                float *p = s + (int64_t)r * at.line, *dp = ds + (int64_t)r * at.line;
                softmax_backward_row(
                    p + begin, dp + begin, mask ? mask + begin : NULL, own - begin,
                    ((const float *)u->lse.data)[(first + r) * u->lse.ld + u->head],
                    dot(dout + r * wide, u, u->out, first + r));
                const int first_key = attention_first(u->span, keys, i + j + r);
                for (int k = begin; k < first_key; k++) p[k] = dp[k] = 0;
                for (int k = own; k < seen; k++) p[k] = dp[k] = 0;
            }
            panels_multiply(dq, wide, ds, at.line, scratch + at.keys, width_panels, keys, own_keys,
                            whole, rows);
            for (int r = 0; r < rows; r++) store_row(u, g->dq, first + r, dq + r * wide, u->scale);
        }
        add_to_keys(dk, derivatives, at.line, queries, wide, own_keys, block);
        add_to_keys(dv, scores, at.line, douts, wide, own_keys, block);
    }
    add_gradient(u, g->dk, dk, wide);
    add_gradient(u, g->dv, dv, wide);
}
