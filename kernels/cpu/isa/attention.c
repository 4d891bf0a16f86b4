/* attention.c - softmax(q k^T * scale) v of one head, for a piece of a span's queries.
 *
 * Both products are the same small matrix product, [rows, depth] times [depth, columns]: scores
 * take the queries' width as depth and the keys as columns, the output takes the keys as depth and
 * the head's width as columns. Its right side is packed once for the unit, as f32, in the order in
 * which it is read: panels of a few vectors of columns, each [depth][vectors * LANES]. For keys
 * that is a transposition. Then, a few rows at a time, the scores stay in the first-level cache
 * between the two products, and no [queries, keys] matrix exists.
 *
 * Whatever rows or columns a tile has, each of its elements is one chain of multiply-adds over the
 * depth, in order: a row's result is the same bits in any tile, hence in any batch.
 */
#include <math.h>

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/philox.h"
#include "kernels/cpu/isa/vector.h"

/* Rows x vectors of a tile. Its sums, the vectors of a line of the panel and one broadcast value
 * have to fit the registers: 6 * 4 + 4 + 1 of AVX-512's 32, 6 * 2 + 2 + 1 of the 16 of the others.
 */
#define TILE_ROWS 6
#if LANES == 16
#define TILE_VECTORS 4
#else
#define TILE_VECTORS 2
#endif

static int round_up(int n) {
    return (n + LANES - 1) / LANES * LANES;
}

/* ---- Columns in panels, as even in width as can be: 17 vectors are 4 + 4 + 3 + 3 + 3. ---- */

typedef struct Panels {
    int count;
    int width, wider; /* vectors in a panel, and how many panels at the start have one more */
} Panels;

static Panels panels_of(int columns) {
    int vectors = round_up(columns) / LANES, count = (vectors + TILE_VECTORS - 1) / TILE_VECTORS;
    return (Panels){count, vectors / count, vectors % count};
}

/* The first vector of a panel. */
static int panel_begin(Panels p, int i) {
    return i * p.width + (i < p.wider ? i : p.wider);
}

/* ---- The tile. ---- */

/* c[r][j] = sum over k of a[r][k] * panel[k][j], for `rows` rows and `vectors` vectors, which are
 * constants where this is inlined. Per step of k the full tile of AVX-512 does 24 multiply-adds on
 * 10 loads: both fit the 12 cycles that two units of each need. */
