/* rows.c - operations on one row of a matrix: layer norm, sum, mean, conversion. All are
 * memory-bound; types are constants in the inner loops.
 */
#include <math.h>

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/vector.h"

/* ---- Layer norm. ---- */

typedef struct Moments {
    float first, second;
} Moments;

/* The sums over the row of x - shift and of its square, in four independent chains each, to hide
 * latency. Lanes beyond the row's end are left out. */
INLINE Moments row_moments(const void *x, Dtype dtype, int64_t n, float shift) {
    Vec a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        Vec d0 = vec_get(x, dtype, i, LANES) - shift;
        Vec d1 = vec_get(x, dtype, i + LANES, LANES) - shift;
        Vec d2 = vec_get(x, dtype, i + 2 * LANES, LANES) - shift;
        Vec d3 = vec_get(x, dtype, i + 3 * LANES, LANES) - shift;
        a0 += d0, a1 += d1, a2 += d2, a3 += d3;
        b0 += d0 * d0, b1 += d1 * d1, b2 += d2 * d2, b3 += d3 * d3;
    }
    for (; i < n; i += LANES) {
        Vec d = vec_get(x, dtype, i, n - i) - shift;
        if (n - i < LANES) d = (Vec)((VecInt)d & (vec_lane_numbers() < (int)(n - i)));
        a0 += d;
        b0 += d * d;
    }
    return (Moments){vec_sum((a0 + a2) + (a1 + a3)), vec_sum((b0 + b2) + (b1 + b3))};
}

typedef struct Norm {
    const float *w, *b;
    float mean, scale;
} Norm;

INLINE void norm_vector(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, const void *x,
                        Dtype x_dtype, const Norm *norm, int64_t i, int64_t count) {
    Vec v = (vec_get(x, x_dtype, i, count) - norm->mean) * norm->scale;
    if (norm->b)
        v = v * vec_get(norm->w, DTYPE_F32, i, count) + vec_get(norm->b, DTYPE_F32, i, count);
    else
        v = v * vec_get(norm->w, DTYPE_F32, i, count);
    vec_put(y, y_dtype, i, count, v);
    if (copy) vec_put(copy, copy_dtype, i, count, v);
}

/* The row is read three times, the last two from the cache. The second pass, around the first one's
 * mean, gives the variance, and its sum of deviations corrects the mean's rounding error, which
 * matters if the mean is far from 0. */
INLINE void layernorm(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                      const void *x, Dtype x_dtype, const float *w, const float *b, float eps,
                      int64_t n) {
    float about = row_moments(x, x_dtype, n, 0).first / (float)n;
    Moments m = row_moments(x, x_dtype, n, about);
    float rest = m.first / (float)n, variance = (m.second - rest * m.first) / (float)n;
    Norm norm = {w, b, about + rest, 1 / sqrtf(variance + eps)};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        norm_vector(y, y_dtype, copy, copy_dtype, x, x_dtype, &norm, i, LANES);
    if (i < n) norm_vector(y, y_dtype, copy, copy_dtype, x, x_dtype, &norm, i, n - i);
    if (stats) stats[0] = norm.mean, stats[1] = norm.scale;
}

void ISA_NAME(layernorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                             const void *x, Dtype x_dtype, const float *w, const float *b,
                             float eps, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (x_dtype == f && y_dtype == f)
        layernorm(y, f, copy, copy_dtype, stats, x, f, w, b, eps, n);
    else if (x_dtype == f)
        layernorm(y, h, copy, copy_dtype, stats, x, f, w, b, eps, n);
    else if (y_dtype == f)
        layernorm(y, f, copy, copy_dtype, stats, x, h, w, b, eps, n);
    else
        layernorm(y, h, copy, copy_dtype, stats, x, h, w, b, eps, n);
}

/* ---- RMS norm. ---- */

INLINE void rms_vector(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, const void *x,
                       Dtype x_dtype, const float *w, float scale, int64_t i, int64_t count) {
    Vec v = vec_get(x, x_dtype, i, count) * scale * vec_get(w, DTYPE_F32, i, count);
    vec_put(y, y_dtype, i, count, v);
    if (copy) vec_put(copy, copy_dtype, i, count, v);
}

INLINE void rmsnorm(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                    const void *x, Dtype x_dtype, const float *w, float eps, int64_t n) {
    const float scale = 1 / sqrtf(row_moments(x, x_dtype, n, 0).second / (float)n + eps);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        rms_vector(y, y_dtype, copy, copy_dtype, x, x_dtype, w, scale, i, LANES);
    if (i < n) rms_vector(y, y_dtype, copy, copy_dtype, x, x_dtype, w, scale, i, n - i);
    if (stats) stats[0] = 0, stats[1] = scale;
}

void ISA_NAME(rmsnorm_row)(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                           const void *x, Dtype x_dtype, const float *w, float eps, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (x_dtype == f && y_dtype == f)
        rmsnorm(y, f, copy, copy_dtype, stats, x, f, w, eps, n);
    else if (x_dtype == f)
        rmsnorm(y, h, copy, copy_dtype, stats, x, f, w, eps, n);
    else if (y_dtype == f)
        rmsnorm(y, f, copy, copy_dtype, stats, x, h, w, eps, n);
    else
        rmsnorm(y, h, copy, copy_dtype, stats, x, h, w, eps, n);
}

/* ---- Rotary positions. ---- */

