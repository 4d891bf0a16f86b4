#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"

#include <stdlib.h>
#include <string.h>

static size_t up_64(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* The type that values are multiplied in: i8 only where the processor does it exactly, without
 * saturating sums of pairs, where an i32 holds any sum, and for inputs that are rounded anyway: f32
 * ones are multiplied with the dequantized weights. */
static Dtype multiplied_as(Dtype stored, Dtype compute, int64_t columns) {
    enum { COLUMNS_MOST = 1 << 16 };
    return stored == DTYPE_I8 && compute == DTYPE_BF16 && columns <= COLUMNS_MOST &&
                   matmul_has_int8()
               ? DTYPE_I8
               : compute;
}

/* Opens the layouts of chunks and sets their sizes, which differ in plain rows of i8. */
static int plan_chunks(Device *device, struct Packed *p, Dtype stored, Error *err) {
    struct Matmul *matmul = cpu_state(device)->matmul;
    PackedLayout *layout = p->layout;
    const int64_t k = p->columns, chunks = (p->rows + p->chunk_rows - 1) / p->chunk_rows;
    const int64_t last_rows = p->rows - (chunks - 1) * p->chunk_rows;
    const Dtype dtype = multiplied_as(stored, p->dtype, k);
    if (stored == DTYPE_I8 && dtype != DTYPE_I8) {
        p->chunk_bytes = (size_t)(p->chunk_rows * k);
        p->bytes = (size_t)(p->rows * k);
        return 0;
    }
    TRY(matmul_layout_open(matmul, &layout->chunk, p->chunk_rows, k, dtype, err));
    layout->last = layout->chunk;
    if (last_rows != p->chunk_rows &&
        matmul_layout_open(matmul, &layout->last, last_rows, k, dtype, err) != 0) {
        layout->last = layout->chunk;
        return -1;
    }
    /* Chunks start at multiples of 64 bytes, a cache line and the widest vector. */
    p->chunk_bytes = up_64(matmul_layout_bytes(layout->chunk));
    p->bytes = (size_t)(chunks - 1) * p->chunk_bytes + matmul_layout_bytes(layout->last);
    return 0;
}

/* A pack without its values: its chunks and layout. Free with packed_free. */
static int packed_plan(Device *device, struct Packed **packed, int64_t rows, int64_t columns,
                       Dtype stored, Dtype compute, bool vocabulary, Error *err) {
    struct Packed *p = calloc(1, sizeof *p);
    if (p) p->layout = calloc(1, sizeof(PackedLayout));
    if (!p || !p->layout) {
        free(p);
        return error_set(err, "out of memory: %zu bytes requested",
                         sizeof *p + sizeof(PackedLayout));
    }
    const PackedLayout *layout = p->layout;
    p->rows = rows, p->columns = columns, p->dtype = compute;
    p->chunk_rows = vocabulary && rows > VOCAB_CHUNK ? VOCAB_CHUNK : rows;
    if (plan_chunks(device, p, stored, err) != 0) {
        cpu_packed_free(device, p);
        return -1;
    }
    /* The scales follow the values, and after them what is to be subtracted from sums. */
    if (stored == DTYPE_I8) p->bytes = up_64(p->bytes) + (layout->chunk ? 8 : 4) * (size_t)rows;
    *packed = p;
    return 0;
}

void cpu_packed_free(Device *device, struct Packed *packed) {
    if (packed->conv.kernel) {
        cpu_conv2d_free(device, packed);
        return;
    }
    PackedLayout *layout = packed->layout;
    if (layout->last != layout->chunk) matmul_layout_close(layout->last);
    matmul_layout_close(layout->chunk);
    free(layout);
    device_free(device, packed->data);
    free(packed);
}

size_t cpu_pack_size(Device *device, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                     bool vocabulary) {
    struct Packed *plan;
    if (packed_plan(device, &plan, rows, columns, stored, compute, vocabulary, NULL) != 0) return 0;
    size_t bytes = plan->bytes;
    cpu_packed_free(device, plan);
    return bytes;
}

/* Writes rows [first, first + count) of the stacked pieces to `to`, without gaps, converted to
 * dtype; i8 pieces stay i8 or are dequantized. */
static void rows_collect(Device *device, char *to, Dtype dtype, const Tensor *pieces, int64_t first,
                         int64_t count) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    int64_t columns = pieces[0].shape[1];
    size_t row_bytes = (size_t)columns * dtype_size(dtype);
    int64_t above = 0; /* rows of the pieces before this one */
    for (; count > 0; above += pieces->shape[0], pieces++) {
        int64_t skip = first - above, here = pieces->shape[0] - skip;
        if (here <= 0) continue;
        if (here > count) here = count;
        Tensor piece = tensor_rows(*pieces, skip, here);
        size_t step = (size_t)piece.ld * dtype_size(piece.dtype);
#pragma omp parallel for schedule(static) num_threads(device->threads) if (here * columns > 65536)
        for (int64_t r = 0; r < here; r++) {
            const char *from = (const char *)piece.data + (size_t)r * step;
            if (piece.dtype == dtype)
                memcpy(to + (size_t)r * row_bytes, from, row_bytes);
            else if (piece.dtype == DTYPE_I8)
                kernels->dequantize_row(to + (size_t)r * row_bytes, dtype, (const int8_t *)from,
                                        piece.scale[r], columns);
            else
                kernels->convert_row(to + (size_t)r * row_bytes, dtype, from, piece.dtype, columns);
        }
        to += (size_t)here * row_bytes;
        first += here, count -= here;
    }
}

