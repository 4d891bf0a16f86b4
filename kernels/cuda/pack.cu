/* Copies weights, mostly from a mapped file, to the GPU and converts them to the compute type.
 *
 * Rows in host memory are sent in parts: the host copies a part into one of two page-locked buffers
 * (which is when the file is read), and while it reads the next one, the GPU copies the first from
 * its buffer and converts it. Reading is the slowest, some 5 to 10 GB/s by one thread from the page
 * cache, less from a disk; the bus has 25 to 50, and a conversion, at the speed of the GPU's
 * memory, takes a fiftieth of that. So one stream suffices for copy and conversion, and pageable
 * memory is never passed to CUDA, which would copy it in the same way but make the host wait.
 */
#include "kernels/cuda/pack.h"
#include "kernels/cuda/replay.h"

#include "kernels/cuda/values.cuh"

extern "C" {
#include "kernels/int8.h"
}

#include <stdlib.h>
#include <string.h>

/* Bytes of a part: large enough to hide the latency of starting a copy, small enough that reading,
 * copying and converting soon overlap. */
#ifdef EASYFIRST_EMULATED
enum { PART = 1 << 10 }; /* several parts in a test */
#else
enum { PART = 8 << 20 };
#endif

/* What a matmul takes of an i8 weight at a time, and the rows of which that is a multiple. */
#ifdef EASYFIRST_EMULATED
enum { WEIGHT_ROWS_BYTES = 1 << 14, WEIGHT_ROWS_STEP = 16 };
#else
enum { WEIGHT_ROWS_BYTES = 32 << 20, WEIGHT_ROWS_STEP = 256 };
#endif

/* ---- The pack. ---- */

