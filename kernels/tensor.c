#include "kernels/tensor.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtype_table[DTYPE_COUNT] = {
    [DTYPE_NONE] = {"unknown", 0}, [DTYPE_F32] = {"f32", 4},   [DTYPE_BF16] = {"bf16", 2},
    [DTYPE_F16] = {"f16", 2},      [DTYPE_F64] = {"f64", 8},   [DTYPE_I64] = {"i64", 8},
    [DTYPE_I32] = {"i32", 4},      [DTYPE_I16] = {"i16", 2},   [DTYPE_I8] = {"i8", 1},
    [DTYPE_U8] = {"u8", 1},        [DTYPE_BOOL] = {"bool", 1},
};

size_t dtype_size(Dtype dtype) {
    return dtype >= 0 && dtype < DTYPE_COUNT ? dtype_table[dtype].size : 0;
}

const char *const dtype_choices[] = {
    [DTYPE_NONE] = "auto", [DTYPE_F32] = "f32", [DTYPE_BF16] = "bf16", NULL};

const char *dtype_name(Dtype dtype) {
    return dtype >= 0 && dtype < DTYPE_COUNT ? dtype_table[dtype].name : "unknown";
}

bool dtype_is_float(Dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

Tensor tensor_nd(void *data, Dtype dtype, int ndim, const int64_t *shape) {
    Tensor t = {.data = data, .dtype = dtype, .ndim = ndim, .ld = 1};
    for (int i = 0; i < ndim; i++) t.shape[i] = shape[i];
    if (ndim > 0) t.ld = shape[ndim - 1];
    return t;
}

Tensor tensor_1d(void *data, Dtype dtype, int64_t n) {
    return tensor_nd(data, dtype, 1, &n);
}

Tensor tensor_2d(void *data, Dtype dtype, int64_t rows, int64_t columns) {
    return tensor_nd(data, dtype, 2, (int64_t[]){rows, columns});
}

Tensor tensor_rows(Tensor t, int64_t first, int64_t count) {
    t.data = (char *)t.data + (size_t)(first * t.ld) * dtype_size(t.dtype);
    t.shape[0] = count;
    if (t.scale) t.scale += first;
    t.packed = NULL;
    t.grad = NULL;
    t.parts = NULL;
    return t;
}

Tensor tensor_columns(Tensor t, int64_t first, int64_t count) {
    t.data = (char *)t.data + (size_t)first * dtype_size(t.dtype);
    t.shape[t.ndim - 1] = count;
    t.packed = NULL;
    t.grad = NULL;
    t.parts = NULL;
    return t;
}

int64_t tensor_count(Tensor t) {
    int64_t n = 1;
    for (int i = 0; i < t.ndim; i++) n *= t.shape[i];
    return n;
}

int64_t tensor_row_count(Tensor t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t.ndim; i++) n *= t.shape[i];
    return n;
}

size_t tensor_bytes(Tensor t) {
    return (size_t)tensor_count(t) * dtype_size(t.dtype);
}

bool tensor_same_shape(Tensor a, Tensor b) {
    if (a.ndim != b.ndim) return false;
    for (int i = 0; i < a.ndim; i++)
        if (a.shape[i] != b.shape[i]) return false;
    return true;
}

void shape_text(char *out, size_t size, int ndim, const int64_t *shape) {
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < ndim && used < size; i++)
        used +=
            (size_t)snprintf(out + used, size - used, i ? ", %lld" : "%lld", (long long)shape[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

/* IEEE half, subnormals included: the exponent is rebased by a multiplication with 2^112, which is
 * exact for normal and subnormal halves alike; infinities and NaN keep their all-ones exponent. */
static float f16_to_f32(uint16_t v) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)(v & 0x7fffu) << 13}, scale = {0x77800000u};
    if ((v & 0x7c00u) == 0x7c00u)
        x.u |= 0x7f800000u;
    else
        x.f *= scale.f;
    x.u |= (uint32_t)(v & 0x8000u) << 16;
    return x.f;
}

/* Round to nearest even, in integers: adding a magic constant would depend on the rounding mode. */
static uint16_t f32_to_f16(float v) {
    union {
        float f;
        uint32_t u;
    } x = {v};
    uint16_t sign = (uint16_t)((x.u >> 16) & 0x8000u);
    uint32_t a = x.u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds past 65504 */
    if (a >= 0x38800000u) {                                  /* a normal half */
        a -= 0x38000000u;
        return (uint16_t)(sign | ((a + 0xfffu + ((a >> 13) & 1)) >> 13));
    }
    if (a < 0x33000000u) return sign; /* below half of the smallest subnormal */
    int shift = 126 - (int)(a >> 23); /* 14..24: how far the 24-bit significand moves */
    uint32_t significand = (a & 0x7fffffu) | 0x800000u;
    uint32_t kept = significand >> shift, rest = significand & ((1u << shift) - 1);
    uint32_t half = 1u << (shift - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
    return (uint16_t)(sign | kept);
}

static bool values_to_f32(float *to, const void *from, Dtype dtype, size_t n) {
    switch (dtype) {
    case DTYPE_F32:
        memcpy(to, from, n * sizeof *to);
        return true;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) to[i] = bf16_to_f32(((const uint16_t *)from)[i]);
        return true;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) to[i] = f16_to_f32(((const uint16_t *)from)[i]);
        return true;
    case DTYPE_F64:
        for (size_t i = 0; i < n; i++) to[i] = (float)((const double *)from)[i];
        return true;
    case DTYPE_I64:
        for (size_t i = 0; i < n; i++) to[i] = (float)((const int64_t *)from)[i];
        return true;
    case DTYPE_I32:
        for (size_t i = 0; i < n; i++) to[i] = (float)((const int32_t *)from)[i];
        return true;
    default:
        return false;
    }
}

bool values_convert(void *to, Dtype to_dtype, const void *from, Dtype from_dtype, size_t n) {
    if (to_dtype == from_dtype && dtype_size(to_dtype)) {
        memcpy(to, from, n * dtype_size(to_dtype));
        return true;
    }
    if (to_dtype == DTYPE_F32) return values_to_f32(to, from, from_dtype, n);
    if (to_dtype != DTYPE_BF16 && to_dtype != DTYPE_F16) return false;
    float part[256]; /* through f32, a piece at a time */
    for (size_t done = 0; done < n;) {
        size_t m = n - done < 256 ? n - done : 256;
        if (!values_to_f32(part, (const char *)from + done * dtype_size(from_dtype), from_dtype, m))
            return false;
        uint16_t *out = (uint16_t *)to + done;
        for (size_t i = 0; i < m; i++)
            out[i] = to_dtype == DTYPE_BF16 ? f32_to_bf16(part[i]) : f32_to_f16(part[i]);
        done += m;
    }
    return true;
}
