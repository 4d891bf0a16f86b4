#include "kernels/cuda/values.cuh"

/* Blocks of the sum, on any GPU: its bits depend on the values alone. On the largest GPUs all run
 * at once, eight a multiprocessor. */
enum { SUM_THREADS = 256, SUM_BLOCKS = 1024 };

static __device__ __forceinline__ double warp_sum_f64(double v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

/* sums[block] = the sum over the block's share. Memory-bound if f64 has half of f32's rate; with a
 * 64th, one conversion and one multiplication for 4 bytes still almost keep up. */
template <typename X>
__global__ void __launch_bounds__(SUM_THREADS)
    square_sum_kernel(double *sums, const X *x, int64_t n, bool aligned) {
    enum { N = ValuesWide<X, X>::COUNT, WARPS = SUM_THREADS / 32 };
    __shared__ double parts[WARPS];
    const int64_t stride = (int64_t)gridDim.x * SUM_THREADS * N;
    double sum = 0;
    for (int64_t i = ((int64_t)blockIdx.x * SUM_THREADS + threadIdx.x) * N; i < n; i += stride) {
        float v[N];
        values_get(v, x + i, n - i, aligned);
#pragma unroll
        for (int j = 0; j < N; j++) sum += (double)v[j] * (double)v[j];
    }
    sum = warp_sum_f64(sum);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < WARPS; w++) sum += parts[w];
    sums[blockIdx.x] = sum;
}

template <typename X>
static int square_sum_launch(Device *device, double *sums, unsigned blocks, Tensor x, Error *err) {
    enum { N = ValuesWide<X, X>::COUNT };
    LAUNCH(device, square_sum_kernel<X>, blocks, SUM_THREADS, 0, err, sums, (const X *)x.data,
           tensor_count(x), values_aligned(x, N));
    return 0;
}

/* The host adds the block sums, which saves a kernel. */
int cuda_square_sum(Device *device, double *sum, Tensor x, Error *err) {
    const int64_t n = tensor_count(x);
    const unsigned blocks = cuda_blocks(n, (int64_t)SUM_THREADS * 8, SUM_BLOCKS);
    const size_t bytes = blocks * sizeof(double);
    cudaStream_t stream = cuda_state(device)->stream;
    void *sums, *back;
    TRY(cuda_workspace(device, &sums, bytes, err));
    TRY(cuda_staging(device, &back, bytes, err));
    if (x.dtype == DTYPE_F32)
        TRY(square_sum_launch<float>(device, (double *)sums, blocks, x, err));
    else
        TRY(square_sum_launch<bf16>(device, (double *)sums, blocks, x, err));
    CUDA_TRY(cudaMemcpyAsync(back, sums, bytes, cudaMemcpyDefault, stream), err);
    CUDA_TRY(cudaStreamSynchronize(stream), err);
    cuda_count_down(device, bytes);
    double total = 0;
    for (unsigned i = 0; i < blocks; i++) total += ((const double *)back)[i];
    *sum = total;
    return 0;
}
