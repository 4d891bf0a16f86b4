/* attention.h - shared by attention and its backward pass: the small matmul, the packing of its
 * right operand, the iteration over a span's keys and the dropout mask. */
#ifndef EASYFIRST_KERNELS_CPU_ISA_ATTENTION_H
#define EASYFIRST_KERNELS_CPU_ISA_ATTENTION_H

#include <math.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/isa/philox.h"
#include "kernels/cpu/isa/vector.h"

/* Rows x vectors of a tile. Its sums, the vectors of a line of the panel and one broadcast value
 * have to fit the registers: 6 * 4 + 4 + 1 of AVX-512's 32, 6 * 2 + 2 + 1 of the 16 of the
 * others. */
#define TILE_ROWS 6
#if LANES == 16
#define TILE_VECTORS 4
#else
#define TILE_VECTORS 2
#endif

static inline int round_up(int n) {
    return (n + LANES - 1) / LANES * LANES;
}

/* ---- Columns in panels, as even in width as can be: 17 vectors are 4 + 4 + 3 + 3 + 3. ---- */

typedef struct Panels {
    int count;
    int width, wider; /* vectors in a panel, and how many panels at the start have one more */
} Panels;

static inline Panels panels_of(int columns) {
    int vectors = round_up(columns) / LANES, count = (vectors + TILE_VECTORS - 1) / TILE_VECTORS;
    return (Panels){count, vectors / count, vectors % count};
}

/* The first vector of a panel. */
static inline int panel_begin(Panels p, int i) {
    return i * p.width + (i < p.wider ? i : p.wider);
}

/* ---- The tile. ---- */

/* c[r][j] = sum over k of a[r][k] * b[k][j], or += with `add`, for `rows` rows and `vectors`
 * vectors, which are constants where this is inlined, as `add` is. a[r][k] lies at a + r * a_row +
 * k * a_step, line k of b at b + k * b_line; one of a's two is the constant 1. Per step of k the
 * full tile of AVX-512 does 24 multiply-adds on 10 loads: both fit the 12 cycles that two units of
 * each need. */