/* A view of these rows in the piece that holds all of them; TENSOR_NONE if they span several. */
static Tensor rows_in_one(const Tensor *pieces, int count, int64_t first, int64_t rows) {
    for (int i = 0; i < count; first -= pieces[i].shape[0], i++)
        if (first < pieces[i].shape[0])
            return first + rows <= pieces[i].shape[0] ? tensor_rows(pieces[i], first, rows)
                                                      : TENSOR_NONE;
    return TENSOR_NONE;
}

static void scales_collect(float *to, const Tensor *pieces, int count) {
    for (int i = 0; i < count; to += pieces[i].shape[0], i++)
        memcpy(to, pieces[i].scale, (size_t)pieces[i].shape[0] * sizeof *to);
}

/* 128 times the sum of each row. */
static void zeros_fill(const Device *device, int32_t *zero, Tensor rows) {
    const int64_t columns = rows.shape[1];
#pragma omp parallel for schedule(static) \
    num_threads(device->threads) if (rows.shape[0] * columns > 65536)
    for (int64_t r = 0; r < rows.shape[0]; r++) {
        const int8_t *row = (const int8_t *)rows.data + r * rows.ld;
        int32_t sum = 0;
        for (int64_t i = 0; i < columns; i++) sum += row[i];
        zero[r] = 128 * sum;
    }
}

/* Fills a plan chunk by chunk. oneDNN reorders plain rows of the pack's type: a chunk that already
 * has it is read in place (from a mapped file, say), any other is first converted into a buffer of
 * one chunk. */
static int packed_fill(Device *device, struct Packed *p, const Tensor *pieces, int count,
                       const PackProgress *progress, Error *err) {
    const PackedLayout *layout = p->layout;
    struct Matmul *matmul = cpu_state(device)->matmul;
    const Dtype dtype = p->scale ? DTYPE_I8 : p->dtype;
    void *plain = NULL;
    int status = 0;
    if (p->scale) scales_collect(p->scale, pieces, count);
    for (int64_t first = 0; status == 0 && first < p->rows; first += p->chunk_rows) {
        bool last = first + p->chunk_rows >= p->rows;
        int64_t rows = last ? p->rows - first : p->chunk_rows;
        char *to = (char *)p->data + (size_t)(first / p->chunk_rows) * p->chunk_bytes;
        if (!layout->chunk) { /* plain rows */
            rows_collect(device, to, dtype, pieces, first, rows);
            if (progress) progress->call(progress->user, first, rows);
            continue;
        }
        Tensor source = rows_in_one(pieces, count, first, rows);
        if (source.dtype != dtype) {
            if (!plain) {
                size_t bytes = (size_t)(p->chunk_rows * p->columns) * dtype_size(dtype);
                if ((status = device_alloc(device, &plain, bytes, err)) != 0) break;
            }
            rows_collect(device, plain, dtype, pieces, first, rows);
            source = tensor_2d(plain, dtype, rows, p->columns);
        }
        if (layout->zero) zeros_fill(device, layout->zero + first, source);
        status = matmul_layout_fill(matmul, last ? layout->last : layout->chunk, to, source.data,
                                    source.ld, err);
        if (status == 0 && progress) progress->call(progress->user, first, rows);
    }
    device_free(device, plain);
    return status;
}

int cpu_pack_weight(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                    Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    int64_t rows = 0;
    Dtype stored = DTYPE_I8; /* of all pieces, or any other */
    for (int i = 0; i < count; i++) {
        rows += pieces[i].shape[0];
        if (pieces[i].dtype != DTYPE_I8) stored = compute;
    }
    struct Packed *p;
    TRY(packed_plan(device, &p, rows, pieces[0].shape[1], stored, compute, vocabulary, err));
    int status = device_alloc(device, &p->data, p->bytes, err);
    if (status == 0 && stored == DTYPE_I8) {
        PackedLayout *layout = p->layout;
        const size_t after = (layout->chunk ? 8 : 4) * (size_t)rows;
        p->scale = (float *)((char *)p->data + p->bytes - after);
        if (layout->chunk) layout->zero = (int32_t *)(p->scale + rows);
    }
    if (status != 0 || packed_fill(device, p, pieces, count, progress, err) != 0) {
        cpu_packed_free(device, p);
        return -1;
    }
    *packed = p;
    return 0;
}
