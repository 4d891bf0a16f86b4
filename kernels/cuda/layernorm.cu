/* Layer norm and RMS norm, the most frequent kernel after matmuls. Memory-bound: a row is read once, into
 * registers, and written once; mean and variance take two passes over the registers.
 *
 * Rows of up to 1024 values belong to a warp, whose sums need no barrier: 32 values for each lane.
 * Longer ones belong to a block, 16 values a thread. This and the order of all sums depend on the
 * row's length alone: a row's result depends neither on the number of rows nor on their alignment.
 */
#include "kernels/cuda/values.cuh"

enum {
    WARP_VALUES = 32, /* of a row for each lane of a warp */
    BLOCK_VALUES = 16,
    WARP_ROW = 32 * WARP_VALUES, /* the longest row of a warp, and of a block */
    BLOCK_THREADS = 512,
    BLOCK_ROW = BLOCK_THREADS * BLOCK_VALUES
};

/* A thread's share of a row of types A and B: COUNT vectors of N values. */
template <typename A, typename B, bool WARP> struct Share {
    enum {
        N = ValuesWide<A, B>::COUNT,
        COUNT = (WARP ? WARP_VALUES : BLOCK_VALUES) / N,
        VALUES = N * COUNT
    };
};

/* A thread among those that share a row. */
struct Lane {
    int number, threads;
};
template <bool WARP> static __device__ __forceinline__ Lane lane_here() {
    const Lane lane = {WARP ? (int)threadIdx.x % 32 : (int)threadIdx.x,
                       WARP ? 32 : (int)blockDim.x};
    return lane;
}

/* The column of the lane's vector k. */
template <int N> static __device__ __forceinline__ int column_of(Lane lane, int k) {
    return (k * lane.threads + lane.number) * N;
}

/* Loads a lane's share of a row: all reads are issued before the first is used. */
template <bool ALIGNED, int N, int COUNT, typename T>
static __device__ __forceinline__ void row_read(float (&to)[COUNT * N], const T *row, int d,
                                                Lane lane) {
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        columns_read<ALIGNED, N>(to + k * N, row, column_of<N>(lane, k), d);
}
template <bool ALIGNED, int N, int COUNT>
static __device__ __forceinline__ void row_read_as(float (&to)[COUNT * N], const void *matrix,
                                                   Dtype dtype, int64_t row, int d, Lane lane) {
    if (dtype == DTYPE_F32)
        row_read<ALIGNED, N, COUNT>(to, static_cast<const float *>(matrix) + row * d, d, lane);
    else
        row_read<ALIGNED, N, COUNT>(to, static_cast<const bf16 *>(matrix) + row * d, d, lane);
}
template <bool ALIGNED, int N, int COUNT>
static __device__ __forceinline__ void row_write_as(void *matrix, Dtype dtype, int64_t row, int d,
                                                    const float (&from)[COUNT * N], Lane lane) {
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        const int at = column_of<N>(lane, k);
        if (dtype == DTYPE_F32)
            columns_write<ALIGNED, N>(static_cast<float *>(matrix) + row * d, from + k * N, at, d);
        else
            columns_write<ALIGNED, N>(static_cast<bf16 *>(matrix) + row * d, from + k * N, at, d);
    }
}

template <bool WARP> static __device__ __forceinline__ float row_sum(float v, float2 *parts) {
    return WARP ? warp_sum(v) : block_sum(v, reinterpret_cast<float *>(parts));
}
template <bool WARP> static __device__ __forceinline__ void row_sum2(float (&v)[2], float2 *parts) {
    if (WARP)
        warp_sum2(v);
    else
        block_sum2(v, parts);
}

/* Threads of a block for a row of d values. */
static unsigned row_threads(int d) {
    return block_threads_for((d + BLOCK_VALUES - 1) / BLOCK_VALUES, BLOCK_THREADS);
}

static int check_size(const char *op, Tensor x, Error *err) {
    if (x.shape[0] <= INT32_MAX && x.shape[1] <= INT32_MAX / 8) return 0;
    return error_set(err, "%s: %lld rows of %lld values are too many for a GPU", op,
                     (long long)x.shape[0], (long long)x.shape[1]);
}

