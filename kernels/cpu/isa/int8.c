/* int8.c - rows of 8-bit integers: quantized, dequantized, and the sums of their products. */
#include <math.h>

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/vector.h"

/* Integers `i`, i + 1, ... of an array as floats: `count`, or a whole vector if there are more. */
INLINE Vec bytes_get(const int8_t *from, int64_t i, int64_t count) {
    VecByte b = {0};
    if (count >= LANES)
        b = *(const VecByteMemory *)(from + i);
    else
        memcpy(&b, from + i, (size_t)count);
    return __builtin_convertvector(__builtin_convertvector(b, VecInt), Vec);
}

/* a - b */
INLINE Vec differences_get(const int32_t *a, const int32_t *b, int64_t i, int64_t count) {
    VecInt v = {0}, w = {0};
    if (count >= LANES) {
        v = *(const VecIntMemory *)(a + i), w = *(const VecIntMemory *)(b + i);
    } else {
        memcpy(&v, a + i, (size_t)count * sizeof *a);
        memcpy(&w, b + i, (size_t)count * sizeof *b);
    }
    return __builtin_convertvector(v - w, Vec);
}

/* ---- Quantization. ---- */

/* The largest magnitude; NaN if a value is NaN, whose difference from itself is. */
INLINE float largest(const void *x, Dtype dtype, int64_t n) {
    Vec most = {0}, wrong = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Vec v = vec_get(x, dtype, i, LANES);
        most = vec_max(vec_abs(v), most);
        wrong += v - v;
    }
    if (i < n) {
        Vec v = vec_get(x, dtype, i, n - i);
        most = vec_max(vec_abs(v), most);
        wrong += v - v;
    }
    return vec_largest(most) + vec_sum(wrong);
}

/* Adding 1.5 * 2^23, at which a float's last place is 1, rounds to the nearest integer, the low
 * bits of the sum. */
INLINE VecByte bytes_of(Vec v) {
    return __builtin_convertvector((VecInt)(v + 0x1.8p23f) + (128 - 0x4b400000), VecByte);
}

INLINE void quantize(uint8_t *y, const void *x, Dtype dtype, float factor, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        *(VecByteMemory *)(y + i) = bytes_of(vec_get(x, dtype, i, LANES) * factor);
    if (i == n) return;
    VecByte last = bytes_of(vec_get(x, dtype, i, n - i) * factor);
    memcpy(y + i, &last, (size_t)(n - i));
}

float ISA_NAME(quantize_row)(uint8_t *y, const void *x, Dtype x_dtype, int64_t n) {
    const bool f32 = x_dtype == DTYPE_F32;
    float most = f32 ? largest(x, DTYPE_F32, n) : largest(x, DTYPE_BF16, n);
    if (!isfinite(most) || most < 1e-30f) { /* below, 127 / most could be infinite */
        memset(y, 128, (size_t)n);
        return isfinite(most) ? 0 : NAN;
    }
    if (f32)
        quantize(y, x, DTYPE_F32, 127 / most, n);
    else
        quantize(y, x, DTYPE_BF16, 127 / most, n);
    return most / 127;
}

/* ---- Dequantization. ---- */

INLINE void dequantize(void *y, Dtype y_dtype, const int8_t *x, float scale, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_put(y, y_dtype, i, LANES, bytes_get(x, i, LANES) * scale);
    if (i < n) vec_put(y, y_dtype, i, n - i, bytes_get(x, i, n - i) * scale);
}

void ISA_NAME(dequantize_row)(void *y, Dtype y_dtype, const int8_t *x, float scale, int64_t n) {
    if (y_dtype == DTYPE_F32)
        dequantize(y, DTYPE_F32, x, scale, n);
    else if (y_dtype == DTYPE_BF16)
        dequantize(y, DTYPE_BF16, x, scale, n);
    else
        dequantize(y, DTYPE_F16, x, scale, n);
}

/* ---- After a matmul. ---- */

enum { PIECE = 512 }; /* values in a buffer that stays in the L1 cache */

INLINE void scale_vector(float *to, const int32_t *sums, const int32_t *zero, float x_scale,
                         const float *w_scales, const float *bias, int64_t i, int64_t count) {
    Vec v =
        differences_get(sums, zero, i, count) * (x_scale * vec_get(w_scales, DTYPE_F32, i, count));
    if (bias) v += vec_get(bias, DTYPE_F32, i, count);
    vec_store(to + i, v);
}

/* `to` holds whole vectors. */
static void scale_sums(float *to, const int32_t *sums, const int32_t *zero, float x_scale,
                       const float *w_scales, const float *bias, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        scale_vector(to, sums, zero, x_scale, w_scales, bias, i, LANES);
    if (i < n) scale_vector(to, sums, zero, x_scale, w_scales, bias, i, n - i);
}

void ISA_NAME(int8_finish_row)(void *y, Dtype y_dtype, const int32_t *sums, const int32_t *zero,
                               float x_scale, const float *w_scales, const float *bias,
                               Activation activation, bool accumulate, int64_t n) {
    float values[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        char *to = (char *)y + i * (y_dtype == DTYPE_F32 ? 4 : 2);
        scale_sums(values, sums + i, zero + i, x_scale, w_scales + i, bias ? bias + i : NULL, m);
        if (accumulate) ISA_NAME(add_row)(values, to, y_dtype, m);
        ISA_NAME(activation_row)(to, y_dtype, values, DTYPE_F32, activation, m);
    }
}
