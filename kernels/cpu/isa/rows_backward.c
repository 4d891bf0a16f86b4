/* rows_backward.c - the backward passes of rows.c. */
#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/vector.h"

/* ---- Layer norm. With n = (x - mean) / deviation and g = dy w:
 * dx = (g - mean(g) - n mean(g n)) / deviation, dw = sum of dy n, db = sum of dy. ---- */

typedef struct NormGradient {
    const float *w;
    float mean, scale;  /* scale: 1 / deviation */
    float about, along; /* mean(g), mean(g n) */
} NormGradient;

INLINE void norm_gradient(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype, const void *x,
                          Dtype x_dtype, const NormGradient *s, bool accumulate, int64_t i,
                          int64_t count) {
    Vec g = vec_get(dy, dy_dtype, i, count) * vec_get(s->w, DTYPE_F32, i, count);
    Vec n = (vec_get(x, x_dtype, i, count) - s->mean) * s->scale;
    Vec v = (g - s->about - n * s->along) * s->scale;
    if (accumulate) v += vec_get(dx, dx_dtype, i, count);
    vec_put(dx, dx_dtype, i, count, v);
}

INLINE void norm_row_backward(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                              const void *x, Dtype x_dtype, const float *w, const float *stats,
                              bool centered, bool accumulate, int64_t n) {
    NormGradient s = {.w = w, .mean = stats[0], .scale = stats[1]};
    /* Lanes beyond the end add 0: dy and w are 0 there. */
    Vec a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        Vec g0 = vec_get(dy, dy_dtype, i, LANES) * vec_load(w + i);
        Vec g1 = vec_get(dy, dy_dtype, i + LANES, LANES) * vec_load(w + i + LANES);
        a0 += g0, a1 += g1;
        b0 += g0 * ((vec_get(x, x_dtype, i, LANES) - s.mean) * s.scale);
        b1 += g1 * ((vec_get(x, x_dtype, i + LANES, LANES) - s.mean) * s.scale);
    }
    for (; i < n; i += LANES) {
        Vec g = vec_get(dy, dy_dtype, i, n - i) * vec_get(w, DTYPE_F32, i, n - i);
        a0 += g;
        b0 += g * ((vec_get(x, x_dtype, i, n - i) - s.mean) * s.scale);
    }
    s.about = centered ? vec_sum(a0 + a1) / (float)n : 0;
    s.along = vec_sum(b0 + b1) / (float)n;
    for (i = 0; i + LANES <= n; i += LANES)
        norm_gradient(dx, dx_dtype, dy, dy_dtype, x, x_dtype, &s, accumulate, i, LANES);
    if (i < n) norm_gradient(dx, dx_dtype, dy, dy_dtype, x, x_dtype, &s, accumulate, i, n - i);
}

/* Constant types if all are the same, and for an f32 residual stream with a bf16 branch; others are
 * dispatched at run time. */
void ISA_NAME(layernorm_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                      const void *x, Dtype x_dtype, const float *w,
                                      const float *stats, bool accumulate, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    const int types = (dx_dtype == h) * 4 + (dy_dtype == h) * 2 + (x_dtype == h);
    if (types == 0)
        norm_row_backward(dx, f, dy, f, x, f, w, stats, true, accumulate, n);
    else if (types == 7)
        norm_row_backward(dx, h, dy, h, x, h, w, stats, true, accumulate, n);
    else if (types == 2)
        norm_row_backward(dx, f, dy, h, x, f, w, stats, true, accumulate, n);
    else
        norm_row_backward(dx, dx_dtype, dy, dy_dtype, x, x_dtype, w, stats, true, accumulate, n);
}

/* RMS norm's, with mean 0 in the stats: the same without mean(g). */
void ISA_NAME(rmsnorm_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                    const void *x, Dtype x_dtype, const float *w,
                                    const float *stats, bool accumulate, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    const int types = (dx_dtype == h) * 4 + (dy_dtype == h) * 2 + (x_dtype == h);
    if (types == 0)
        norm_row_backward(dx, f, dy, f, x, f, w, stats, false, accumulate, n);
    else if (types == 2)
        norm_row_backward(dx, f, dy, h, x, f, w, stats, false, accumulate, n);
    else
        norm_row_backward(dx, dx_dtype, dy, dy_dtype, x, x_dtype, w, stats, false, accumulate, n);
}

/* Rows are summed in chunks, then the chunks: so the sum of many rows is more accurate. */
enum { CHUNK = 64 };

INLINE void norm_sums(float *dw, float *db, const char *dy, int64_t dy_step, Dtype dy_dtype,
                      const char *x, int64_t x_step, Dtype x_dtype, const float *stats,
                      int64_t stats_ld, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        Vec w = {0}, b = {0};
        for (int64_t first = 0; first < rows; first += CHUNK) {
            const int64_t end = rows - first < CHUNK ? rows : first + CHUNK;
            Vec chunk_w = {0}, chunk_b = {0};
            for (int64_t r = first; r < end; r++) {
                const float *s = stats + r * stats_ld;
                Vec g = vec_get(dy + r * dy_step, dy_dtype, i, n - i);
                chunk_w += g * ((vec_get(x + r * x_step, x_dtype, i, n - i) - s[0]) * s[1]);
                chunk_b += g;
            }
            w += chunk_w, b += chunk_b;
        }
        if (dw) vec_put(dw, DTYPE_F32, i, n - i, vec_get(dw, DTYPE_F32, i, n - i) + w);
        if (db) vec_put(db, DTYPE_F32, i, n - i, vec_get(db, DTYPE_F32, i, n - i) + b);
    }
}

void ISA_NAME(layernorm_backward_columns)(float *dw, float *db, const void *dy, int64_t dy_ld,
                                          Dtype dy_dtype, const void *x, int64_t x_ld,
                                          Dtype x_dtype, const float *stats, int64_t stats_ld,
                                          int64_t rows, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    const int64_t dy_step = dy_ld * (dy_dtype == f ? 4 : 2), x_step = x_ld * (x_dtype == f ? 4 : 2);
    if (dy_dtype == f && x_dtype == f)
        norm_sums(dw, db, dy, dy_step, f, x, x_step, f, stats, stats_ld, rows, n);
    else if (dy_dtype == f)
        norm_sums(dw, db, dy, dy_step, f, x, x_step, h, stats, stats_ld, rows, n);
    else if (x_dtype == f)
        norm_sums(dw, db, dy, dy_step, h, x, x_step, f, stats, stats_ld, rows, n);
    else
        norm_sums(dw, db, dy, dy_step, h, x, x_step, h, stats, stats_ld, rows, n);
}

/* ---- Sums and means. ---- */

INLINE void add(float *y, const void *x, Dtype x_dtype, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(y + i, vec_load(y + i) + vec_get(x, x_dtype, i, LANES));
    if (i < n)
        vec_put(y, DTYPE_F32, i, n - i,
                vec_get(y, DTYPE_F32, i, n - i) + vec_get(x, x_dtype, i, n - i));
}

void ISA_NAME(add_row)(float *y, const void *x, Dtype x_dtype, int64_t n) {
    if (x_dtype == DTYPE_F32)
        add(y, x, DTYPE_F32, n);
    else
        add(y, x, DTYPE_BF16, n);
}

void ISA_NAME(scale_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, float factor,
                         int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        vec_put(y, y_dtype, i, n - i, factor * vec_get(x, x_dtype, i, n - i));
}