/* ---- Forward. b may be NULL. An RMS norm is not centered: it is about 0 instead of the mean. ---- */

struct Norm {
    void *y, *copy;
    float *stats;
    const void *x;
    const float *w, *b;
    int64_t rows;
    int d;
    float eps;
    bool centered;
    Dtype y_dtype, x_dtype, copy_dtype; /* copy: NONE without one */
};

/* From a first mean, and the sums of the deviations from it and of their squares. The first sum
 * corrects the mean's rounding error, which matters if the mean is far from 0. */
struct Moments {
    float mean, scale; /* scale: 1 / deviation */
};
static __device__ __forceinline__ Moments moments_of(float mean, const float (&about)[2],
                                                     const Norm &a) {
    const float rest = a.centered ? about[0] / (float)a.d : 0,
                variance = (about[1] - rest * about[0]) / (float)a.d;
    const Moments m = {mean + rest, 1 / sqrtf(variance + a.eps)};
    return m;
}
static __device__ __forceinline__ void stats_write(const Norm &a, int64_t row, Moments m) {
    if (a.stats) a.stats[2 * row] = m.mean, a.stats[2 * row + 1] = m.scale;
}

/* y may be x: a row is in registers before any of it is written, and each value is written by the
 * thread that has read it. w and b are loaded before the reductions: with few rows, the time is a
 * chain of memory latencies. */
template <typename X, bool ALIGNED, bool WARP>
__global__ void __launch_bounds__(WARP ? 128 : BLOCK_THREADS, WARP &&ALIGNED ? 4 : 1)
    layernorm_kernel(Norm a) {
    enum { N = Share<X, X, WARP>::N, COUNT = Share<X, X, WARP>::COUNT, VALUES = N * COUNT };
    __shared__ float2 parts[32];
    const Lane lane = lane_here<WARP>();
    const int64_t row =
        WARP ? (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32 : (int64_t)blockIdx.x;
    if (WARP && row >= a.rows) return;
    float v[VALUES], w[VALUES], b[VALUES], sum = 0, about[2] = {0, 0};
    row_read<ALIGNED, N, COUNT>(v, static_cast<const X *>(a.x) + row * a.d, a.d, lane);
    row_read<ALIGNED, N, COUNT>(w, a.w, a.d, lane);
#pragma unroll
    for (int i = 0; i < VALUES; i++) b[i] = 0;
    if (a.b) row_read<ALIGNED, N, COUNT>(b, a.b, a.d, lane);
#pragma unroll
    for (int i = 0; i < VALUES; i++) sum += v[i];
    const float mean = a.centered ? row_sum<WARP>(sum, parts) / (float)a.d : 0;
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
        const bool there = column_of<N>(lane, i / N) + (ALIGNED ? 0 : i % N) < a.d;
        const float distance = there ? v[i] - mean : 0.0f;
        about[0] += distance;
        about[1] += distance * distance;
    }
    row_sum2<WARP>(about, parts);
    const Moments m = moments_of(mean, about, a);
    if (lane.number == 0) stats_write(a, row, m);
#pragma unroll
    for (int i = 0; i < VALUES; i++) v[i] = (v[i] - m.mean) * m.scale * w[i] + b[i];
    row_write_as<ALIGNED, N, COUNT>(a.y, a.y_dtype, row, a.d, v, lane);
    if (a.copy_dtype != DTYPE_NONE)
        row_write_as<ALIGNED, N, COUNT>(a.copy, a.copy_dtype, row, a.d, v, lane);
}

/* One value of a matrix of either type. */
static __device__ __forceinline__ float value_read(const void *matrix, Dtype dtype, int64_t at) {
    return dtype == DTYPE_F32 ? static_cast<const float *>(matrix)[at]
                              : to_f32(static_cast<const bf16 *>(matrix)[at]);
}
static __device__ __forceinline__ void value_write(void *matrix, Dtype dtype, int64_t at, float v) {
    const float one[1] = {v};
    values_put_as(matrix, dtype, at, one, 1, false);
}

