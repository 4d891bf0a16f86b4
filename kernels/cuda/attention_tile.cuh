/* attention_tile.cuh - building blocks of the tensor core attention kernels. Private to
 * kernels/cuda/.
 *
 * A tile in shared memory is some rows of one head, bf16, D columns wide (the head's width or the
 * next larger supported D, zero-padded), with 8 unused columns after each row: rows are then an odd
 * number of 16-byte pieces apart, so that the eight rows which ldmatrix reads at once are in
 * different banks.
 *
 * A warp takes 16 rows of queries (or, for the gradients of keys and values, of keys) at a time;
 * a lane's share of a matmul of 16 rows are two rows, g and g + 8 (mma.cuh).
 */
#ifndef EASYFIRST_KERNELS_CUDA_ATTENTION_TILE_CUH
#define EASYFIRST_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

static const float LOG2_E = 1.4426950408889634f;

/* Elements from row to row, and bytes of a tile. */
template <int D> struct Tile {
    enum { LD = D + 8 };
    static constexpr size_t bytes(int rows) {
        return sizeof(bf16) * LD * (size_t)rows;
    }
};

/* ---- Filling tiles. `thread` is one of THREADS that divide the work; asynchronous. ---- */

/* ROWS rows: matrix rows first, first + 1, ... for those below `rows`, zeros for the others. */
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void tile_copy_rows(bf16 *tile, const HeadMatrix &m,
                                                      int64_t first, int rows, int column,
                                                      int width, int thread) {
    enum { PIECES = D / 8 };
#pragma unroll
    for (int i = 0; i < ROWS * PIECES; i += THREADS) {
        const int at = i + thread, row = at / PIECES, piece = at % PIECES * 8;
        if (ROWS * PIECES % THREADS != 0 && at >= ROWS * PIECES) break;
        const bool there = row < rows && piece < width;
        copy_async<16>(tile + row * Tile<D>::LD + piece,
                       head_at<bf16>(m, first + (there ? row : 0), column + (there ? piece : 0)),
                       there);
    }
}

/* The keys from `place` on, or their values. */
template <int D, int THREADS>
static __device__ __forceinline__ void tile_copy_keys(bf16 *tile, const HeadMatrix &m,
                                                      const AttentionItem &item, int place,
                                                      int column, int width, int thread) {
    enum { PIECES = D / 8 };
#pragma unroll
    for (int i = 0; i < TILE_KEYS * PIECES; i += THREADS) {
        const int at = i + thread, row = at / PIECES, piece = at % PIECES * 8;
        const bool there = place + row < item.keys && piece < width;
        copy_async<16>(tile + row * Tile<D>::LD + piece,
                       head_at<bf16>(m, key_row(item, there ? place + row : place),
                                     column + (there ? piece : 0)),
                       there);
    }
}

/* ---- Fragments of tiles. ---- */

/* The a fragment of rows [row, row + 16) and columns [column, column + 16). */
template <int D>
static __device__ __forceinline__ void rows_fragment(uint32_t (&a)[4], const bf16 *tile, int row,
                                                     int column) {
    const int lane = threadIdx.x % 32;
    load_matrices(a, tile + (row + lane % 16) * Tile<D>::LD + column + lane / 16 * 8);
}
/* With rows as the matmul's columns, as in q k^T: b[0..1] are the b fragment of rows [row, row + 8)
 * and b[2..3] that of the next eight, of columns [column, column + 16). */
template <int D>
static __device__ __forceinline__ void columns_fragment(uint32_t (&b)[4], const bf16 *tile, int row,
                                                        int column) {
    const int lane = threadIdx.x % 32;
    load_matrices(b, tile + (row + lane / 16 * 8 + lane % 8) * Tile<D>::LD + column +
                         lane / 8 % 2 * 8);
}
/* With rows as the summed dimension, as in p v: b[0..1] are the b fragment of columns [column,
 * column + 8) and b[2..3] that of the next eight, of rows [row, row + 16). */
template <int D>
static __device__ __forceinline__ void depth_fragment(uint32_t (&b)[4], const bf16 *tile, int row,
                                                      int column) {
    const int lane = threadIdx.x % 32;
    load_matrices_turned(b, tile + (row + lane % 16) * Tile<D>::LD + column + lane / 16 * 8);
}

/* s = M times 16 rows, in fragments, times the transpose of COLUMNS rows of a tile. Each read of
 * the tile serves all M: shared memory delivers 128 bytes a cycle, all of which the tensor cores
 * need with 16 rows a warp. */
