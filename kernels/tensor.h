/* tensor.h - a view of values in memory: address, type and shape.
 *
 * A Tensor owns nothing and is passed by value. Rows are the last dimension and are contiguous;
 * `ld` is the distance between rows in elements, larger than the row only in column slices of a
 * matrix (tensor_columns). Tensors of more than two dimensions are contiguous.
 */
#ifndef EASYFIRST_KERNELS_TENSOR_H
#define EASYFIRST_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum Dtype {
    DTYPE_NONE = 0, /* also: a type in a file that this program does not support */
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_COUNT
} Dtype;

size_t dtype_size(Dtype dtype);      /* bytes of one element; 0 for DTYPE_NONE */
const char *dtype_name(Dtype dtype); /* "f32", "bf16", ... */

/* What arithmetic and files of weights can be asked for: "auto", "f32", "bf16", the words of
 * DTYPE_NONE, DTYPE_F32 and DTYPE_BF16. */
extern const char *const dtype_choices[];

bool dtype_is_float(Dtype dtype); /* f32, bf16 or f16: what parameters may be stored in */

enum { TENSOR_MAX_DIMS = 8 };

/* A matrix in the layout that a device's matmul reads fastest; private to the device. */
struct Packed;

/* Of a weight of which only some rows are in memory at a time (kernels/parts.h). */
struct TensorParts;

typedef struct Tensor {
    void *data; /* NULL: no tensor (an omitted optional argument) */
    Dtype dtype;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    int64_t ld;                  /* elements from one row to the next */
    const float *scale;          /* weights of i8 only, one for each index of the first dimension: a
                                    value is its integer times this */
    const struct Packed *packed; /* weights only: the same values in the device's layout */
    float *grad; /* weights in training only: their accumulated gradient, f32, of the weight's shape
                    without gaps; NULL: frozen */
    const struct TensorParts *parts; /* weights in training only: `data` and `grad` have one part of
                                        the rows at a time; NULL: all rows */
} Tensor;

#ifdef __cplusplus
#define TENSOR_NONE (Tensor{})
#else
#define TENSOR_NONE ((Tensor){0})
#endif

Tensor tensor_1d(void *data, Dtype dtype, int64_t n);
Tensor tensor_2d(void *data, Dtype dtype, int64_t rows, int64_t columns);
Tensor tensor_nd(void *data, Dtype dtype, int ndim, const int64_t *shape);

/* Rows [first, first + count) of a matrix, with their scales, and columns likewise; views, nothing is copied. A view
 * of a weight is of its plain values only, without pack and gradient. */
Tensor tensor_rows(Tensor t, int64_t first, int64_t count);
Tensor tensor_columns(Tensor t, int64_t first, int64_t count);

static inline bool tensor_present(Tensor t) {
    return t.data != NULL || t.packed != NULL;
}

/* The gradient of a weight as a tensor: no tensor where it is frozen. */
static inline Tensor tensor_grad(Tensor w) {
    return w.grad ? tensor_nd(w.grad, DTYPE_F32, w.ndim, w.shape) : TENSOR_NONE;
}

int64_t tensor_count(Tensor t);     /* elements; 1 for a scalar (ndim 0) */
int64_t tensor_row_count(Tensor t); /* product of all dimensions but the last */
size_t tensor_bytes(Tensor t);      /* of the values, without gaps between rows */
bool tensor_same_shape(Tensor a, Tensor b);
void shape_text(char *out, size_t size, int ndim, const int64_t *shape); /* "[2, 3]" */

/* Conversions of n elements between f32, bf16 (round to nearest even, NaN kept) and f16. `from`
 * and `to` may not overlap. Integers and f64 convert to f32 only; false if the pair is unknown. */
bool values_convert(void *to, Dtype to_dtype, const void *from, Dtype from_dtype, size_t n);

static inline float bf16_to_f32(uint16_t v) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)v << 16};
    return x.f;
}

static inline uint16_t f32_to_bf16(float v) {
    union {
        float f;
        uint32_t u;
    } x = {v};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((x.u >> 16) | 0x40); /* quiet NaN */
    return (uint16_t)((x.u + 0x7fffu + ((x.u >> 16) & 1)) >> 16);
}

/* Stochastic rounding: up, away from 0, if what rounding down would lose and 16 random bits (the
 * lower ones of `bits`) together are 1 or more. */
static inline uint16_t f32_to_bf16_with(float v, uint32_t bits) {
    union {
        float f;
        uint32_t u;
    } x = {v};
    if ((x.u & 0x7f800000u) != 0x7f800000u)
        x.u += bits & 0xffffu;
    else if (x.u & 0x007fffffu)
        x.u |= 0x00400000u; /* quiet NaN */
    return (uint16_t)(x.u >> 16);
}

#endif
