#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"

#include <stdlib.h>
#include <string.h>

/* A pack without its values: its chunks and layout. Free with packed_free. */
static int packed_plan(Device *device, struct Packed **packed, int64_t rows, int64_t columns,
                       Dtype compute, bool vocabulary, Error *err) {
    struct Matmul *matmul = cpu_state(device)->matmul;
    struct Packed *p = calloc(1, sizeof *p);
    PackedLayout *layout = calloc(1, sizeof *layout);
    if (p) p->layout = layout;
    if (!p || !layout) {
        free(p), free(layout);
        return error_set(err, "out of memory: %zu bytes requested", sizeof *p + sizeof *layout);
    }
    p->rows = rows, p->columns = columns, p->dtype = compute;
    p->chunk_rows = vocabulary && rows > VOCAB_CHUNK ? VOCAB_CHUNK : rows;
    int64_t chunks = (rows + p->chunk_rows - 1) / p->chunk_rows;
    int64_t last_rows = rows - (chunks - 1) * p->chunk_rows;

    int status = matmul_layout_open(matmul, &layout->chunk, p->chunk_rows, columns, compute, err);
    layout->last = layout->chunk;
    if (status == 0 && last_rows != p->chunk_rows)
        status = matmul_layout_open(matmul, &layout->last, last_rows, columns, compute, err);
    if (status != 0) {
        layout->last = layout->chunk;
        cpu_packed_free(device, p);
        return -1;
    }
    /* Chunks start at multiples of 64 bytes, a cache line and the widest vector. */
    p->chunk_bytes = (matmul_layout_bytes(layout->chunk) + 63) / 64 * 64;
    p->bytes = (size_t)(chunks - 1) * p->chunk_bytes + matmul_layout_bytes(layout->last);
    *packed = p;
    return 0;
}

void cpu_packed_free(Device *device, struct Packed *packed) {
    PackedLayout *layout = packed->layout;
    if (layout->last != layout->chunk) matmul_layout_close(layout->last);
    matmul_layout_close(layout->chunk);
    free(layout);
    device_free(device, packed->data);
    free(packed);
}

size_t cpu_pack_size(Device *device, int64_t rows, int64_t columns, Dtype compute,
                     bool vocabulary) {
    struct Packed *plan;
    if (packed_plan(device, &plan, rows, columns, compute, vocabulary, NULL) != 0) return 0;
    size_t bytes = plan->bytes;
    cpu_packed_free(device, plan);
    return bytes;
}

/* Writes rows [first, first + count) of the stacked pieces to `to`, without gaps, converted to
 * dtype. */
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

/* Fills a plan chunk by chunk. oneDNN reorders plain rows of the pack's type: a chunk that already
 * has it is read in place (from a mapped file, say), any other is first converted into a buffer of
 * one chunk. */
static int packed_fill(Device *device, struct Packed *p, const Tensor *pieces, int count,
                       const PackProgress *progress, Error *err) {
    const PackedLayout *layout = p->layout;
    struct Matmul *matmul = cpu_state(device)->matmul;
    void *plain = NULL;
    int status = 0;
    for (int64_t first = 0; status == 0 && first < p->rows; first += p->chunk_rows) {
        bool last = first + p->chunk_rows >= p->rows;
        int64_t rows = last ? p->rows - first : p->chunk_rows;
        char *to = (char *)p->data + (size_t)(first / p->chunk_rows) * p->chunk_bytes;
        Tensor source = rows_in_one(pieces, count, first, rows);
        if (source.dtype != p->dtype) {
            if (!plain) {
                size_t bytes = (size_t)(p->chunk_rows * p->columns) * dtype_size(p->dtype);
                if ((status = device_alloc(device, &plain, bytes, err)) != 0) break;
            }
            rows_collect(device, plain, p->dtype, pieces, first, rows);
            source = tensor_2d(plain, p->dtype, rows, p->columns);
        }
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
    for (int i = 0; i < count; i++) rows += pieces[i].shape[0];
    struct Packed *p;
    TRY(packed_plan(device, &p, rows, pieces[0].shape[1], compute, vocabulary, err));
    if (device_alloc(device, &p->data, p->bytes, err) != 0 ||
        packed_fill(device, p, pieces, count, progress, err) != 0) {
        cpu_packed_free(device, p);
        return -1;
    }
    *packed = p;
    return 0;
}
