#include "kernels/cuda/values.cuh"

#include <string.h>

/* Converts one value, or copies its bits if the types are the same. NaN keeps its sign also in
 * bf16, as on the CPU; the hardware's conversion has a single NaN. */
template <typename Y, typename X> static __device__ __forceinline__ void value_convert(Y *y, X x) {
    from_f32(y, to_f32(x));
}
static __device__ __forceinline__ void value_convert(bf16 *y, float x) {
    const uint16_t nan_bits = (uint16_t)((__float_as_uint(x) >> 16) | 0x40);
    from_f32(y, x);
    if (isnan(x)) memcpy(y, &nan_bits, sizeof nan_bits);
}
template <typename T> static __device__ __forceinline__ void value_convert(T *y, T x) {
    *y = x;
}

enum { CONVERT_THREADS = 256 };

/* Memory-bound. A thread converts N values of a row, 16 bytes of the wider type; a block is one of
 * the `pieces` of a row, so that only the block's index is divided. */
template <typename Y, typename X>
__global__ void __launch_bounds__(CONVERT_THREADS)
    convert_kernel(Y *y, int64_t y_ld, const X *x, int64_t x_ld, int64_t n, unsigned pieces,
                   bool aligned) {
    enum { N = ValuesWide<Y, X>::COUNT };
    const unsigned row = blockIdx.x / pieces, piece = blockIdx.x % pieces;
    const int64_t first = ((int64_t)piece * blockDim.x + threadIdx.x) * N;
    const X *from = x + row * x_ld + first;
    Y *to = y + row * y_ld + first;
    if (aligned && first + N <= n) {
        const Values<X, N> in = *reinterpret_cast<const Values<X, N> *>(from);
        Values<Y, N> out;
#pragma unroll
        for (int i = 0; i < N; i++) value_convert(&out.v[i], in.v[i]);
        *reinterpret_cast<Values<Y, N> *>(to) = out;
        return;
    }
    for (int i = 0; i < N && first + i < n; i++) value_convert(&to[i], from[i]);
}

static bool has_gaps(Tensor t) {
    return t.ndim > 1 && t.ld != t.shape[t.ndim - 1] && tensor_row_count(t) > 1;
}

template <typename Y, typename X>
static int convert_launch(Device *device, Tensor y, Tensor x, Error *err) {
    enum { N = ValuesWide<Y, X>::COUNT };
    /* Tensors without gaps are one row. */
    const bool flat = !has_gaps(x) && !has_gaps(y);
    const int64_t rows = flat ? 1 : tensor_row_count(x), n = tensor_count(x) / rows;
    const int64_t y_ld = flat ? 0 : y.ld, x_ld = flat ? 0 : x.ld;
    const bool aligned =
        values_aligned(x, N) && values_aligned(y, N) && x_ld % N == 0 && y_ld % N == 0;
    const int64_t lanes = (n + N - 1) / N;
    const unsigned threads = block_threads_for(lanes, CONVERT_THREADS);
    const unsigned pieces = cuda_blocks(lanes, threads, INT32_MAX);
    if (rows > INT32_MAX / pieces)
        return error_set(err, "convert_forward: %lld rows of %lld values are too many for a GPU",
                         (long long)rows, (long long)n);
    LAUNCH(device, (convert_kernel<Y, X>), (unsigned)rows * pieces, threads, 0, err, (Y *)y.data,
           y_ld, (const X *)x.data, x_ld, n, pieces, aligned);
    return 0;
}

template <typename Y> static int convert_to(Device *device, Tensor y, Tensor x, Error *err) {
    switch (x.dtype) {
    case DTYPE_F32:
        return convert_launch<Y, float>(device, y, x, err);
    case DTYPE_BF16:
        return convert_launch<Y, bf16>(device, y, x, err);
    default:
        return convert_launch<Y, f16>(device, y, x, err);
    }
}

int cuda_convert_forward(Device *device, Tensor y, Tensor x, Error *err) {
    switch (y.dtype) {
    case DTYPE_F32:
        return convert_to<float>(device, y, x, err);
    case DTYPE_BF16:
        return convert_to<bf16>(device, y, x, err);
    default:
        return convert_to<f16>(device, y, x, err);
    }
}
