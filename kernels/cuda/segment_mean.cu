#include "kernels/cuda/values.cuh"

enum { MEAN_WARPS = 16, MEAN_N = 4, MEAN_COLUMNS = 32 * MEAN_N };

/* y[s] = mean of the segment's rows. One block for each segment and 128 columns: there may be only
 * one segment, whose rows its 16 warps divide, since the time is a chain of read latencies. Warp w
 * sums rows w, w + 16, ...; then the warps' sums are added in order: the result depends on the
 * segment's rows alone. */
template <typename Y, typename X, bool ALIGNED>
__global__ void __launch_bounds__(32 * MEAN_WARPS)
    segment_mean_kernel(Y *y, const X *x, const int32_t *begin, int d) {
    __shared__ float parts[MEAN_WARPS][MEAN_N][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int first = (int)blockIdx.y * MEAN_COLUMNS + lane * MEAN_N;
    const int32_t start = begin[blockIdx.x], end = begin[blockIdx.x + 1];
    float sum[MEAN_N] = {0};
#pragma unroll 4
    for (int32_t r = start + warp; r < end; r += MEAN_WARPS) {
        float v[MEAN_N];
        columns_read<ALIGNED, MEAN_N>(v, x + (int64_t)r * d, first, d);
#pragma unroll
        for (int i = 0; i < MEAN_N; i++) sum[i] += v[i];
    }
#pragma unroll
    for (int i = 0; i < MEAN_N; i++) parts[warp][i][lane] = sum[i];
    __syncthreads();
    if (warp != 0) return;
    for (int w = 1; w < MEAN_WARPS; w++)
#pragma unroll
        for (int i = 0; i < MEAN_N; i++) sum[i] += parts[w][i][lane];
#pragma unroll
    for (int i = 0; i < MEAN_N; i++) sum[i] /= (float)(end - start);
    columns_write<ALIGNED, MEAN_N>(y + (int64_t)blockIdx.x * d, sum, first, d);
}

enum { SPREAD_THREADS = 128 };

/* The segment of a row, or -1. begin[0] ... begin[segments] are ascending. */
static __device__ int segment_of(const int32_t *begin, int segments, int64_t row) {
    if (row < begin[0] || row >= begin[segments]) return -1;
    int low = 0, high = segments; /* begin[low] <= row < begin[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (begin[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* dx of a row is dy of its segment divided by the segment's rows, or 0 outside of all segments. One
 * block for each row and its next columns; all its threads search for the same segment. Bound by
 * writing dx. */
template <typename DX, typename DY>
__global__ void __launch_bounds__(SPREAD_THREADS)
    segment_spread_kernel(DX *dx, const DY *dy, const int32_t *begin, int segments, int d,
                          bool aligned) {
    enum { N = ValuesWide<DX, DY>::COUNT };
    const int64_t row = blockIdx.x;
    const int s = segment_of(begin, segments, row);
    const float factor = s < 0 ? 0.0f : 1 / (float)(begin[s + 1] - begin[s]);
    for (int first = ((int)blockIdx.y * SPREAD_THREADS + (int)threadIdx.x) * N; first < d;
         first += (int)gridDim.y * SPREAD_THREADS * N) {
        float v[N] = {0};
        if (s >= 0) values_get(v, dy + (int64_t)s * d + first, d - first, aligned);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= factor;
        values_put(dx + row * d + first, v, d - first, aligned);
    }
}

template <typename Y, typename X>
static int mean_launch(Device *device, Tensor y, Tensor x, const int32_t *begin, int segments,
                       Error *err) {
    const int d = (int)x.shape[1];
    const bool aligned = d % MEAN_N == 0 && values_aligned(x, MEAN_N) && values_aligned(y, MEAN_N);
    const dim3 grid((unsigned)segments, cuda_blocks(d, MEAN_COLUMNS, INT32_MAX));
    WITH_FLAG(ALIGNED, aligned,
              LAUNCH(device, (segment_mean_kernel<Y, X, ALIGNED>), grid, 32 * MEAN_WARPS, 0, err,
                     (Y *)y.data, (const X *)x.data, begin, d));
    return 0;
}

template <typename DX, typename DY>
static int spread_launch(Device *device, Tensor dx, Tensor dy, const int32_t *begin, int segments,
                         Error *err) {
    enum { N = ValuesWide<DX, DY>::COUNT };
    const int d = (int)dx.shape[1];
    const bool aligned = d % N == 0 && values_aligned(dx, N) && values_aligned(dy, N);
    const dim3 grid((unsigned)dx.shape[0], cuda_blocks(d, SPREAD_THREADS * N, 65535));
    LAUNCH(device, (segment_spread_kernel<DX, DY>), grid, SPREAD_THREADS, 0, err, (DX *)dx.data,
           (const DY *)dy.data, begin, segments, d, aligned);
    return 0;
}

static int send_offsets(Device *device, const int32_t **sent, const int32_t *begin, int segments,
                        Error *err) {
    const void *memory;
    TRY(cuda_host_copy(device, &cuda_state(device)->offsets, &memory, begin,
                       ((size_t)segments + 1) * sizeof *begin, err));
    *sent = (const int32_t *)memory;
    return 0;
}

int cuda_segment_mean_forward(Device *device, Tensor y, Tensor x, const int32_t *begin,
                              int segments, Error *err) {
    const int32_t *sent;
    TRY(send_offsets(device, &sent, begin, segments, err));
    WITH_TYPE(Y, y.dtype,
              WITH_TYPE(X, x.dtype, return mean_launch<Y, X>(device, y, x, sent, segments, err)));
    return 0;
}

int cuda_segment_mean_backward(Device *device, Tensor dx, Tensor dy, const int32_t *begin,
                               int segments, Error *err) {
    if (segments == 0) {
        CUDA_TRY(cudaMemsetAsync(dx.data, 0, tensor_bytes(dx), cuda_state(device)->stream), err);
        return 0;
    }
    const int32_t *sent;
    TRY(send_offsets(device, &sent, begin, segments, err));
    WITH_TYPE(
        DX, dx.dtype,
        WITH_TYPE(DY, dy.dtype, return spread_launch<DX, DY>(device, dx, dy, sent, segments, err)));
    return 0;
}