template <int D, int M, int COLUMNS>
static __device__ __forceinline__ void
tile_scores(float (&s)[M][COLUMNS / 8][4], const uint32_t (&a)[M][D / 16][4], const bf16 *tile) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            uint32_t b[4];
            columns_fragment<D>(b, tile, 8 * n, 16 * d);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(s[m][n], a[m][d], b[0], b[1]);
                mma_bf16(s[m][n + 1], a[m][d], b[2], b[3]);
            }
        }
}

/* The same with rows [row, row + 16) of another tile, whose fragments are reloaded each time to
 * save registers. */
template <int D, int COLUMNS>
static __device__ __forceinline__ void
tile_scores_between(float (&s)[1][COLUMNS / 8][4], const bf16 *rows, int row, const bf16 *tile) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) s[0][n][0] = s[0][n][1] = s[0][n][2] = s[0][n][3] = 0;
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4];
        rows_fragment<D>(a, rows, row, 16 * d);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            uint32_t b[4];
            columns_fragment<D>(b, tile, 8 * n, 16 * d);
            mma_bf16(s[0][n], a, b[0], b[1]);
            mma_bf16(s[0][n + 1], a, b[2], b[3]);
        }
    }
}

/* A matmul's result, rounded to bf16, as the a fragment of a matmul over its columns. */
template <int COLUMNS>
static __device__ __forceinline__ void tile_pack(uint32_t (&a)[COLUMNS / 16][4],
                                                 const float (&c)[COLUMNS / 8][4]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            a[n / 2][n % 2 * 2 + i] = pack_bf16(c[n][2 * i], c[n][2 * i + 1]);
}

/* sums += weights, [16, DEPTH] in fragments, times columns [column, column + COLUMNS) of a tile of
 * DEPTH rows. */
template <int D, int M, int DEPTH, int COLUMNS>
static __device__ __forceinline__ void tile_matmul(float (&sums)[M][COLUMNS / 8][4],
                                                   const uint32_t (&weights)[M][DEPTH / 16][4],
                                                   const bf16 *tile, int column) {
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            uint32_t b[4];
            depth_fragment<D>(b, tile, 16 * k, column + 8 * n);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(sums[m][n], weights[m][k], b[0], b[1]);
                mma_bf16(sums[m][n + 1], weights[m][k], b[2], b[3]);
            }
        }
}

/* The sums of all lanes that share a row. */
static __device__ __forceinline__ float row_sum(float v) {
    v += __shfl_xor_sync(FULL_WARP, v, 1);
    return v + __shfl_xor_sync(FULL_WARP, v, 2);
}
static __device__ __forceinline__ float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, 1));
    return fmaxf(v, __shfl_xor_sync(FULL_WARP, v, 2));
}

/* ---- Dropout. ---- */

/* The 64 bits of a tile's keys for the lane's two rows: bit j of keep[i] is place `place` + j of
 * row g + 8 i. For each eight keys the 16 rows need 32 Philox blocks: each lane generates one, for
 * row g + 8 (t % 2), and the lanes of a row combine them. */
struct RowBits {
    uint32_t low, high;
};
static __device__ __forceinline__ void tile_keeps(RowBits (&keep)[2], const Drop &drop, int64_t row,
                                                  int heads, int head, int place) {
    const int lane = threadIdx.x % 32, t = lane % 4;
    const uint64_t block =
        drop_block(row + lane / 4 + 8 * (t % 2), heads, head) + (uint64_t)(place / 4 + t / 2);
    RowBits own = {0, 0};
#pragma unroll 1 /* one Philox block keeps a lane busy, and its state needs registers */
    for (int n = 0; n < 8; n++) {
        const uint32_t bits = drop_keeps(drop, block + 2 * n) << (8 * (n % 4) + 4 * (t / 2));
        if (n < 4)
            own.low |= bits;
        else
            own.high |= bits;
    }
    own.low |= __shfl_xor_sync(FULL_WARP, own.low, 2);
    own.high |= __shfl_xor_sync(FULL_WARP, own.high, 2);
    const RowBits other = {__shfl_xor_sync(FULL_WARP, own.low, 1),
                           __shfl_xor_sync(FULL_WARP, own.high, 1)};
    keep[0] = t % 2 ? other : own;
    keep[1] = t % 2 ? own : other;
}

/* Whether the lane's value e (0 or 1) of columns [8 n, 8 n + 8) is kept. */
static __device__ __forceinline__ bool tile_kept(const RowBits &keep, int n, int e) {
    const uint32_t word = (n < 4 ? keep.low : keep.high) >> (2 * (threadIdx.x % 4));
    return word >> (8 * (n % 4) + e) & 1;
}

