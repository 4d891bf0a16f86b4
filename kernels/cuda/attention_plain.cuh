/* attention_plain.cuh - matmuls of tiles in f32 without tensor cores. Private to kernels/cuda/.
 *
 * A block has 128 threads, as 8 by 16: thread (ty, tx) computes rows ty R ... and columns 4 tx ...
 * of a tile's result. Both operands are in shared memory, with a line for each index that is summed
 * over. For R = 8 a step is 32 multiply-adds for three reads of 16 bytes, which are broadcast to
 * the 16 or 2 threads that read the same: four cycles of shared memory for eight, on Ampere
 * sixteen, of arithmetic in a warp.
 */
#ifndef EASYFIRST_KERNELS_CUDA_ATTENTION_PLAIN_CUH
#define EASYFIRST_KERNELS_CUDA_ATTENTION_PLAIN_CUH

#include "kernels/cuda/attention.cuh"

enum {
    PLAIN_THREADS = 128,
    PLAIN_LINE = 68,             /* floats of a line: 64, and 4 of padding against bank conflicts */
    PLAIN_DEPTH = 32,            /* of the heads' width at a time, for scores */
    PLAIN_COLUMNS = 64,          /* of the heads' width at a time, for sums over keys or rows */
    PLAIN_TILE = 64 * PLAIN_LINE /* floats */
};

static __device__ __forceinline__ int plain_tx() {
    return threadIdx.x % 16;
}
static __device__ __forceinline__ int plain_ty() {
    return threadIdx.x / 16;
}

template <int R>
static __device__ __forceinline__ void line_read(float (&to)[R], const float *from) {
    enum { N = R < 4 ? R : 4 };
#pragma unroll
    for (int i = 0; i < R; i += N) {
        float part[N];
        values_read(part, from + i);
#pragma unroll
        for (int j = 0; j < N; j++) to[i + j] = part[j];
    }
}

/* sums[i][j] += the sum over k < depth of a[k][ty R + i] b[k][4 tx + j]. */
template <int R>
static __device__ __forceinline__ void plain_multiply(float (&sums)[R][4], const float *a,
                                                      const float *b, int depth) {
    a += plain_ty() * R, b += plain_tx() * 4;
#pragma unroll 2
    for (int k = 0; k < depth; k++) {
        float x[R], y[4];
        line_read(x, a + k * PLAIN_LINE);
        line_read(y, b + k * PLAIN_LINE);
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][j] = __fmaf_rn(x[i], y[j], sums[i][j]);
    }
}

/* Columns [first, first + PLAIN_DEPTH) of a head that begins at `column` and is `width` wide, of
 * the matrix rows table[0 .. ROWS): to[depth][row]; zeros for negative rows and beyond the head.
 * Adjacent threads have adjacent rows, which avoids bank conflicts; a thread's consecutive reads of
 * global memory hit the L1 cache. */
template <typename T, int ROWS>
static __device__ __forceinline__ void plain_load_turned(float *to, const HeadMatrix &m,
                                                         const int *table, int64_t column,
                                                         int first, int width) {
    const int r = threadIdx.x % ROWS, row = table[r];
#pragma unroll
    for (int d = threadIdx.x / ROWS * 4; d < PLAIN_DEPTH; d += PLAIN_THREADS / ROWS * 4) {
        float v[4] = {0, 0, 0, 0};
        if (row >= 0)
            values_get(v, head_at<T>(m, row, column + first + d), width - first - d, m.aligned);
#pragma unroll
        for (int i = 0; i < 4; i++) to[(d + i) * PLAIN_LINE + r] = v[i];
    }
}

/* Columns [first, first + 64) of 64 rows: to[row][column]. */
template <typename T>
static __device__ __forceinline__ void plain_load(float *to, const HeadMatrix &m, const int *table,
                                                  int64_t column, int first, int width) {
    const int c = plain_tx() * 4;
#pragma unroll
    for (int r = plain_ty(); r < 64; r += 8) {
        const int row = table[r];
        float v[4] = {0, 0, 0, 0};
        if (row >= 0)
            values_get(v, head_at<T>(m, row, column + first + c), width - first - c, m.aligned);
        values_write(to + r * PLAIN_LINE + c, v);
    }
}

/* sums += x y^T over the heads' whole width: R * 8 rows of x, 64 of y, each from its column on. `memory` holds a tile.
 * Begins and ends with a barrier. */
template <typename T, int R>
static __device__ __forceinline__ void
plain_scores(float (&sums)[R][4], float *memory, const HeadMatrix &x, const int *x_rows,
             const HeadMatrix &y, const int *y_rows, int64_t column, int64_t y_column, int width) {
    float *turned = memory + PLAIN_DEPTH * PLAIN_LINE;
    __syncthreads();
    for (int d = 0; d < width; d += PLAIN_DEPTH) {
        plain_load_turned<T, R * 8>(memory, x, x_rows, column, d, width);
        plain_load_turned<T, 64>(turned, y, y_rows, y_column, d, width);
        __syncthreads();
        plain_multiply<R>(sums, memory, turned, width - d < PLAIN_DEPTH ? width - d : PLAIN_DEPTH);
        __syncthreads();
    }
}

/* Over the 16 threads that share rows. */
static __device__ __forceinline__ float plain_row_sum(float v) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}
static __device__ __forceinline__ float plain_row_max(float v) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2)
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

/* The rows of the keys from `place` on, or of an item's queries; -1 for missing ones. */
static __device__ __forceinline__ void plain_key_rows(int *table, const AttentionItem &item,
                                                      int place) {
    if (threadIdx.x < 64)
        table[threadIdx.x] =
            place + (int)threadIdx.x < item.keys ? (int)key_row(item, place + threadIdx.x) : -1;
}
static __device__ __forceinline__ void plain_rows(int *table, int first, int rows) {
    if (threadIdx.x < 64)
        table[threadIdx.x] = (int)threadIdx.x < rows ? first + (int)threadIdx.x : -1;
}

/* The number of parts of a head's width, computed by separate blocks. */
static inline unsigned plain_groups(int width, int chunks) {
    return (unsigned)((width + chunks * PLAIN_COLUMNS - 1) / (chunks * PLAIN_COLUMNS));
}

#endif