/* Rows too long for the registers of a block, which no model has: read three times. */
__global__ void __launch_bounds__(BLOCK_THREADS) layernorm_long_kernel(Norm a) {
    __shared__ float2 parts[32];
    const int64_t start = (int64_t)blockIdx.x * a.d;
    const int first = (int)threadIdx.x, step = (int)blockDim.x;
    float sum = 0, about[2] = {0, 0};
    for (int i = first; a.centered && i < a.d; i += step)
        sum += value_read(a.x, a.x_dtype, start + i);
    const float mean = a.centered ? row_sum<false>(sum, parts) / (float)a.d : 0;
    for (int i = first; i < a.d; i += step) {
        const float distance = value_read(a.x, a.x_dtype, start + i) - mean;
        about[0] += distance;
        about[1] += distance * distance;
    }
    row_sum2<false>(about, parts);
    const Moments m = moments_of(mean, about, a);
    if (first == 0) stats_write(a, blockIdx.x, m);
    for (int i = first; i < a.d; i += step) {
        const float n = (value_read(a.x, a.x_dtype, start + i) - m.mean) * m.scale;
        const float v = n * a.w[i] + (a.b ? a.b[i] : 0.0f);
        value_write(a.y, a.y_dtype, start + i, v);
        if (a.copy_dtype != DTYPE_NONE) value_write(a.copy, a.copy_dtype, start + i, v);
    }
}

template <typename X, bool ALIGNED>
static int forward_launch(Device *device, const Norm &a, Error *err) {
    if (a.d > WARP_ROW) {
        LAUNCH(device, (layernorm_kernel<X, ALIGNED, false>), (unsigned)a.rows, row_threads(a.d), 0,
               err, a);
        return 0;
    }
    /* Few rows are spread over all multiprocessors, one warp a block. */
    const int64_t some = 8 * (int64_t)cuda_state(device)->properties.multiProcessorCount;
    const int warps = a.rows > some ? 4 : 1;
    LAUNCH(device, (layernorm_kernel<X, ALIGNED, true>), cuda_blocks(a.rows, warps, INT32_MAX),
           (unsigned)(32 * warps), 0, err, a);
    return 0;
}

/* b may be TENSOR_NONE; `centered`: not an RMS norm. */
static int norm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                        Tensor b, float eps, bool centered, Error *err) {
    Norm a = {};
    a.centered = centered;
    a.y = y.data, a.copy = copy.data, a.stats = (float *)stats.data, a.x = x.data;
    a.w = (const float *)w.data, a.b = (const float *)b.data;
    a.rows = x.shape[0], a.d = (int)x.shape[1], a.eps = eps;
    a.y_dtype = y.dtype, a.x_dtype = x.dtype, a.copy_dtype = copy.data ? copy.dtype : DTYPE_NONE;
    if (a.d > BLOCK_ROW) {
        LAUNCH(device, layernorm_long_kernel, (unsigned)a.rows, BLOCK_THREADS, 0, err, a);
        return 0;
    }
    const int n = x.dtype == DTYPE_F32 ? 4 : 8; /* of a vector */
    const bool aligned = a.d % n == 0 && values_aligned(x, n) && values_aligned(y, n) &&
                         values_aligned(copy, n) && values_aligned(w, n) && values_aligned(b, n);
    WITH_FLAG(ALIGNED, aligned,
              WITH_TYPE(X, x.dtype, return (forward_launch<X, ALIGNED>)(device, a, err)));
    return 0;
}

int cuda_layernorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                           Tensor b, float eps, Error *err) {
    TRY(check_size("layernorm_forward", x, err));
    return norm_forward(device, y, copy, stats, x, w, b, eps, true, err);
}

int cuda_rmsnorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                         float eps, Error *err) {
    TRY(check_size("rmsnorm_forward", x, err));
    return norm_forward(device, y, copy, stats, x, w, TENSOR_NONE, eps, false, err);
}

