#include "kernels/cuda/values.cuh"

/* ---- Forward. ---- */

/* A token embedding has three terms, a vision tower's two; all are passed as kernel arguments. */
enum { TERMS_MAX = 16, GATHER_N = 4, GATHER_THREADS = 256 };

struct GatherTable {
    const void *table;
    const int32_t *index;
    const float *scale; /* of each row of i8 */
    Dtype dtype;
};
struct GatherTables {
    GatherTable term[TERMS_MAX];
    int count;
};

/* sum += a row's values; the first row is copied instead, so that a single row keeps its bits
 * (-0). */
template <typename T>
static __device__ __forceinline__ void table_add(float (&sum)[GATHER_N], const void *table,
                                                 int64_t at, int count, bool aligned, bool first,
                                                 float scale = 1) {
    float v[GATHER_N];
    values_get(v, static_cast<const T *>(table) + at, count, aligned);
#pragma unroll
    for (int i = 0; i < GATHER_N; i++) sum[i] = first ? v[i] * scale : sum[i] + v[i] * scale;
}

/* One block for each row of y and, in blockIdx.y, its next columns. Memory-bound: random rows of
 * the tables, read in whole cache lines. */
template <typename Y>
__global__ void __launch_bounds__(GATHER_THREADS)
    gather_kernel(Y *y, GatherTables tables, int d, bool aligned) {
    const int first = (int)(blockIdx.y * blockDim.x + threadIdx.x) * GATHER_N;
    if (first >= d) return;
    float sum[GATHER_N] = {0};
    bool none = true;
    for (int k = 0; k < tables.count; k++) {
        const GatherTable term = tables.term[k];
        const int32_t index = term.index[blockIdx.x];
        if (index < 0) continue;
        const int64_t at = (int64_t)index * d + first;
        if (term.dtype == DTYPE_F32)
            table_add<float>(sum, term.table, at, d - first, aligned, none);
        else if (term.dtype == DTYPE_BF16)
            table_add<bf16>(sum, term.table, at, d - first, aligned, none);
        else if (term.dtype == DTYPE_I8)
            table_add<int8_t>(sum, term.table, at, d - first, aligned, none, term.scale[index]);
        else
            table_add<f16>(sum, term.table, at, d - first, aligned, none);
        none = false;
    }
    values_put(y + (int64_t)blockIdx.x * d + first, sum, d - first, aligned);
}

template <typename Y>
static int gather_launch(Device *device, Tensor y, const GatherTables &tables, bool aligned,
                         Error *err) {
    const int d = (int)y.shape[1], lanes = (d + GATHER_N - 1) / GATHER_N;
    const unsigned threads = block_threads_for(lanes, GATHER_THREADS);
    const dim3 grid((unsigned)y.shape[0], cuda_blocks(lanes, threads, INT32_MAX));
    LAUNCH(device, gather_kernel<Y>, grid, threads, 0, err, (Y *)y.data, tables, d, aligned);
    return 0;
}

int cuda_gather_forward(Device *device, Tensor y, const GatherTerm *terms, int count, Error *err) {
    if (count > TERMS_MAX)
        return error_set(err, "gather_forward: %d terms, expected at most %d", count, TERMS_MAX);
    GatherTables tables = {};
    bool aligned = y.shape[1] % GATHER_N == 0 && values_aligned(y, GATHER_N);
    tables.count = count;
    for (int i = 0; i < count; i++) {
        const GatherTable table = {terms[i].table.data, (const int32_t *)terms[i].index.data,
                                   terms[i].table.scale, terms[i].table.dtype};
        tables.term[i] = table;
        aligned = aligned && values_aligned(terms[i].table, GATHER_N);
    }
    WITH_TYPE(Y, y.dtype, return gather_launch<Y>(device, y, tables, aligned, err));
    return 0;
}

/* ---- Backward.
 *
 * Many rows may add to one row of the table: all of them in a type embedding of one row, half of an
 * answer's to <mask>. For deterministic sums, with each row of the table written once, the rows are
 * first sorted by index (stably). The sorted rows are split into pieces of 32, regardless of
 * indices, and a warp for each piece and 128 columns sums its rows index by index. Sums that begin
 * and end within the piece are added to the table at once. Those that extend into other pieces are
 * stored, at most two for each piece, and added afterwards, again in order: so all warps have equal
 * work for any distribution of indices. ---- */

enum { PIECE = 32, ORDER_WARPS = 8, PIECE_WARPS = 4, PIECE_COLUMNS = 32 * GATHER_N };

/* How many of index[from] ... index[to - 1] are below `limit`; from is a multiple of 4. The same
 * for all lanes; read four at a time, so that comparisons cost more than reads. */