static size_t up_256(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static int64_t row_distance(int64_t columns, Dtype dtype) {
    const int64_t step = 16 / (int64_t)dtype_size(dtype);
    return (columns + step - 1) / step * step;
}

static size_t matrix_bytes(int64_t rows, int64_t columns, Dtype dtype) {
    return up_256((size_t)(rows * row_distance(columns, dtype)) * dtype_size(dtype));
}

/* Logits and their bias are f32. */
static size_t bias_bytes(int64_t rows, Dtype compute, bool vocabulary) {
    return compute == DTYPE_BF16 && !vocabulary ? up_256((size_t)rows * dtype_size(compute)) : 0;
}

static size_t scale_bytes(int64_t rows, Dtype stored) {
    return stored == DTYPE_I8 ? up_256((size_t)rows * sizeof(float)) : 0;
}

size_t cuda_pack_size(Device *device, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                      bool vocabulary) {
    (void)device;
    const Dtype dtype = stored == DTYPE_I8 ? DTYPE_I8 : compute;
    return matrix_bytes(rows, columns, dtype) + bias_bytes(rows, compute, vocabulary) +
           scale_bytes(rows, stored);
}

/* Recordings assume that a pack's bias is filled, which happens on its first use. A new pack may
 * get the same address with an unfilled bias, so recordings with this one must be discarded. */
void cuda_packed_free(Device *device, struct Packed *packed) {
    const PackLayout *layout = (const PackLayout *)packed->layout;
    if (layout && layout->bias_of) replays_forget(device, true);
    device->backend->free(device, packed->data);
    free(packed->layout);
    free(packed);
}

/* Rows that are dequantized at a time. */
static int64_t dequantized_rows(int64_t rows, int64_t columns, Dtype compute) {
    const int64_t row = row_distance(columns, compute) * (int64_t)dtype_size(compute);
    const int64_t step = WEIGHT_ROWS_STEP, most = WEIGHT_ROWS_BYTES / row / step * step;
    const int64_t fit = most < step ? step : most;
    return rows < fit ? rows : fit;
}

/* The memory for them exists before any work is recorded. */
static int dequantized_memory(Device *device, void **memory, int64_t rows, int64_t columns,
                              Dtype compute, Error *err) {
    CudaState *s = cuda_state(device);
    return cuda_grow(device, &s->dequantized, &s->dequantized_size, memory,
                     matrix_bytes(dequantized_rows(rows, columns, compute), columns, compute), err);
}

/* A pack without its values; `stored` is i8, or any other type. */
static int packed_new(Device *device, struct Packed **packed, int64_t rows, int64_t columns,
                      Dtype stored, Dtype compute, bool vocabulary, Error *err) {
    struct Packed *p = (struct Packed *)calloc(1, sizeof *p);
    PackLayout *layout = (PackLayout *)calloc(1, sizeof *layout);
    if (p) p->layout = layout;
    if (!p || !layout) {
        free(p), free(layout);
        return error_set(err, "out of memory: %zu bytes requested", sizeof *p + sizeof *layout);
    }
    p->rows = p->chunk_rows = rows, p->columns = columns, p->dtype = compute;
    const Dtype dtype = stored == DTYPE_I8 ? stored : compute;
    p->chunk_bytes = matrix_bytes(rows, columns, dtype);
    p->bytes = cuda_pack_size(device, rows, columns, stored, compute, vocabulary);
    layout->ld = row_distance(columns, dtype);
    void *memory;
    if (device->backend->alloc(device, &p->data, p->bytes, err) != 0 ||
        (dtype == DTYPE_I8 &&
         dequantized_memory(device, &memory, rows, columns, compute, err) != 0)) {
        cuda_packed_free(device, p);
        return -1;
    }
    char *after = (char *)p->data + p->chunk_bytes;
    if (dtype == DTYPE_I8) p->scale = (float *)(after + bias_bytes(rows, compute, vocabulary));
    if (bias_bytes(rows, compute, vocabulary)) layout->bias = after;
    *packed = p;
    return 0;
}

/* ---- Filling it. ---- */

typedef struct Loader {
    Device *device;
    const PackProgress *progress;
    size_t part;     /* bytes of a buffer */
    char *buffer[2]; /* page-locked */
    cudaEvent_t fetched[2];
    bool under_way[2]; /* the GPU may not have copied its contents yet */
    int turn;
    void *plain; /* on the GPU: a part before its conversion */
} Loader;

static int loader_open(Loader *loader, Device *device, const Tensor *pieces, int count,
                       const PackProgress *progress, Error *err) {
    memset(loader, 0, sizeof *loader);
    loader->device = device, loader->progress = progress, loader->part = PART;
    for (int i = 0; i < count; i++) {
        const size_t row = (size_t)pieces[i].shape[1] * dtype_size(pieces[i].dtype);
        if (row > loader->part) loader->part = row;
    }
    loader->part = up_256(loader->part);
    void *staging;
    TRY(cuda_staging(device, &staging, 2 * loader->part, err));
    TRY(cuda_workspace(device, &loader->plain, loader->part, err));
    for (int i = 0; i < 2; i++) {
        loader->buffer[i] = (char *)staging + (size_t)i * loader->part;
        CUDA_TRY(cudaEventCreateWithFlags(&loader->fetched[i], cudaEventDisableTiming), err);
    }
    return 0;
}

static void loader_close(Loader *loader) {
    for (int i = 0; i < 2; i++)
        if (loader->fetched[i]) cudaEventDestroy(loader->fetched[i]);
}

static void watch_call(const Loader *loader, int64_t first, int64_t count) {
    if (loader->progress) loader->progress->call(loader->progress->user, first, count);
}

/* Bytes from one row to the next; a single row's ld is arbitrary. */
static size_t row_step(Tensor t) {
    return (size_t)(t.shape[0] > 1 ? t.ld : t.shape[1]) * dtype_size(t.dtype);
}

/* Copies rows of the pack's type, `step` bytes apart, to rows of the pack. */
static int rows_copy(const Loader *loader, Tensor to, const void *from, size_t step, Error *err) {
    const size_t row = (size_t)to.shape[1] * dtype_size(to.dtype);
    const size_t to_step = row_step(to);
    const size_t rows = (size_t)to.shape[0];
    cudaStream_t stream = cuda_state(loader->device)->stream;
    if (row == step && row == to_step)
        CUDA_TRY(cudaMemcpyAsync(to.data, from, rows * row, cudaMemcpyDefault, stream), err);
    else
        CUDA_TRY(
            cudaMemcpy2DAsync(to.data, to_step, from, step, row, rows, cudaMemcpyDefault, stream),
            err);
    return 0;
}

/* Sends one part of rows in host memory, small enough for a buffer; `first` is the index of its
 * first row in the stack. */
static int part_send(Loader *loader, Tensor to, Tensor rows, int64_t first, Error *err) {
    const size_t row = (size_t)rows.shape[1] * dtype_size(rows.dtype);
    const size_t step = row_step(rows);
    const size_t bytes = (size_t)rows.shape[0] * row;
    cudaStream_t stream = cuda_state(loader->device)->stream;
    const int turn = loader->turn;
    char *buffer = loader->buffer[turn];
    loader->turn ^= 1;
    if (loader->under_way[turn]) CUDA_TRY(cudaEventSynchronize(loader->fetched[turn]), err);
    if (step == row)
        memcpy(buffer, rows.data, bytes);
    else
        for (int64_t r = 0; r < rows.shape[0]; r++)
            memcpy(buffer + (size_t)r * row, (const char *)rows.data + (size_t)r * step, row);
    watch_call(loader, first, rows.shape[0]);

    const bool convert = rows.dtype != to.dtype;
    if (convert)
        CUDA_TRY(cudaMemcpyAsync(loader->plain, buffer, bytes, cudaMemcpyDefault, stream), err);
    else
        TRY(rows_copy(loader, to, buffer, row, err));
    cuda_count_up(loader->device, bytes);
    CUDA_TRY(cudaEventRecord(loader->fetched[turn], stream), err);
    loader->under_way[turn] = true;
    if (!convert) return 0;
    /* An elementwise operation does not use the workspace, which holds the part. */
    Tensor plain = tensor_2d(loader->plain, rows.dtype, rows.shape[0], rows.shape[1]);
    return cuda_convert_forward(loader->device, to, plain, err);
}

static int on_gpu(bool *gpu, const void *memory, Error *err) {
    cudaPointerAttributes attributes;
    CUDA_TRY(cudaPointerGetAttributes(&attributes, memory), err);
    *gpu = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
    return 0;
}

/* Sends all rows of a piece, the first of which is row `first` of the stack. */
static int piece_send(Loader *loader, Tensor to, Tensor piece, int64_t first, Error *err) {
    bool gpu = false;
    TRY(on_gpu(&gpu, piece.data, err));
    if (gpu) {
        if (piece.dtype == to.dtype)
            TRY(rows_copy(loader, to, piece.data, row_step(piece), err));
        else
            TRY(cuda_convert_forward(loader->device, to, piece, err));
        if (!loader->progress) return 0;
        CUDA_TRY(cudaStreamSynchronize(cuda_state(loader->device)->stream), err);
        watch_call(loader, first, piece.shape[0]);
        return 0;
    }
    const size_t row = (size_t)piece.shape[1] * dtype_size(piece.dtype);
    const int64_t most = (int64_t)(loader->part / row);
    for (int64_t r = 0; r < piece.shape[0]; r += most) {
        const int64_t left = piece.shape[0] - r, count = left < most ? left : most;
        TRY(part_send(loader, tensor_rows(to, r, count), tensor_rows(piece, r, count), first + r,
                      err));
    }
    return 0;
}

static int packed_fill(Device *device, struct Packed *p, const Tensor *pieces, int count,
                       const PackProgress *progress, Error *err) {
    Loader loader;
    Tensor all = tensor_2d(p->data, p->scale ? DTYPE_I8 : p->dtype, p->rows, p->columns);
    all.ld = ((const PackLayout *)p->layout)->ld;
    int status = loader_open(&loader, device, pieces, count, progress, err);
    int64_t first = 0;
    for (int i = 0; status == 0 && i < count; i++) {
        const int64_t rows = pieces[i].shape[0];
        if (rows && p->scale)
            status = device->backend->upload(device, p->scale + first, pieces[i].scale,
                                             (size_t)rows * sizeof(float), err);
        if (rows && status == 0)
            status = piece_send(&loader, tensor_rows(all, first, rows), pieces[i], first, err);
        first += rows;
    }
    /* The buffers are shared: no copy from them may be pending when this returns. */
    cudaError_t done = cudaStreamSynchronize(cuda_state(device)->stream);
    if (status == 0 && done != cudaSuccess)
        status = cuda_failed(done, "cudaStreamSynchronize", err);
    loader_close(&loader);
    return status;
}

/* A group that is i8 in part only, which no file of `easyfirst quantize` has: its i8 pieces, in host
 * memory, are dequantized there. */
static int pack_mixed(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                      Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    enum { MOST = 64 };
    Tensor plain[MOST];
    if (count > MOST)
        return error_set(err, "pack_weight: %d pieces of several types, expected at most %d", count,
                         MOST);
    int status = 0, made = 0;
    for (; made < count && status == 0; made++) {
        plain[made] = pieces[made];
        if (pieces[made].dtype != DTYPE_I8) continue;
        const int64_t rows = pieces[made].shape[0], columns = pieces[made].shape[1];
        void *values = malloc(tensor_bytes(tensor_2d(NULL, compute, rows, columns)) + 1);
        plain[made] = tensor_2d(values, compute, rows, columns);
        if (values)
            tensor_values(values, compute, pieces[made], 0, rows * columns);
        else
            status = error_set(err, "out of memory: a weight of %lld rows", (long long)rows);
    }
    if (status == 0)
        status = cuda_pack_weight(device, packed, plain, count, compute, vocabulary, progress, err);
    for (int i = 0; i < made; i++)
        if (pieces[i].dtype == DTYPE_I8) free(plain[i].data);
    return status;
}

int cuda_pack_weight(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                     Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    int64_t rows = 0;
    int quantized = 0;
    for (int i = 0; i < count; i++) {
        rows += pieces[i].shape[0];
        quantized += pieces[i].dtype == DTYPE_I8;
    }
    if (quantized && quantized < count)
        return pack_mixed(device, packed, pieces, count, compute, vocabulary, progress, err);
    struct Packed *p;
    TRY(packed_new(device, &p, rows, pieces[0].shape[1], pieces[0].dtype, compute, vocabulary,
                   err));
    if (packed_fill(device, p, pieces, count, progress, err) != 0) {
        cuda_packed_free(device, p);
        return -1;
    }
    *packed = p;
    return 0;
}

/* ---- Weights of i8 in a matmul. ---- */

enum { DEQUANTIZE_THREADS = 128 };

/* Memory-bound: a value is read as 1 byte and written as 2 or 4. A thread has N adjacent ones, 16
 * bytes of the result, of a row; rows of both are aligned. */
template <typename Y>
__global__ void __launch_bounds__(DEQUANTIZE_THREADS)
    dequantize_kernel(Y *y, int64_t y_ld, const int8_t *x, int64_t x_ld, const float *scale,
                      int64_t rows, int64_t columns) {
    enum { N = 16 / sizeof(Y) };
    const int64_t first = ((int64_t)blockIdx.x * DEQUANTIZE_THREADS + threadIdx.x) * N;
    if (first >= columns) return;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[N];
        const float factor = scale[r];
        values_get(v, x + r * x_ld + first, columns - first, true);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= factor;
        values_put(y + r * y_ld + first, v, columns - first, true);
    }
}

