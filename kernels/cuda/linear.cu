/* Linear layers: matmuls by cuBLASLt, and what it cannot do.
 *
 * Without an activation the bias is added by cuBLASLt's epilogue, which costs nothing; with bf16
 * results it needs a bf16 bias, which a pack stores and which is converted on each call for a plain
 * weight, whose bias a training step may have changed: a few thousand values, some 2 us. With an
 * activation the matmul is written without bias, and one pass over it adds the bias in f32 and
 * applies the activation in place: cuBLASLt's gelu is the tanh approximation, and it does not have
 * CLIP's quick gelu.
 *
 * That pass is memory-bound: T N values read and written once, 16 bytes at a time; at its start the
 * end of the matmul's result is still in the L2 cache. bf16 results are rounded before the
 * activation too, as in PyTorch; f32 in between would move two thirds more bytes.
 */
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/replay.h"

/* ---- Bias and activation. ---- */

/* Threads of a block: 128 of 8 columns divide the widths of feed-forward layers (3072, 4096). */
enum { PASS_THREADS = 128 };

/* A thread keeps the bias of its N columns in registers and loops over the rows. */
template <typename T, int N, Activation A>
__global__ void __launch_bounds__(PASS_THREADS)
    bias_activation_kernel(T *y, int64_t ld, const float *bias, int64_t rows, int64_t columns) {
    const int64_t column = ((int64_t)blockIdx.x * PASS_THREADS + threadIdx.x) * N;
    if (column >= columns) return;
    float b[N];
#pragma unroll
    for (int i = 0; i < N; i++) b[i] = bias ? bias[column + i] : 0.0f;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        T *at = y + r * ld + column;
        float v[N];
        values_read<N>(v, at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = activate(v[i] + b[i], A);
        values_write<N>(at, v);
    }
}

template <typename T, int N>
static int bias_activation_run(Device *device, Tensor y, const float *bias, Activation activation,
                               Error *err) {
    T *data = (T *)y.data;
    const int64_t rows = y.shape[0], columns = y.shape[1], ld = y.ld;
    const unsigned across = cuda_blocks(columns, PASS_THREADS * N, INT32_MAX);
    /* 16 blocks fill an SM's threads. */
    const int64_t blocks = 16 * (int64_t)cuda_state(device)->properties.multiProcessorCount;
    const dim3 grid(across, cuda_blocks(rows, 1, blocks / across + 1));
#define ACTIVATION_CASE(A)                                                                      \
    case A:                                                                                     \
        LAUNCH(device, (bias_activation_kernel<T, N, A>), grid, PASS_THREADS, 0, err, data, ld, \
               bias, rows, columns);                                                            \
        break
    switch (activation) {
        ACTIVATION_CASE(ACTIVATION_GELU);
        ACTIVATION_CASE(ACTIVATION_QUICK_GELU);
        ACTIVATION_CASE(ACTIVATION_RELU);
        ACTIVATION_CASE(ACTIVATION_TANH);
        ACTIVATION_CASE(ACTIVATION_SILU);
    default:
        break;
    }
#undef ACTIVATION_CASE
    return 0;
}

static int bias_activation(Device *device, Tensor y, const float *bias, Activation activation,
                           Error *err) {
    const int n = 16 / (int)dtype_size(y.dtype);
    const bool wide = y.shape[1] % n == 0 && rows_aligned(y, n);
    if (y.dtype == DTYPE_BF16)
        return wide ? bias_activation_run<bf16, 8>(device, y, bias, activation, err)
                    : bias_activation_run<bf16, 1>(device, y, bias, activation, err);
    return wide ? bias_activation_run<float, 4>(device, y, bias, activation, err)
                : bias_activation_run<float, 1>(device, y, bias, activation, err);
}

/* ---- Forward. ---- */

static int bias_narrow(Device *device, void *to, Tensor b, Error *err) {
    Tensor from = tensor_2d(b.data, DTYPE_F32, 1, b.shape[0]);
    return cuda_convert_forward(device, tensor_2d(to, DTYPE_BF16, 1, b.shape[0]), from, err);
}

/* The bias in y's type, for the epilogue. */
static int bias_of_type(Device *device, const void **bias, Tensor y, Tensor w, Tensor b,
                        Error *err) {
    *bias = b.data;
    if (!b.data || y.dtype == DTYPE_F32) return 0;
    PackLayout *layout = w.packed ? pack_layout(w) : NULL;
    if (layout && layout->bias) {
        if (layout->bias_of != b.data) TRY(bias_narrow(device, layout->bias, b, err));
        if (!replay_recording(device))
            layout->bias_of = b.data; /* while recording, nothing has
                                                                    been run */
        *bias = layout->bias;
        return 0;
    }
    void *narrow;
    TRY(cuda_workspace(device, &narrow, (size_t)b.shape[0] * sizeof(bf16), err));
    *bias = narrow;
    return bias_narrow(device, narrow, b, err);
}