static __device__ __forceinline__ int count_below(const int32_t *index, int from, int to,
                                                  int32_t limit, bool aligned) {
    int count = 0, i = from;
#pragma unroll 4
    for (; aligned && i + 4 <= to; i += 4) {
        const int4 v = *reinterpret_cast<const int4 *>(index + i);
        count += (v.x < limit) + (v.y < limit) + (v.z < limit) + (v.w < limit);
    }
    for (; i < to; i++) count += index[i] < limit;
    return count;
}

/* Sorts the rows: row[i] is the i-th, and key[i] its index. A lane has a row and counts those
 * before it: with a smaller index, or an earlier row with the same index. These T^2 comparisons,
 * 1e8 for 10,000 rows, take less than 10 microseconds on a large GPU; an asymptotically better sort
 * takes several kernels. A block has 32 rows, its warps divide the rows to compare with, which are
 * in the L1 cache. */
__global__ void __launch_bounds__(32 * ORDER_WARPS)
    gather_order_kernel(int32_t *key, int32_t *row, const int32_t *index, int rows, bool aligned) {
    __shared__ int parts[ORDER_WARPS][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int start = (int)blockIdx.x * 32, stop = start + 32, own = start + lane;
    const int32_t mine = index[own < rows ? own : rows - 1];
    const int share = (rows + 4 * ORDER_WARPS - 1) / (4 * ORDER_WARPS) * 4, begin = warp * share;
    const int end = begin + share < rows ? begin + share : rows;
    int before = count_below(index, begin, end < start ? end : start, mine + 1, aligned) +
                 count_below(index, begin > stop ? begin : stop, end, mine, aligned);
    for (int i = start; warp == 0 && i < stop && i < rows; i++)
        before += index[i] < mine || (index[i] == mine && i < own);
    parts[warp][lane] = before;
    __syncthreads();
    if (warp != 0 || own >= rows) return;
    for (int w = 1; w < ORDER_WARPS; w++) before += parts[w][lane];
    key[before] = mine, row[before] = own;
}

/* Shared by the next two kernels: the sorted rows, the stored sums [2][pieces][d] (of an index that
 * continues from an earlier piece, and of one that continues into the next), and the output. */
struct Pieces {
    const int32_t *key, *row;
    float *aside, *table;
    int rows, pieces, d;
};

static __device__ __forceinline__ float *piece_aside(const Pieces &p, int piece, bool goes_on) {
    return p.aside + ((int64_t)goes_on * p.pieces + piece) * p.d;
}

/* to += sum, of the columns from `first`. */
template <bool ALIGNED>
static __device__ __forceinline__ void columns_add(float *to, const float (&sum)[GATHER_N],
                                                   int first, int d) {
    float old[GATHER_N];
    columns_read<ALIGNED, GATHER_N>(old, to, first, d);
#pragma unroll
    for (int i = 0; i < GATHER_N; i++) old[i] += sum[i];
    columns_write<ALIGNED, GATHER_N>(to, old, first, d);
}

/* A piece's column sums. Each lane holds one row's number and index, and whether the index ends
 * with it, and broadcasts them in turn. Reads are issued four rows ahead. */
template <typename DY, bool ALIGNED>
__global__ void __launch_bounds__(32 * PIECE_WARPS) gather_pieces_kernel(Pieces p, const DY *dy) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int piece = (int)blockIdx.x, start = piece * PIECE;
    const int first = ((int)blockIdx.y * PIECE_WARPS + warp) * PIECE_COLUMNS + lane * GATHER_N;
    if (first - lane * GATHER_N >= p.d) return; /* the whole warp */
    const int here = p.rows - start < PIECE ? p.rows - start : PIECE;
    const int at = start + (lane < here ? lane : here - 1);
    const int32_t key = p.key[at], row = p.row[at];
    const bool more = at + 1 < p.rows && p.key[at + 1] == key; /* at lane 31: in the next piece */
    const unsigned ends = __ballot_sync(FULL_WARP, !more || lane >= here - 1);
    const bool goes_on = __shfl_sync(FULL_WARP, (int)more, here - 1);
    bool comes = start > 0 && p.key[start - 1] == __shfl_sync(FULL_WARP, key, 0);
    float sum[GATHER_N] = {0};
    for (int i = 0; i < here; i += 4) {
        float v[4][GATHER_N];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int64_t from = __shfl_sync(FULL_WARP, row, i + k);
            columns_read<ALIGNED, GATHER_N>(v[k], dy + from * p.d, first, p.d);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (i + k >= here) break;
#pragma unroll
            for (int j = 0; j < GATHER_N; j++) sum[j] += v[k][j];
            if (!(ends >> (i + k) & 1)) continue;
            const int32_t to = __shfl_sync(FULL_WARP, key, i + k);
            const bool on = goes_on && i + k == here - 1;
            if (to >= 0 && !comes && !on)
                columns_add<ALIGNED>(p.table + (int64_t)to * p.d, sum, first, p.d);
            else if (to >= 0)
                columns_write<ALIGNED, GATHER_N>(piece_aside(p, piece, !comes), sum, first, p.d);
            comes = false;
#pragma unroll
            for (int j = 0; j < GATHER_N; j++) sum[j] = 0;
        }
    }
}