/* ---- Backward. With n = (x - mean) / deviation and g = dy w:
 * dx = (g - mean(g) - n mean(g n)) / deviation, dw = sum of dy n, db = sum of dy. For an RMS norm,
 * whose stats have the mean 0, the same without mean(g).
 *
 * One kernel reads x and dy once for all three. Its threads keep their columns from row to row, so
 * that the sums for dw and db are in registers until the last row; the blocks' sums, at most a few
 * hundred, are then added up by a second kernel, in the order of the blocks. ---- */

enum { BACKWARD_WARPS = 4 };

struct NormBackward {
    void *dx; /* NULL: not computed */
    const void *dy, *x;
    const float *w, *stats;
    float *sums; /* [blocks][2][d], of dw and db; NULL: not computed */
    int64_t rows;
    int d;
    Dtype dx_dtype, dy_dtype, x_dtype;
    bool accumulate, centered; /* centered: not an RMS norm */
};

/* Adds the column sums of a block's warps, one warp after another; the last one writes the
 * total. */
template <bool ALIGNED, int N, int COUNT, bool WARP>
static __device__ __forceinline__ void sums_write(float *to, float (&sum)[COUNT * N],
                                                  float (*shared)[32], int d, Lane lane) {
    const int warp = (int)threadIdx.x / 32;
    for (int turn = 0; WARP && turn < BACKWARD_WARPS; turn++) {
        if (turn == warp && turn > 0) {
#pragma unroll
            for (int i = 0; i < COUNT * N; i++) sum[i] = shared[i][lane.number] + sum[i];
        }
        if (turn == warp && turn < BACKWARD_WARPS - 1) {
#pragma unroll
            for (int i = 0; i < COUNT * N; i++) shared[i][lane.number] = sum[i];
        }
        __syncthreads(); /* before the next warp reads, and before the next call writes */
    }
    if (WARP && warp != BACKWARD_WARPS - 1) return;
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        columns_write<ALIGNED, N>(to, sum + k * N, column_of<N>(lane, k), d);
}

/* dx may be dy: a row of it is in registers before any is written. A lane of a warp that has a row
 * holds 32 values of x, of dy and of each sum, some 160 registers in all: 12 warps on a
 * multiprocessor, with 50 to 100 KB in flight, which is enough. w is in the L1 cache. */
template <typename DY, typename X, bool ALIGNED, bool WARP>
__global__ void __launch_bounds__(WARP ? 32 * BACKWARD_WARPS : BLOCK_THREADS, !WARP     ? 1
                                                                              : ALIGNED ? 3
                                                                                        : 2)
    layernorm_backward_kernel(NormBackward a) {
    enum { N = Share<DY, X, WARP>::N, COUNT = Share<DY, X, WARP>::COUNT, VALUES = N * COUNT };
    __shared__ float2 parts[32];
    __shared__ float shared[WARP ? VALUES : 1][32];
    const Lane lane = lane_here<WARP>();
    const int own = WARP ? (int)threadIdx.x / 32 : 0, rows_of_block = WARP ? BACKWARD_WARPS : 1;
    float sum_w[VALUES] = {0}, sum_b[VALUES] = {0};
    for (int64_t row = (int64_t)blockIdx.x * rows_of_block + own; row < a.rows;
         row += (int64_t)gridDim.x * rows_of_block) {
        float g[VALUES], n[VALUES], means[2] = {0, 0};
        row_read<ALIGNED, N, COUNT>(g, static_cast<const DY *>(a.dy) + row * a.d, a.d, lane);
        row_read<ALIGNED, N, COUNT>(n, static_cast<const X *>(a.x) + row * a.d, a.d, lane);
        const float mean = a.stats[2 * row], scale = a.stats[2 * row + 1];
#pragma unroll
        for (int i = 0; i < VALUES; i++) {
            n[i] = (n[i] - mean) * scale;
            sum_w[i] += g[i] * n[i];
            sum_b[i] += g[i];
        }
        if (!a.dx) continue;
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
            float w[N];
            columns_read<ALIGNED, N>(w, a.w, column_of<N>(lane, k), a.d);
#pragma unroll
            for (int i = k * N; i < k * N + N; i++) {
                g[i] *= w[i - k * N];
                means[0] += g[i];
                means[1] += g[i] * n[i];
            }
        }
        row_sum2<WARP>(means, parts);
        means[0] = a.centered ? means[0] / (float)a.d : 0, means[1] /= (float)a.d;
#pragma unroll
        for (int i = 0; i < VALUES; i++) g[i] = (g[i] - means[0] - n[i] * means[1]) * scale;
        if (a.accumulate) {
            row_read_as<ALIGNED, N, COUNT>(n, a.dx, a.dx_dtype, row, a.d, lane);
#pragma unroll
            for (int i = 0; i < VALUES; i++) g[i] += n[i];
        }
        row_write_as<ALIGNED, N, COUNT>(a.dx, a.dx_dtype, row, a.d, g, lane);
    }
    if (!a.sums) return;
    float *to = a.sums + (int64_t)blockIdx.x * 2 * a.d;
    sums_write<ALIGNED, N, COUNT, WARP>(to, sum_w, shared, a.d, lane);
    sums_write<ALIGNED, N, COUNT, WARP>(to + a.d, sum_b, shared, a.d, lane);
}

