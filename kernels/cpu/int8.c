/* Matmuls with weights of 8-bit integers, one scale for each row.
 *
 * Multiplied: each row of x is quantized by its own largest magnitude, oneDNN sums products of
 * integers (exactly), and one pass over the sums applies both scales, bias and activation. A row's
 * result depends on no other row. The processor multiplies unsigned by signed bytes: 128 is added to
 * those of x, and what that adds to a sum, 128 times the sum of a row of the weight, is subtracted.
 * (With signed x oneDNN would do the same, but takes ten times as long to pack a weight.)
 *
 * Dequantized: some rows of the weight at a time become rows of the compute type in a block that
 * stays in the cache, and are multiplied as any weight: the result is that of a model whose weights
 * were dequantized before. It is slow for few rows of x, whose matmul is shorter than dequantizing.
 *
 * Which one, the layout says: see cpu_pack_weight.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/threads.h"

static size_t up_64(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* ---- Multiplied. ---- */

/* Sums in memory at a time, 4 MiB, and the fewest rows of x that they are of: each group of rows
 * reads the weight again. */
enum { SUMS = 1 << 20, GROUP_LEAST = 128 };

typedef struct Int8Task {
    Tensor y, x, b;
    const float *scale;  /* of the weight's rows */
    const int32_t *zero; /* their sums for a row of zeros */
    MatmulTask matmul;   /* of the integers */
    float *x_scale;
    Activation activation;
    bool accumulate;
} Int8Task;

static int multiply_group(Device *device, const Int8Task *t, int64_t top, int64_t rows,
                          Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t n = t->matmul.n, k = t->matmul.k;
    uint8_t *x = (uint8_t *)(uintptr_t)t->matmul.x;
    const int32_t *sums = t->matmul.y;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *k))
    for (int64_t r = 0; r < rows; r++)
        t->x_scale[r] =
            kernels->quantize_row(x + r * k, tensor_rows(t->x, top + r, 1).data, t->x.dtype, k);
    MatmulTask matmul = t->matmul;
    matmul.m = rows;
    TRY(matmul_run(cpu_state(device)->matmul, &matmul, err));
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *n))
    for (int64_t r = 0; r < rows; r++)
        kernels->int8_finish_row(tensor_rows(t->y, top + r, 1).data, t->y.dtype, sums + r * n,
                                 t->zero, t->x_scale[r], t->scale, t->b.data, t->activation,
                                 t->accumulate, n);
    return 0;
}

static int multiply(Device *device, Int8Task *t, const void *values, const MatmulLayout *layout,
                    Error *err) {
    const int64_t rows = t->x.shape[0], k = t->x.shape[1], n = t->y.shape[1];
    int64_t group = SUMS / n < GROUP_LEAST ? GROUP_LEAST : SUMS / n;
    if (group > rows) group = rows;
    const size_t x_bytes = up_64((size_t)(group * k));
    const size_t sum_bytes = up_64((size_t)(group * n) * sizeof(int32_t));
    void *memory;
    TRY(cpu_memory(device, &cpu_state(device)->int8, &memory,
                   x_bytes + sum_bytes + (size_t)group * sizeof(float), err));
    char *sums = (char *)memory + x_bytes;
    t->x_scale = (float *)(sums + sum_bytes);
    t->matmul = (MatmulTask){.n = n,
                             .k = k,
                             .dtype = DTYPE_I8,
                             .x = memory,
                             .x_ld = k,
                             .w = values,
                             .layout = layout,
                             .y = sums,
                             .y_dtype = DTYPE_I32,
                             .y_ld = n};
    for (int64_t top = 0; top < rows; top += group)
        TRY(multiply_group(device, t, top, rows - top < group ? rows - top : group, err));
    return 0;
}

/* ---- Dequantized. ---- */

/* Values of a block, 4 MiB in f32, and what its rows are a multiple of. Above the size of
 * weights whose matmuls are cut into pieces (matmul.c): a cut block is read for each piece. */
enum { BLOCK = 1 << 20, BLOCK_LEAST = 16 };

static int dequantize(Device *device, const Int8Task *t, const int8_t *values, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t n = t->y.shape[1], k = t->x.shape[1];
    const Dtype dtype = t->x.dtype;
    const int64_t blocks = (n * k + BLOCK - 1) / BLOCK; /* of about equal size */
    int64_t block = ((n + blocks - 1) / blocks + BLOCK_LEAST - 1) / BLOCK_LEAST * BLOCK_LEAST;
    if (block > n) block = n;
    const size_t row = (size_t)k * dtype_size(dtype);
    void *memory;
    TRY(cpu_memory(device, &cpu_state(device)->int8, &memory, (size_t)block * row, err));
    for (int64_t first = 0; first < n; first += block) {
        const int64_t count = n - first < block ? n - first : block;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, count *k))
        for (int64_t r = 0; r < count; r++)
            kernels->dequantize_row((char *)memory + (size_t)r * row, dtype,
                                    values + (first + r) * k, t->scale[first + r], k);
        MatmulTask matmul = {.m = t->x.shape[0],
                             .n = count,
                             .k = k,
                             .dtype = dtype,
                             .x = t->x.data,
                             .x_ld = t->x.ld,
                             .w = memory,
                             .w_ld = k,
                             .bias = t->b.data ? (const float *)t->b.data + first : NULL,
                             .y = tensor_columns(t->y, first, count).data,
                             .y_dtype = t->y.dtype,
                             .y_ld = t->y.ld,
                             .activation = t->activation,
                             .accumulate = t->accumulate};
        TRY(matmul_run(cpu_state(device)->matmul, &matmul, err));
    }
    return 0;
}

int cpu_int8_rows(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, int64_t first,
                  int64_t count, Activation activation, bool accumulate, Error *err) {
    const struct Packed *p = w.packed;
    const PackedLayout *layout = p->layout;
    Int8Task task = {.y = y,
                     .x = x,
                     .b = b.data ? tensor_1d((float *)b.data + first, DTYPE_F32, count) : b,
                     .scale = p->scale + first,
                     .activation = activation,
                     .accumulate = accumulate};
    task.y.shape[1] = count;
    const char *values = (const char *)p->data + (size_t)(first / p->chunk_rows) * p->chunk_bytes;
    if (layout->zero) task.zero = layout->zero + first;
    if (!layout->chunk) return dequantize(device, &task, (const int8_t *)values, err);
    return multiply(device, &task, values, first + count == p->rows ? layout->last : layout->chunk,
                    err);
}