/* The number of pieces after `piece` that consist of `key` only and continue into the next: their
 * last row and the next piece's first row have the same index. */
static __device__ int pieces_through(const Pieces &p, int piece, int32_t key, int lane) {
    for (int through = 0;; through += 32) {
        const int64_t next = ((int64_t)piece + 2 + through + lane) * PIECE; /* after the lane's */
        const bool on = next < p.rows && p.key[next] == key;
        const unsigned stop = ~__ballot_sync(FULL_WARP, on);
        if (stop) return through + __ffs((int)stop) - 1;
    }
}

/* Adds the stored sums. A warp for each piece and 128 columns: active if an index begins in the
 * piece and continues into the next. */
template <bool ALIGNED>
__global__ void __launch_bounds__(32 * PIECE_WARPS) gather_join_kernel(Pieces p) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int piece = (int)blockIdx.x, last = piece * PIECE + PIECE - 1;
    const int first = ((int)blockIdx.y * PIECE_WARPS + warp) * PIECE_COLUMNS + lane * GATHER_N;
    if (first - lane * GATHER_N >= p.d) return;
    const int32_t key = p.key[last]; /* the last piece has no next one, so no block */
    if (key < 0 || p.key[last + 1] != key) return;
    if (piece > 0 && p.key[piece * PIECE - 1] == key) return; /* it began earlier */
    const int through = pieces_through(p, piece, key, lane);
    float sum[GATHER_N];
    columns_read<ALIGNED, GATHER_N>(sum, piece_aside(p, piece, true), first, p.d);
#pragma unroll 4
    for (int i = 0; i <= through; i++) {
        float v[GATHER_N];
        columns_read<ALIGNED, GATHER_N>(v, piece_aside(p, piece + 1 + i, false), first, p.d);
#pragma unroll
        for (int j = 0; j < GATHER_N; j++) sum[j] += v[j];
    }
    columns_add<ALIGNED>(p.table + (int64_t)key * p.d, sum, first, p.d);
}

/* The last piece has no next one, so no block in the last kernel. */
template <typename DY, bool ALIGNED>
static int pieces_launch(Device *device, const Pieces &p, Tensor dy, Error *err) {
    const dim3 grid((unsigned)p.pieces, cuda_blocks(p.d, PIECE_WARPS * PIECE_COLUMNS, INT32_MAX));
    LAUNCH(device, (gather_pieces_kernel<DY, ALIGNED>), grid, 32 * PIECE_WARPS, 0, err, p,
           (const DY *)dy.data);
    if (p.pieces == 1) return 0;
    const dim3 joined((unsigned)p.pieces - 1, grid.y);
    LAUNCH(device, gather_join_kernel<ALIGNED>, joined, 32 * PIECE_WARPS, 0, err, p);
    return 0;
}

int cuda_gather_backward(Device *device, Tensor dtable, Tensor dy, Tensor index, Error *err) {
    if (dy.shape[0] > INT32_MAX - PIECE)
        return error_set(err, "gather_backward: %lld rows are too many for a GPU",
                         (long long)dy.shape[0]);
    Pieces p = {};
    p.rows = (int)dy.shape[0], p.d = (int)dy.shape[1], p.pieces = (p.rows + PIECE - 1) / PIECE;
    const size_t aside = (size_t)2 * (size_t)p.pieces * (size_t)p.d * sizeof(float);
    const size_t order = (size_t)p.pieces * PIECE * sizeof(int32_t);
    void *memory;
    TRY(cuda_workspace(device, &memory, aside + 2 * order, err));
    int32_t *key = (int32_t *)memory, *row = key + order / sizeof(int32_t);
    p.key = key, p.row = row, p.aside = (float *)(row + order / sizeof(int32_t));
    p.table = (float *)dtable.data;
    LAUNCH(device, gather_order_kernel, (unsigned)p.pieces, 32 * ORDER_WARPS, 0, err, key, row,
           (const int32_t *)index.data, p.rows, values_aligned(index, 4));
    const bool aligned =
        p.d % GATHER_N == 0 && values_aligned(dtable, GATHER_N) && values_aligned(dy, GATHER_N);
    WITH_FLAG(ALIGNED, aligned,
              WITH_TYPE(DY, dy.dtype, return (pieces_launch<DY, ALIGNED>)(device, p, dy, err)));
    return 0;
}
