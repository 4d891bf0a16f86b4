#include "kernels/cuda/elementwise.cuh"

#include <math.h>

/* The parameters of one call. */
struct Drop {
    uint64_t seed, stream;
    uint32_t threshold; /* a value is kept if its word >= threshold */
    float scale;
    bool draw, accumulate;
};

/* y = kept values of x, times scale, or y += that, of `count` values from `first`, at most N. y may
 * be x. N values are N / 4 whole Philox blocks, whose forty multiplications each take less time
 * than the memory accesses. Multiplication and addition are not fused, to give the CPU's bits. */
template <int N, typename Y, typename X>
static __device__ __forceinline__ void values_drop(Y *y, const X *x, int64_t first, int64_t count,
                                                   bool aligned, const Drop &drop) {
    float v[N], sum[N];
    uint32_t word[N] = {0};
    values_get(v, x + first, count, aligned);
    if (drop.accumulate) values_get(sum, y + first, count, aligned);
    if (drop.draw) {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            philox(word + i, drop.seed, drop.stream, (uint64_t)(first + i) / 4);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = word[i] >= drop.threshold ? __fmul_rn(v[i], drop.scale) : 0.0f;
        if (drop.accumulate) v[i] = __fadd_rn(v[i], sum[i]);
    }
    values_put(y + first, v, count, aligned);
}

template <typename Y, typename X>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS)
    dropout_kernel(Y *y, const X *x, int64_t n, bool aligned, Drop drop) {
    enum { N = ValuesWide<Y, X>::COUNT };
    const int64_t first = elementwise_first(N), count = n - first;
    if (count <= 0) return;
    if (aligned && count >= N) /* as constants: without branches between the reads */
        values_drop<N>(y, x, first, N, true, drop);
    else
        values_drop<N>(y, x, first, count, false, drop);
}

template <typename Y, typename X>
static int dropout_launch(Device *device, Tensor y, Tensor x, const Drop &drop, Error *err) {
    enum { N = ValuesWide<Y, X>::COUNT };
    const int64_t n = tensor_count(x);
    const bool aligned = values_aligned(x, N) && values_aligned(y, N);
    LAUNCH(device, (dropout_kernel<Y, X>), elementwise_blocks(n, N), ELEMENTWISE_THREADS, 0, err,
           (Y *)y.data, (const X *)x.data, n, aligned, drop);
    return 0;
}

int cuda_dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout, bool accumulate,
                         Error *err) {
    if (dropout.p == 0 && !accumulate)
        return y.data == x.data ? 0 : cuda_convert_forward(device, y, x, err);
    Drop drop = {dropout.seed, dropout.stream, 0, 1 / (1 - dropout.p), dropout.p > 0, accumulate};
    /* (word + 0.5) / 2^32 >= p in integers. Exact: p has 24 bits, and scaling by a power of two and
     * subtracting one half (unless p 2^32 is smaller) fit a double. With p = 0 nothing is drawn:
     * all words are 0, as the threshold is, and the scale is 1. */
    drop.threshold = (uint32_t)fmax(ceil((double)dropout.p * 0x1p32 - 0.5), 0);
    WITH_TYPE(Y, y.dtype,
              WITH_TYPE(X, x.dtype, return dropout_launch<Y, X>(device, y, x, drop, err)));
    return 0;
}