/* Rows too long for the registers of a block: with the sums in memory. */
__global__ void __launch_bounds__(BLOCK_THREADS) layernorm_backward_long_kernel(NormBackward a) {
    __shared__ float2 parts[32];
    const int first = (int)threadIdx.x, step = (int)blockDim.x;
    float *sum_w = a.sums + (int64_t)blockIdx.x * 2 * a.d, *sum_b = sum_w + a.d;
    for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
        const float mean = a.stats[2 * row], scale = a.stats[2 * row + 1];
        const bool fresh = row == blockIdx.x; /* the sums are uninitialized */
        float means[2] = {0, 0};
        for (int i = first; i < a.d; i += step) {
            const float g = value_read(a.dy, a.dy_dtype, row * a.d + i);
            const float n = (value_read(a.x, a.x_dtype, row * a.d + i) - mean) * scale;
            if (a.sums) sum_w[i] = (fresh ? 0 : sum_w[i]) + g * n;
            if (a.sums) sum_b[i] = (fresh ? 0 : sum_b[i]) + g;
            means[0] += g * a.w[i];
            means[1] += g * a.w[i] * n;
        }
        if (!a.dx) continue;
        row_sum2<false>(means, parts);
        means[0] = a.centered ? means[0] / (float)a.d : 0, means[1] /= (float)a.d;
        for (int i = first; i < a.d; i += step) {
            const float g = value_read(a.dy, a.dy_dtype, row * a.d + i) * a.w[i];
            const float n = (value_read(a.x, a.x_dtype, row * a.d + i) - mean) * scale;
            float v = (g - means[0] - n * means[1]) * scale;
            if (a.accumulate) v += value_read(a.dx, a.dx_dtype, row * a.d + i);
            value_write(a.dx, a.dx_dtype, row * a.d + i, v);
        }
    }
}

/* dw and db from the blocks' sums. 32 columns a block, whose warps divide the sums: there are few
 * columns, and the time is a chain of read latencies. dw and db may be the same vector: the same
 * thread adds to both. */