/* ---- The softmax of a tile, and the accumulation of tiles. ----
 *
 * A tile's probabilities are relative to its own largest score, and its product with the values is
 * added to the earlier tiles' afterwards: total = total * from_total + tile * from_tile. That is
 * one more multiply-add for each element of the output than accumulating in the total; in return a
 * tile's part does not depend on earlier tiles. So tiles may be computed in parallel, by the warps
 * of attention_narrow.cu, or in turn, by attention_wide.cu, with the same bits: an answer's row
 * gets the same result alone, with other rows, and in another batch.
 *
 * Scores are kept unscaled; the scale, which is positive, times log2(e) is applied with the
 * subtraction of the largest, in the exponent of 2. */

/* If all scores are -infinity, exponents are relative to 0. */
static __device__ __forceinline__ float origin_of(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
}

/* Replaces scores of the lane's two rows, with `keys` valid keys, by unnormalized probabilities;
 * the lane gets its share of their sum. NaN stays NaN, also in the sum. Row r of the 16 sees the
 * first seen + r keys. */
static __device__ __forceinline__ void tile_softmax(float (&s)[TILE_KEYS / 8][4],
                                                    float (&largest)[2], float (&sum)[2],
                                                    float scale_log2, int keys, int seen) {
    if (min(keys, seen) < TILE_KEYS) {
        const int first = threadIdx.x % 4 * 2, row = threadIdx.x % 32 / 4;
        const int own[2] = {min(keys, seen + row), min(keys, seen + row + 8)};
#pragma unroll
        for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * n + first + e % 2 >= own[e / 2]) s[n][e] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = fmaxf(s[0][2 * i], s[0][2 * i + 1]);
#pragma unroll
        for (int n = 1; n < TILE_KEYS / 8; n++)
            most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        most = row_max(most);
        const float shift = __fmul_rn(origin_of(most), scale_log2);
        float share = 0;
#pragma unroll
        for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
            for (int e = 2 * i; e < 2 * i + 2; e++) {
                s[n][e] = exp2_fast(__fmaf_rn(s[n][e], scale_log2, -shift));
                share += s[n][e];
            }
        largest[i] = most, sum[i] = share;
    }
}

/* The factors, and the new largest score of the total. */
static __device__ __forceinline__ void tile_factors(float &total_largest, float tile_largest,
                                                    float scale_log2, float *from_total,
                                                    float *from_tile) {
    const float largest = fmaxf(total_largest, tile_largest), origin = origin_of(largest);
    *from_total = exp2_fast(__fmul_rn(total_largest - origin, scale_log2));
    *from_tile = exp2_fast(__fmul_rn(tile_largest - origin, scale_log2));
    total_largest = largest;
}

static __device__ __forceinline__ float tile_join(float total, float from_total, float tile,
                                                  float from_tile) {
    return __fmaf_rn(total, from_total, __fmul_rn(tile, from_tile));
}

/* Sets dropped probabilities to 0. */
static __device__ __forceinline__ void tile_drop(float (&s)[TILE_KEYS / 8][4],
                                                 const RowBits (&keep)[2]) {
#pragma unroll
    for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!tile_kept(keep[e / 2], n, e % 2)) s[n][e] = 0;
}

/* The log-sum-exp of a row's scaled scores, whose largest before scaling is `largest`. */
static __device__ __forceinline__ float row_lse(float largest, float sum, float scale) {
    return __fmaf_rn(origin_of(largest), scale, logf(sum));
}

/* ---- Writing rows. ---- */

/* Writes 16 rows of D columns, of which `rows` and `width` exist, through shared memory that only
 * this warp uses (a tile's 16 rows), so that lanes write 16 bytes each and whole rows together. */
template <int D>
static __device__ __forceinline__ void
fragment_write(bf16 *own, const float (&c)[D / 8][4], const float (&factor)[2],
               const HeadMatrix &to, int64_t first, int rows, int column, int width) {
    enum { PIECES = D / 8 };
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    __syncwarp(); /* all lanes have read the old contents */
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<uint32_t *>(own + (g + 8 * i) * Tile<D>::LD + 8 * n + 2 * t) =
                pack_bf16(c[n][2 * i] * factor[i], c[n][2 * i + 1] * factor[i]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * PIECES; i += 32) {
        const int row = (i + lane) / PIECES, piece = (i + lane) % PIECES * 8;
        if (row < rows && piece < width)
            *reinterpret_cast<uint4 *>(head_at<bf16>(to, first + row, column + piece)) =
                *reinterpret_cast<const uint4 *>(own + row * Tile<D>::LD + piece);
    }
}

#endif