INLINE void tile_product(float *c, int c_ld, const float *a, int a_ld, const float *panel,
                         int depth, int rows, int vectors) {
    Vec sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[r][v] = (Vec){0};
    for (int k = 0; k < depth; k++) {
        Vec line[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) line[v] = vec_load(panel + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            Vec x = vec_set1(a[(int64_t)r * a_ld + k]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] += x * line[v];
        }
        panel += vectors * LANES;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(c + (int64_t)r * c_ld + v * LANES, sum[r][v]);
}

#define TILE(r, v)                                          \
    case (r)*8 + (v):                                       \
        tile_product(c, c_ld, a, a_ld, panel, depth, r, v); \
        return;
#define TILES(v) TILE(1, v) TILE(2, v) TILE(3, v) TILE(4, v) TILE(5, v) TILE(6, v)

static void tile_multiply(float *c, int c_ld, const float *a, int a_ld, const float *panel,
                          int depth, int rows, int vectors) {
    switch (rows * 8 + vectors) {
        TILES(1)
        TILES(2)
#if TILE_VECTORS == 4
        TILES(3)
        TILES(4)
#endif
    }
}

static void panels_multiply(float *c, int c_ld, const float *a, int a_ld, const float *b, Panels p,
                            int depth, int rows) {
    for (int i = 0; i < p.count; i++) {
        int begin = panel_begin(p, i), vectors = panel_begin(p, i + 1) - begin;
        tile_multiply(c + begin * LANES, c_ld, a, a_ld, b + (int64_t)begin * LANES * depth, depth,
                      rows, vectors);
    }
}

/* ---- Packing. ---- */

/* Walks over the rows of all ranges of a span. */
typedef struct KeyCursor {
    const AttentionSpan *span;
    int range;
    int32_t row;
} KeyCursor;

static KeyCursor key_first(const AttentionSpan *span) {
    return (KeyCursor){span, 0, span->range[0].begin};
}

/* The next row's number; -1 after the last. */
static int64_t key_next(KeyCursor *at) {
    while (at->range < at->span->range_count) {
        if (at->row < at->span->range[at->range].end) return at->row++;
        if (++at->range < at->span->range_count) at->row = at->span->range[at->range].begin;
    }
    return -1;
}

static int key_count(const AttentionSpan *span) {
    int n = 0;
    for (int i = 0; i < span->range_count; i++) n += span->range[i].end - span->range[i].begin;
    return n;
}

/* The place of a head in a row of q, k, v or out. */
static void *head_row(const AttentionUnit *u, Tensor t, int64_t row) {
    int64_t element = row * t.ld + (int64_t)u->head * u->head_width;
    return (char *)t.data + element * (t.dtype == DTYPE_F32 ? 4 : 2);
}

/* Interleaves the lanes of two vectors: a0 b0 a1 b1 ... */
#if LANES == 16
#define ZIP_LOW(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define ZIP_ROUNDS 4
#elif LANES == 8
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define ZIP_ROUNDS     3
#else
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define ZIP_ROUNDS     2
#endif

/* Rows become columns. Zipping row i with row i + LANES / 2 into rows 2i and 2i + 1 rotates the
 * bits of (row, lane), taken as one number, by one to the left; after log2(LANES) rounds the row's
 * bits and the lane's have changed places. */
INLINE void vec_transpose(Vec m[LANES]) {
#pragma GCC unroll 4
    for (int round = 0; round < ZIP_ROUNDS; round++) {
        Vec t[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = ZIP_LOW(m[i], m[i + LANES / 2]);
            t[2 * i + 1] = ZIP_HIGH(m[i], m[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) m[i] = t[i];
    }
}

/* One vector of keys, into columns of a panel whose lines are `line` floats apart. */
INLINE void pack_key_vector(float *to, int line, const void *const rows[LANES], Dtype dtype,
                            int width) {
    for (int d = 0; d < width; d += LANES) {
        Vec m[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) m[i] = vec_get(rows[i], dtype, d, width - d);
        vec_transpose(m);
        if (width - d >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++, to += line) vec_store(to, m[i]);
        } else {
            for (int i = 0; i < width - d; i++, to += line) vec_store(to, m[i]);
        }
    }
}

/* The rows of the next LANES keys, asked of memory together with their values: they lie a whole row
 * of all heads apart, so no prefetcher guesses them, and with few queries waiting for them would
 * take longer than the arithmetic. Places after the last key repeat it; their scores are not used.
 */
static void keys_ahead(const void *rows[LANES], const AttentionUnit *u, KeyCursor *cursor) {
    const int bytes = u->head_width * (u->k.dtype == DTYPE_F32 ? 4 : 2);
    const char *key = rows[LANES - 1];
    for (int i = 0; i < LANES; i++) {
        int64_t row = key_next(cursor);
        if (row >= 0) {
            key = head_row(u, u->k, row);
            const char *value = head_row(u, u->v, row);
            for (int b = 0; b < bytes; b += 64) {
                __builtin_prefetch(key + b);
                __builtin_prefetch(value + b);
            }
        }
        rows[i] = key;
    }
}

static void pack_keys(float *to, const AttentionUnit *u, Panels p) {
    KeyCursor cursor = key_first(u->span);
    const void *rows[LANES], *next[LANES] = {NULL};
    keys_ahead(next, u, &cursor);
    for (int i = 0; i < p.count; i++) {
        int begin = panel_begin(p, i), line = (panel_begin(p, i + 1) - begin) * LANES;
        float *panel = to + (int64_t)begin * LANES * u->head_width;
        for (int j = 0; j < line; j += LANES) {
            memcpy(rows, next, sizeof rows);
            keys_ahead(next, u, &cursor);
            if (u->k.dtype == DTYPE_F32)
                pack_key_vector(panel + j, line, rows, DTYPE_F32, u->head_width);
            else
                pack_key_vector(panel + j, line, rows, DTYPE_BF16, u->head_width);
        }
    }
}

INLINE void pack_value_panel(float *to, const AttentionUnit *u, Dtype dtype, int begin, int end) {
    KeyCursor cursor = key_first(u->span);
    for (int64_t row = key_next(&cursor); row >= 0; row = key_next(&cursor)) {
        const void *value = head_row(u, u->v, row);
        for (int c = begin; c < end; c += LANES, to += LANES)
            vec_store(to, vec_get(value, dtype, c, u->head_width - c));
    }
}

static void pack_values(float *to, const AttentionUnit *u, int keys, Panels p) {
    for (int i = 0; i < p.count; i++) {
        int begin = panel_begin(p, i) * LANES, end = panel_begin(p, i + 1) * LANES;
        if (u->v.dtype == DTYPE_F32)
            pack_value_panel(to + (int64_t)begin * keys, u, DTYPE_F32, begin, end);
        else
            pack_value_panel(to + (int64_t)begin * keys, u, DTYPE_BF16, begin, end);
    }
}

/* ---- Between the products. ---- */

/* Scores become exp(score - largest), not yet divided by their sum, which is returned. */
static float softmax_row(float *scores, int keys, float *largest) {
    int end = round_up(keys);
    for (int j = keys; j < end; j++) scores[j] = -INFINITY; /* no keys: exp gives 0 */
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

/* A value is kept if (word + 1/2) / 2^32 >= p (random_uniform), that is word >= p 2^32 - 1/2; in
 * whole numbers, so that it is the same to the last bit. Goes over the end of the keys to the end
 * of a block, within the line. */
static void dropout_row(float *values, int keys, const Dropout *dropout, uint64_t index) {
    VecBits least = (VecBits){0} + (uint32_t)ceil(dropout->p * 0x1p32 - 0.5);
    Vec kept = vec_set1(1 / (1 - dropout->p));
    for (int j = 0; j < keys; j += PHILOX_WORDS) {
        PhiloxWords words = philox_words(dropout->seed, dropout->stream, (index + (uint64_t)j) / 4);
        Vec low = vec_load(values + j) * kept, high = vec_load(values + j + LANES) * kept;
        vec_store(values + j, (Vec)((VecInt)low & (words.low >= least)));
        vec_store(values + j + LANES, (Vec)((VecInt)high & (words.high >= least)));
    }
}

/* ---- The unit. ---- */

/* Where the parts of the scratch begin, in floats. Lines of scores get one vector more than they
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

static void load_query(float *to, const AttentionUnit *u, int64_t row) {
    const void *q = head_row(u, u->q, row);
    for (int d = 0; d < u->head_width; d += LANES)
        vec_store(to + d, u->scale * (u->q.dtype == DTYPE_F32
                                          ? vec_get(q, DTYPE_F32, d, u->head_width - d)
                                          : vec_get(q, DTYPE_BF16, d, u->head_width - d)));
}

static void store_out(const AttentionUnit *u, int64_t row, const float *sums, float factor) {
    void *out = head_row(u, u->out, row);
    for (int d = 0; d < u->head_width; d += LANES) {
        Vec v = factor * vec_load(sums + d);
        if (u->out.dtype == DTYPE_F32)
            vec_put(out, DTYPE_F32, d, u->head_width - d, v);
        else
            vec_put(out, DTYPE_BF16, d, u->head_width - d, v);
    }
}

static void store_lse(const AttentionUnit *u, int64_t row, float lse) {
    if (u->lse.data) ((float *)u->lse.data)[row * u->lse.ld + u->head] = lse;
}

void ISA_NAME(attention)(const AttentionUnit *u, float *scratch) {
    const int keys = key_count(u->span), width = u->head_width, wide = round_up(width);
    const Scratch at = scratch_layout(keys, width);
    float *scores = scratch + at.scores, *queries = scratch + at.queries, *out = scratch + at.out;
    const Panels key_panels = panels_of(keys), value_panels = panels_of(width);
    pack_keys(scratch, u, key_panels);
    pack_values(scratch + at.values, u, keys, value_panels);
    for (int i = u->q_begin; i < u->q_end; i += TILE_ROWS) {
        const int rows = u->q_end - i < TILE_ROWS ? u->q_end - i : TILE_ROWS;
        const int64_t first = u->span->q_begin + i;
        float sum[TILE_ROWS], largest[TILE_ROWS];
        for (int r = 0; r < rows; r++) load_query(queries + r * wide, u, first + r);
        panels_multiply(scores, at.line, queries, wide, scratch, key_panels, width, rows);
        for (int r = 0; r < rows; r++) {
            float *line = scores + (int64_t)r * at.line;
            uint64_t index = (uint64_t)((first + r) * u->heads + u->head) * 65536;
            sum[r] = softmax_row(line, keys, &largest[r]);
            if (u->dropout) dropout_row(line, keys, u->dropout, index);
        }
        panels_multiply(out, wide, scores, at.line, scratch + at.values, value_panels, keys, rows);
        for (int r = 0; r < rows; r++) {
            store_out(u, first + r, out + r * wide, 1 / sum[r]);
            store_lse(u, first + r, largest[r] + logf(sum[r]));
        }
    }
}