__global__ void __launch_bounds__(1024)
    layernorm_sums_kernel(float *dw, float *db, const float *sums, int blocks, int d) {
    __shared__ float parts[2][32][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int column = (int)blockIdx.x * 32 + lane;
    float w = 0, b = 0;
#pragma unroll 4
    for (int i = warp; i < blocks && column < d; i += 32) {
        w += sums[(int64_t)(2 * i) * d + column];
        b += sums[(int64_t)(2 * i + 1) * d + column];
    }
    parts[0][warp][lane] = w, parts[1][warp][lane] = b;
    __syncthreads();
    if (warp != 0 || column >= d) return;
#pragma unroll
    for (int i = 1; i < 32; i++) w += parts[0][i][lane], b += parts[1][i][lane];
    if (dw) dw[column] += w;
    if (db) db[column] += b;
}

template <typename DY, typename X, bool ALIGNED>
static int backward_launch(Device *device, unsigned blocks, const NormBackward &a, Error *err) {
    if (a.d > WARP_ROW)
        LAUNCH(device, (layernorm_backward_kernel<DY, X, ALIGNED, false>), blocks, row_threads(a.d),
               0, err, a);
    else
        LAUNCH(device, (layernorm_backward_kernel<DY, X, ALIGNED, true>), blocks,
               32 * BACKWARD_WARPS, 0, err, a);
    return 0;
}

/* As many blocks as run at once: each has a sum for each column, so more would only add work.
 * Registers allow 12 warps on a multiprocessor, or 16 that share rows. */
static unsigned backward_blocks(Device *device, int64_t rows, int d) {
    const int64_t multiprocessors = cuda_state(device)->properties.multiProcessorCount;
    if (d <= WARP_ROW) return cuda_blocks(rows, BACKWARD_WARPS, 3 * multiprocessors);
    return cuda_blocks(rows, 1, multiprocessors * (512 / row_threads(d)));
}

static int derivatives_launch(Device *device, unsigned blocks, const NormBackward &a, bool aligned,
                              Error *err) {
    if (a.d > BLOCK_ROW) {
        LAUNCH(device, layernorm_backward_long_kernel, blocks, BLOCK_THREADS, 0, err, a);
        return 0;
    }
    WITH_FLAG(
        ALIGNED, aligned,
        WITH_TYPE(DY, a.dy_dtype,
                  WITH_TYPE(X, a.x_dtype,
                            return (backward_launch<DY, X, ALIGNED>)(device, blocks, a, err))));
    return 0;
}

static int norm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                         Tensor w, Tensor stats, bool accumulate_dx, bool centered, Error *err) {
    NormBackward a = {};
    a.centered = centered;
    a.dx = dx.data, a.dy = dy.data, a.x = x.data;
    a.w = (const float *)w.data, a.stats = (const float *)stats.data;
    a.rows = x.shape[0], a.d = (int)x.shape[1];
    a.dx_dtype = dx.dtype, a.dy_dtype = dy.dtype, a.x_dtype = x.dtype, a.accumulate = accumulate_dx;
    const unsigned blocks = backward_blocks(device, a.rows, a.d);
    const bool sums = dw.data || db.data;
    if (!sums && !a.dx) return 0;
    if (sums) {
        void *memory;
        TRY(cuda_workspace(device, &memory, (size_t)blocks * 2 * (size_t)a.d * sizeof(float), err));
        a.sums = (float *)memory;
    }
    const int n = dy.dtype == DTYPE_F32 || x.dtype == DTYPE_F32 ? 4 : 8; /* of a vector */
    const bool aligned = a.d % n == 0 && values_aligned(dx, n) && values_aligned(dy, n) &&
                         values_aligned(x, n) && values_aligned(w, n);
    TRY(derivatives_launch(device, blocks, a, aligned, err));
    if (sums)
        LAUNCH(device, layernorm_sums_kernel, cuda_blocks(a.d, 32, INT32_MAX), 1024, 0, err,
               (float *)dw.data, (float *)db.data, a.sums, (int)blocks, a.d);
    return 0;
}

int cuda_layernorm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                            Tensor w, Tensor stats, bool accumulate_dx, Error *err) {
    TRY(check_size("layernorm_backward", x, err));
    return norm_backward(device, dx, dw, db, dy, x, w, stats, accumulate_dx, true, err);
}

int cuda_rmsnorm_backward(Device *device, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                          Tensor stats, bool accumulate_dx, Error *err) {
    TRY(check_size("rmsnorm_backward", x, err));
    return norm_backward(device, dx, dw, TENSOR_NONE, dy, x, w, stats, accumulate_dx, false, err);
}