static int dequantize(Device *device, void *to, const struct Packed *p, int64_t first,
                      int64_t count, Error *err) {
    const int64_t x_ld = ((const PackLayout *)p->layout)->ld;
    const int64_t y_ld = row_distance(p->columns, p->dtype), columns = p->columns;
    const int8_t *from = (const int8_t *)p->data + first * x_ld;
    const float *scale = p->scale + first;
    const int64_t n = DEQUANTIZE_THREADS * 16 / (int64_t)dtype_size(p->dtype);
    const dim3 grid(cuda_blocks(columns, n, INT32_MAX), cuda_blocks(count, 1, 65535));
    WITH_TYPE(Y, p->dtype,
              LAUNCH(device, dequantize_kernel<Y>, grid, DEQUANTIZE_THREADS, 0, err, (Y *)to, y_ld,
                     from, x_ld, scale, count, columns));
    return 0;
}

int cuda_matmul_weight(Device *device, Tensor y, Tensor x, Tensor w, int64_t first, int64_t count,
                       const void *bias, bool accumulate, Error *err) {
    const struct Packed *p = w.packed;
    const Operand a = operand(x, false);
    if (!p || !p->scale)
        return cuda_matmul(device, y, a, weight_operand(w, first, count, true), bias, accumulate,
                           err);
    const int64_t most = dequantized_rows(p->rows, p->columns, p->dtype);
    const int64_t ld = row_distance(p->columns, p->dtype);
    void *rows;
    TRY(dequantized_memory(device, &rows, p->rows, p->columns, p->dtype, err));
    for (int64_t done = 0; done < count; done += most) {
        const int64_t here = count - done < most ? count - done : most;
        const size_t skip = (size_t)done * dtype_size(y.dtype);
        const Operand b = {rows, p->dtype, here, p->columns, ld, true};
        TRY(dequantize(device, rows, p, first + done, here, err));
        TRY(cuda_matmul(device, tensor_columns(y, done, here), a, b,
                        bias ? (const char *)bias + skip : NULL, accumulate, err));
    }
    return 0;
}