INLINE void turn(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, const float *turns,
                 float sign, int64_t at, int64_t half) {
    for (int64_t i = 0; i < half; i += LANES) {
        const int64_t count = half - i;
        const Vec c = vec_get(turns, DTYPE_F32, i, count),
                  s = sign * vec_get(turns, DTYPE_F32, half + i, count);
        const Vec a = vec_get(x, x_dtype, at + i, count),
                  b = vec_get(x, x_dtype, at + half + i, count);
        vec_put(y, y_dtype, at + i, count, a * c - b * s);
        vec_put(y, y_dtype, at + half + i, count, b * c + a * s);
    }
}

void ISA_NAME(rotary_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, const float *turns,
                          bool back, int64_t heads, int64_t width) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    const float sign = back ? -1 : 1;
    for (int64_t at = 0; at < heads * width; at += width) {
        if (x_dtype == f && y_dtype == f)
            turn(y, f, x, f, turns, sign, at, width / 2);
        else if (x_dtype == h && y_dtype == h)
            turn(y, h, x, h, turns, sign, at, width / 2);
        else
            turn(y, y_dtype, x, x_dtype, turns, sign, at, width / 2);
    }
}

/* ---- Conversion. ---- */

INLINE void convert(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) vec_put(y, y_dtype, i, LANES, vec_get(x, x_dtype, i, LANES));
    if (i < n) vec_put(y, y_dtype, i, n - i, vec_get(x, x_dtype, i, n - i));
}

INLINE void convert_from(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n) {
    switch (y_dtype) {
    case DTYPE_F32:
        convert(y, DTYPE_F32, x, x_dtype, n);
        break;
    case DTYPE_BF16:
        convert(y, DTYPE_BF16, x, x_dtype, n);
        break;
    default:
        convert(y, DTYPE_F16, x, x_dtype, n);
        break;
    }
}

void ISA_NAME(convert_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n) {
    if (y_dtype == x_dtype) {
        memmove(y, x, (size_t)n * (x_dtype == DTYPE_F32 ? 4 : 2));
        return;
    }
    switch (x_dtype) {
    case DTYPE_F32:
        convert_from(y, y_dtype, x, DTYPE_F32, n);
        break;
    case DTYPE_BF16:
        convert_from(y, y_dtype, x, DTYPE_BF16, n);
        break;
    default:
        convert_from(y, y_dtype, x, DTYPE_F16, n);
        break;
    }
}

/* ---- Sums of rows. ---- */

/* Values summed at a time, in a buffer that stays in the L1 cache. */
enum { PIECE = 512 };

/* Column `first` of a row. */
static const void *row_at(const void *row, Dtype dtype, int64_t first) {
    return (const char *)row + first * (dtype == DTYPE_F32 ? 4 : dtype == DTYPE_I8 ? 1 : 2);
}

INLINE void add_as(float *sum, const void *x, Dtype dtype, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(sum + i, vec_load(sum + i) + vec_get(x, dtype, i, LANES));
    if (i < n) vec_store(sum + i, vec_load(sum + i) + vec_get(x, dtype, i, n - i));
}

/* sum += x; the first row is copied instead, so that a single row keeps its bits (-0). `sum` holds
 * whole vectors. */
static void row_add(float *sum, const void *x, Dtype dtype, int64_t n, bool first) {
    if (first)
        ISA_NAME(convert_row)(sum, DTYPE_F32, x, dtype, n);
    else if (dtype == DTYPE_F32)
        add_as(sum, x, DTYPE_F32, n);
    else if (dtype == DTYPE_BF16)
        add_as(sum, x, DTYPE_BF16, n);
    else
        add_as(sum, x, DTYPE_F16, n);
}

void ISA_NAME(sum_rows)(void *y, Dtype y_dtype, const void *const *rows, const Dtype *dtypes,
                        const float *scales, int count, int64_t n) {
    for (int64_t i = 0; i < n; i += PIECE) {
        float sum[PIECE] = {0};
        int64_t m = n - i < PIECE ? n - i : PIECE;
        bool first = true;
        for (int k = 0; k < count; k++) {
            if (!rows[k]) continue;
            const void *row = row_at(rows[k], dtypes[k], i);
            float values[PIECE];
            if (dtypes[k] == DTYPE_I8) {
                ISA_NAME(dequantize_row)(values, DTYPE_F32, row, scales[k], m);
                row_add(sum, values, DTYPE_F32, m, first);
            } else {
                row_add(sum, row, dtypes[k], m, first);
            }
            first = false;
        }
        ISA_NAME(convert_row)
        ((char *)y + i * (y_dtype == DTYPE_F32 ? 4 : 2), y_dtype, sum, DTYPE_F32, m);
    }
}

void ISA_NAME(mean_rows)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t ld,
                         int64_t rows, int64_t n) {
    for (int64_t i = 0; i < n; i += PIECE) {
        float sum[PIECE] = {0};
        int64_t m = n - i < PIECE ? n - i : PIECE;
        for (int64_t r = 0; r < rows; r++)
            row_add(sum, row_at(x, x_dtype, r * ld + i), x_dtype, m, r == 0);
        for (int64_t k = 0; k < m; k++) sum[k] /= (float)rows;
        ISA_NAME(convert_row)
        ((char *)y + i * (y_dtype == DTYPE_F32 ? 4 : 2), y_dtype, sum, DTYPE_F32, m);
    }
}
