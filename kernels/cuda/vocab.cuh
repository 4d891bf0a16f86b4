/* vocab.cuh - shared by the operations over a vocabulary: reductions of a block that scans the
 * logits of a row. Private to kernels/cuda/.
 *
 * Logits of some rows and a chunk of the vocabulary are written to the workspace by a matmul, in
 * f32, and read from there: a chunk is small enough that most of them stay in the L2 cache (50 MB
 * on H100, 40 MB on A100), whose bandwidth is about twice that of the memory.
 */
#ifndef EASYFIRST_KERNELS_CUDA_VOCAB_CUH
#define EASYFIRST_KERNELS_CUDA_VOCAB_CUH

#include "kernels/cuda/pack.h"
#include "kernels/cuda/values.cuh"

enum { SCAN_THREADS = 256, SCAN_WARPS = SCAN_THREADS / 32 };

static inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The columns of a chunk of a vocabulary whose logits for `rows` rows take `bytes`: as many slices
 * of `slice` ids as fit, at least one, with chunks of about equal size. */
static inline int64_t chunk_columns(int64_t bytes, int64_t rows, int64_t vocabulary,
                                    int64_t slice) {
    const int64_t slices = (vocabulary + slice - 1) / slice;
    int64_t most = bytes / ((int64_t)sizeof(float) * rows * slice);
    if (most < 1) most = 1;
    const int64_t chunks = (slices + most - 1) / most;
    return (slices + chunks - 1) / chunks * slice;
}

/* Allocates from the workspace, aligned to 256. With `base` NULL it only counts. */
static inline void *carve(char *base, size_t *used, size_t bytes) {
    void *at = base ? base + *used : NULL;
    *used += (bytes + 255) / 256 * 256;
    return at;
}

/* Over all threads of a block of SCAN_THREADS; each gets the result. Ignores NaN. */
static __device__ __forceinline__ float block_largest(float v) {
    __shared__ float parts[SCAN_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_max(v);
    __syncthreads(); /* the previous reduction's parts may still be read */
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    return warp_max(parts[lane % SCAN_WARPS]);
}

static __device__ __forceinline__ double warp_sum_f64(double v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

static __device__ __forceinline__ double block_sum_f64(double v) {
    __shared__ double parts[SCAN_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_sum_f64(v);
    __syncthreads(); /* as above */
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    return warp_sum_f64(lane < SCAN_WARPS ? parts[lane] : 0.0);
}

/* Adds a sum of exponentials relative to `other_max` to one relative to *max. Either maximum may be
 * -inf, where sums are 0 or NaN, or +inf, where they are NaN. */
static __device__ __forceinline__ void softmax_merge(float *max, double *sum, float other_max,
                                                     double other_sum) {
    const float larger = fmaxf(*max, other_max);
    const double own = *max == larger ? 1.0 : exp((double)*max - larger);
    const double others = other_max == larger ? 1.0 : exp((double)other_max - larger);
    *sum = *sum * own + other_sum * others;
    *max = larger;
}

#endif
