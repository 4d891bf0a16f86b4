/* rows.c - what is done to one row of a matrix: normalise, add up, average, convert. All of it is
 * bound by memory; the types are constants in the inner loops, so that each is a plain stream.
 */
#include <math.h>

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/vector.h"

/* ---- Layer norm. ---- */

/* The sum of (x - shift)^power over the row, power 1 or 2, in four chains of additions (one alone
 * would wait for itself). Lanes beyond the row's end are left out. */
INLINE float deviation_sum(const void *x, Dtype dtype, int64_t n, float shift, int power) {
    Vec sum[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            Vec d = vec_get(x, dtype, i + k * LANES, n) - shift;
            sum[k] += power == 2 ? d * d : d;
        }
    for (; i < n; i += LANES) {
        Vec d = vec_get(x, dtype, i, n) - shift;
        if (n - i < LANES) d = (Vec)((VecInt)d & (vec_lane_numbers() < (int)(n - i)));
        sum[0] += power == 2 ? d * d : d;
    }
    return vec_sum((sum[0] + sum[2]) + (sum[1] + sum[3]));
}

/* The row is read three times, the last two from the cache. The mean of the deviations, which is
 * what rounding left of it, corrects the mean: it matters where the mean is far from 0. */
INLINE void layernorm(void *y, Dtype y_dtype, void *copy, Dtype copy_dtype, float *stats,
                      const void *x, Dtype x_dtype, const float *w, const float *b, float eps,
                      int64_t n) {
    float mean = deviation_sum(x, x_dtype, n, 0, 1) / (float)n;
    mean += deviation_sum(x, x_dtype, n, mean, 1) / (float)n;
    float scale = 1 / sqrtf(deviation_sum(x, x_dtype, n, mean, 2) / (float)n + eps);
    for (int64_t i = 0; i < n; i += LANES) {
        Vec v = (vec_get(x, x_dtype, i, n) - mean) * scale;
        v = v * vec_get(w, DTYPE_F32, i, n) + vec_get(b, DTYPE_F32, i, n);
        vec_put(y, y_dtype, i, n, v);
        if (copy) vec_put(copy, copy_dtype, i, n, v);
    }
    if (stats) stats[0] = mean, stats[1] = scale;
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

/* ---- Conversion. ---- */

INLINE void convert(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) vec_put(y, y_dtype, i, n, vec_get(x, x_dtype, i, n));
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

/* Sums are formed a piece of a row at a time, in a buffer that stays in the first-level cache. */
enum { PIECE = 512 };

/* Column `first` of a row. */
static const void *row_at(const void *row, Dtype dtype, int64_t first) {
    return (const char *)row + first * (dtype == DTYPE_F32 ? 4 : 2);
}

INLINE void add_as(float *sum, const void *x, Dtype dtype, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        vec_store(sum + i, vec_load(sum + i) + vec_get(x, dtype, i, n));
}

/* sum += x; the first row is copied instead, so that a single row keeps its bits (-0). `sum` has
 * room for whole vectors. */
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
                        int count, int64_t n) {
    for (int64_t i = 0; i < n; i += PIECE) {
        float sum[PIECE] = {0};
        int64_t m = n - i < PIECE ? n - i : PIECE;
        bool first = true;
        for (int k = 0; k < count; k++) {
            if (!rows[k]) continue;
            row_add(sum, row_at(rows[k], dtypes[k], i), dtypes[k], m, first);
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