INLINE void tile_matmul(float *c, int c_ld, const float *a, int64_t a_row, int64_t a_step,
                        const float *b, int64_t b_line, int depth, int rows, int vectors,
                        bool add) {
    Vec sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = add ? vec_load(c + (int64_t)r * c_ld + v * LANES) : (Vec){0};
    for (int k = 0; k < depth; k++) {
        Vec line[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) line[v] = vec_load(b + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            Vec x = vec_set1(a[r * a_row + k * a_step]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] += x * line[v];
        }
        b += b_line;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(c + (int64_t)r * c_ld + v * LANES, sum[r][v]);
}

/* tile_matmul for a given number of rows and vectors: TILE(r, v) is one case. */
#define TILES(v) TILE(1, v) TILE(2, v) TILE(3, v) TILE(4, v) TILE(5, v) TILE(6, v)
#if TILE_VECTORS == 4
#define ALL_TILES TILES(1) TILES(2) TILES(3) TILES(4)
#else
#define ALL_TILES TILES(1) TILES(2)
#endif

/* The right operand is a panel, whose lines are contiguous. */
static inline void tile_multiply(float *c, int c_ld, const float *a, int a_ld, const float *panel,
                                 int depth, int rows, int vectors) {
#define TILE(r, v)                                                                       \
    case (r)*8 + (v):                                                                    \
        tile_matmul(c, c_ld, a, a_ld, 1, panel, (int64_t)(v)*LANES, depth, r, v, false); \
        return;
    switch (rows * 8 + vectors) { ALL_TILES }
#undef TILE
}

/* A part of a dimension: [begin, end). */
typedef struct Part {
    int begin, end;
} Part;

/* With panels of `lines` lines, of which those of `depth` are used, and whose columns `columns` are
 * needed: the rest of their panels is computed with them. a begins with the first line's. */
static inline void panels_multiply(float *c, int c_ld, const float *a, int a_ld, const float *b,
                                   Panels p, int lines, Part depth, Part columns, int rows) {
    for (int i = 0; i < p.count && panel_begin(p, i) * LANES < columns.end; i++) {
        int begin = panel_begin(p, i), vectors = panel_begin(p, i + 1) - begin;
        if ((begin + vectors) * LANES <= columns.begin) continue;
        tile_multiply(c + begin * LANES, c_ld, a + depth.begin, a_ld,
                      b + ((int64_t)begin * lines + (int64_t)depth.begin * vectors) * LANES,
                      depth.end - depth.begin, rows, vectors);
    }
}

/* The first key that a query attends to, rounded down to whole vectors. */
static inline int attention_begin(const AttentionUnit *u, int keys, int i) {
    return attention_first(u->span, keys, i) / LANES * LANES;
}

/* ---- Packing. ---- */

/* Iterates over the rows of all ranges of a span. */
typedef struct KeyCursor {
    const AttentionSpan *span;
    int range;
    int32_t row;
} KeyCursor;

static inline KeyCursor key_first(const AttentionSpan *span) {
    return (KeyCursor){span, 0, span->range[0].begin};
}

/* The next row's index; -1 after the last. */
static inline int64_t key_next(KeyCursor *at) {
    while (at->range < at->span->range_count) {
        if (at->row < at->span->range[at->range].end) return at->row++;
        if (++at->range < at->span->range_count) at->row = at->span->range[at->range].begin;
    }
    return -1;
}

/* The address of a head in a row of q or out. */
static inline void *head_row(const AttentionUnit *u, Tensor t, int64_t row) {
    int64_t element = row * t.ld + (int64_t)u->head * u->head_width;
    return (char *)t.data + element * (t.dtype == DTYPE_F32 ? 4 : 2);
}

/* The same in k, v or their gradients. */
static inline void *key_head_row(const AttentionUnit *u, Tensor t, int64_t row) {
    int64_t element = row * t.ld + (int64_t)u->key_head * u->head_width;
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
 * bits and the lane's are swapped. */
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

/* Prefetches the rows of the next LANES keys and their values: they lie a whole row of all heads
 * apart, so the hardware prefetcher misses them, and with few queries waiting for them would take
 * longer than the arithmetic. Lanes after the last key repeat it; their scores are not used. */
static inline void keys_ahead(const void *rows[LANES], const AttentionUnit *u, Tensor t,
                              KeyCursor *cursor) {
    const int bytes = u->head_width * (u->k.dtype == DTYPE_F32 ? 4 : 2);
    const void *last = rows[LANES - 1];
    for (int i = 0; i < LANES; i++) {
        int64_t row = key_next(cursor);
        if (row >= 0) {
            const char *key = key_head_row(u, u->k, row), *value = key_head_row(u, u->v, row);
            last = key_head_row(u, t, row);
            for (int b = 0; b < bytes; b += 64) {
                __builtin_prefetch(key + b);
                __builtin_prefetch(value + b);
            }
        }
        rows[i] = last;
    }
}

/* The head's columns of t, which is k or v, transposed: a line for each column, with the keys that
 * the panels have room for. */
static inline void pack_turned(float *to, const AttentionUnit *u, Tensor t, Panels p) {
    KeyCursor cursor = key_first(u->span);
    const void *rows[LANES], *next[LANES] = {NULL};
    keys_ahead(next, u, t, &cursor);
    for (int i = 0; i < p.count; i++) {
        int begin = panel_begin(p, i), line = (panel_begin(p, i + 1) - begin) * LANES;
        float *panel = to + (int64_t)begin * LANES * u->head_width;
        for (int j = 0; j < line; j += LANES) {
            memcpy(rows, next, sizeof rows);
            keys_ahead(next, u, t, &cursor);
            if (t.dtype == DTYPE_F32)
                pack_key_vector(panel + j, line, rows, DTYPE_F32, u->head_width);
            else
                pack_key_vector(panel + j, line, rows, DTYPE_BF16, u->head_width);
        }
    }
}

INLINE void pack_panel(float *to, const AttentionUnit *u, Tensor t, Dtype dtype, int keys,
                       int begin, int end) {
    KeyCursor cursor = key_first(u->span);
    for (int key = 0; key < keys; key++) {
        const void *value = key_head_row(u, t, key_next(&cursor));
        for (int c = begin; c < end; c += LANES, to += LANES)
            vec_store(to, vec_get(value, dtype, c, u->head_width - c));
    }
}

/* The same, not transposed: a line for each of the first `keys` keys. */
static inline void pack_straight(float *to, const AttentionUnit *u, Tensor t, int keys, Panels p) {
    for (int i = 0; i < p.count; i++) {
        int begin = panel_begin(p, i) * LANES, end = panel_begin(p, i + 1) * LANES;
        if (t.dtype == DTYPE_F32)
            pack_panel(to + (int64_t)begin * keys, u, t, DTYPE_F32, keys, begin, end);
        else
            pack_panel(to + (int64_t)begin * keys, u, t, DTYPE_BF16, keys, begin, end);
    }
}

/* ---- Rows. ---- */

/* A value is kept if (word + 1/2) / 2^32 >= p (random_uniform), that is word >= p 2^32 - 1/2; in
 * integers, so that it is exact. Writes past the last key to the end of a Philox block, within the
 * line. */
static inline void dropout_row(float *values, int keys, const Dropout *dropout, uint64_t index) {
    VecBits least = (VecBits){0} + (uint32_t)ceil(dropout->p * 0x1p32 - 0.5);
    Vec kept = vec_set1(1 / (1 - dropout->p));
    for (int j = 0; j < keys; j += PHILOX_WORDS) {
        PhiloxWords words = philox_words(dropout->seed, dropout->stream, (index + (uint64_t)j) / 4);
        Vec low = vec_load(values + j) * kept, high = vec_load(values + j + LANES) * kept;
        vec_store(values + j, (Vec)((VecInt)low & (words.low >= least)));
        vec_store(values + j + LANES, (Vec)((VecInt)high & (words.high >= least)));
    }
}

/* The head's columns of a row, times `factor`, in whole vectors. */
static inline void load_row(float *to, const AttentionUnit *u, Tensor t, int64_t row,
                            float factor) {
    const void *from = head_row(u, t, row);
    for (int d = 0; d < u->head_width; d += LANES)
        vec_store(to + d, factor * (t.dtype == DTYPE_F32
                                        ? vec_get(from, DTYPE_F32, d, u->head_width - d)
                                        : vec_get(from, DTYPE_BF16, d, u->head_width - d)));
}

static inline void store_row(const AttentionUnit *u, Tensor t, int64_t row, const float *sums,
                             float factor) {
    void *to = head_row(u, t, row);
    for (int d = 0; d < u->head_width; d += LANES) {
        Vec v = factor * vec_load(sums + d);
        if (t.dtype == DTYPE_F32)
            vec_put(to, DTYPE_F32, d, u->head_width - d, v);
        else
            vec_put(to, DTYPE_BF16, d, u->head_width - d, v);
    }
}

#endif
