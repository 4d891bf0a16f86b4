/* elementwise.cuh - y = f(x), value by value. Private to kernels/cuda/.
 *
 * Memory-bound: each byte is read and written once. A thread takes 16 bytes of the wider type, so
 * that a warp accesses 256 or 512 contiguous bytes; with 2048 threads on a multiprocessor, 32 KiB
 * are in flight, more than the memory's bandwidth times its latency. y may be x: a thread writes
 * only values that no other reads.
 */
#ifndef EASYFIRST_KERNELS_CUDA_ELEMENTWISE_CUH
#define EASYFIRST_KERNELS_CUDA_ELEMENTWISE_CUH

#include "kernels/cuda/values.cuh"

enum { ELEMENTWISE_THREADS = 256 };

/* The number of blocks for n values. */
static inline unsigned elementwise_blocks(int64_t n, int per_thread) {
    return cuda_blocks(n, (int64_t)ELEMENTWISE_THREADS * per_thread, INT32_MAX);
}

/* The index of a thread's first value. */
static __device__ __forceinline__ int64_t elementwise_first(int per_thread) {
    return ((int64_t)blockIdx.x * ELEMENTWISE_THREADS + threadIdx.x) * per_thread;
}

template <typename Y, typename X, typename F>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS)
    elementwise_kernel(Y *y, const X *x, int64_t n, bool aligned, F f) {
    enum { N = ValuesWide<Y, X>::COUNT };
    const int64_t first = elementwise_first(N);
    if (first >= n) return;
    float v[N];
    values_get(v, x + first, n - first, aligned);
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = f(v[i]);
    values_put(y + first, v, n - first, aligned);
}

template <typename Y, typename X, typename F>
static int elementwise_launch(Device *device, Tensor y, Tensor x, F f, Error *err) {
    enum { N = ValuesWide<Y, X>::COUNT };
    const int64_t n = tensor_count(x);
    LAUNCH(device, (elementwise_kernel<Y, X, F>), elementwise_blocks(n, N), ELEMENTWISE_THREADS, 0,
           err, (Y *)y.data, (const X *)x.data, n, values_aligned(x, N) && values_aligned(y, N), f);
    return 0;
}

/* y and x are f32 or bf16, without gaps; f has `__device__ float operator()(float) const`. */
template <typename F> static int elementwise(Device *device, Tensor y, Tensor x, F f, Error *err) {
    WITH_TYPE(Y, y.dtype,
              WITH_TYPE(X, x.dtype, return elementwise_launch<Y, X>(device, y, x, f, err)));
    return 0;
}

#endif