int cuda_linear_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b,
                        Activation activation, bool accumulate, Error *err) {
    const bool bare = activation != ACTIVATION_NONE;
    const void *bias = NULL;
    if (!bare) TRY(bias_of_type(device, &bias, y, w, b, err));
    TRY(cuda_matmul_weight(device, y, x, w, 0, w.shape[0], bias, accumulate, err));
    return bare ? bias_activation(device, y, (const float *)b.data, activation, err) : 0;
}

/* ---- Backward. ---- */

/* Column sums in f64, since thousands of rows of either sign may cancel. Each of the 8 warps of a
 * block sums every 8th of the block's rows, 512 bytes of each at a time (32 lanes of N columns), in
 * registers; then the warps' sums are added in order. Blocks divide the columns and, if those are
 * few, the rows; the next kernel adds the blocks' sums, in order. Memory-bound: dy is read once.
 * GPUs with slow f64 (32 or 64 times slower than f32) add almost as fast as they read. */
enum { SUM_WARPS = 8 };

template <typename T, int N>
__global__ void __launch_bounds__(32 * SUM_WARPS)
    column_sums_kernel(double *parts, const T *dy, int64_t ld, int64_t rows, int64_t columns) {
    __shared__ double shared[SUM_WARPS][N][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t column = ((int64_t)blockIdx.x * 32 + lane) * N;
    double sum[N] = {};
    if (column < columns) {
#pragma unroll 4
        for (int64_t r = (int64_t)blockIdx.y * SUM_WARPS + warp; r < rows;
             r += (int64_t)gridDim.y * SUM_WARPS) {
            float v[N];
            values_read<N>(v, dy + r * ld + column);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) shared[warp][i][lane] = sum[i];
    __syncthreads(); /* all warps' sums are written */
    if (warp >= N || column >= columns) return;
    for (int i = warp; i < N; i += SUM_WARPS) {
        double total = 0;
        for (int k = 0; k < SUM_WARPS; k++) total += shared[k][i][lane];
        parts[(int64_t)blockIdx.y * columns + column + i] = total;
    }
}

__global__ void column_parts_kernel(float *db, const double *parts, int count, int64_t columns) {
    const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    double sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i * columns + column];
    db[column] = (float)(db[column] + sum);
}

template <typename T, int N>
static int column_sums_run(Device *device, float *db, Tensor dy, Error *err) {
    const T *data = (const T *)dy.data;
    const int64_t rows = dy.shape[0], columns = dy.shape[1], ld = dy.ld;
    const unsigned across = cuda_blocks(columns, 32 * N, INT32_MAX);
    /* 4 blocks on each SM; a warp should have some rows to add. */
    const int64_t blocks = 4 * (int64_t)cuda_state(device)->properties.multiProcessorCount;
    const unsigned down = cuda_blocks(rows, 4 * SUM_WARPS, blocks / across + 1);
    void *memory;
    TRY(cuda_workspace(device, &memory, (size_t)down * (size_t)columns * sizeof(double), err));
    double *parts = (double *)memory;
    LAUNCH(device, (column_sums_kernel<T, N>), dim3(across, down), 32 * SUM_WARPS, 0, err, parts,
           data, ld, rows, columns);
    LAUNCH(device, column_parts_kernel, cuda_blocks(columns, 128, INT32_MAX), 128, 0, err, db,
           parts, (int)down, columns);
    return 0;
}

static int column_sums(Device *device, float *db, Tensor dy, Error *err) {
    const int n = 16 / (int)dtype_size(dy.dtype);
    const bool wide = dy.shape[1] % n == 0 && rows_aligned(dy, n);
    if (dy.dtype == DTYPE_BF16)
        return wide ? column_sums_run<bf16, 8>(device, db, dy, err)
                    : column_sums_run<bf16, 1>(device, db, dy, err);
    return wide ? column_sums_run<float, 4>(device, db, dy, err)
                : column_sums_run<float, 1>(device, db, dy, err);
}

/* For dx, w must be plain (ops.h). */
int cuda_linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                         Tensor w, bool accumulate_dx, Error *err) {
    if (dx.data)
        TRY(cuda_matmul(device, dx, operand(dy, false), operand(w, false), NULL, accumulate_dx,
                        err));
    if (dw.data)
        TRY(cuda_matmul(device, dw, operand(dy, true), operand(x, false), NULL, true, err));
    return db.data ? column_sums(device, (float *)db.data, dy, err) : 0;
}
