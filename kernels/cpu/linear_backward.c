#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/threads.h"

/* Columns that a thread sums at a time: the sums stay in the L1 cache while the rows stream
 * past. */
enum { STRIPE = 256 };

static void stripe_add(double *sum, Tensor dy, int64_t row, int64_t first, int64_t count) {
    if (dy.dtype == DTYPE_F32) {
        const float *v = (const float *)dy.data + row * dy.ld + first;
        for (int64_t i = 0; i < count; i++) sum[i] += v[i];
    } else {
        const uint16_t *v = (const uint16_t *)dy.data + row * dy.ld + first;
        for (int64_t i = 0; i < count; i++) sum[i] += bf16_to_f32(v[i]);
    }
}

/* One thread sums a column, row by row, so that the result does not depend on the number of
 * threads; in f64, since thousands of rows of either sign may cancel. */
void cpu_column_sums(Device *device, float *db, Tensor dy) {
    const int64_t rows = dy.shape[0], n = dy.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *n))
    for (int64_t first = 0; first < n; first += STRIPE) {
        const int64_t count = n - first < STRIPE ? n - first : STRIPE;
        double sum[STRIPE] = {0};
        for (int64_t r = 0; r < rows; r++) stripe_add(sum, dy, r, first, count);
        for (int64_t i = 0; i < count; i++) db[first + i] = (float)(db[first + i] + sum[i]);
    }
}

int cpu_matmul_dx(Device *device, Tensor dx, Tensor dy, Tensor w, bool accumulate, Error *err) {
    MatmulTask task = {
        .m = dy.shape[0],
        .n = w.shape[1],
        .k = dy.shape[1],
        .dtype = dy.dtype,
        .x = dy.data,
        .x_ld = dy.ld,
        .w = w.data,
        .w_ld = w.ld,
        .w_transposed = true,
        .y = dx.data,
        .y_dtype = dx.dtype,
        .y_ld = dx.ld,
        .accumulate = accumulate,
    };
    return matmul_run(cpu_state(device)->matmul, &task, err);
}

int cpu_matmul_dw(Device *device, Tensor dw, Tensor dy, Tensor x, Error *err) {
    MatmulTask task = {
        .m = dy.shape[1],
        .n = x.shape[1],
        .k = dy.shape[0],
        .dtype = dy.dtype,
        .x = dy.data,
        .x_ld = dy.ld,
        .x_transposed = true,
        .w = x.data,
        .w_ld = x.ld,
        .w_transposed = true,
        .y = dw.data,
        .y_dtype = dw.dtype,
        .y_ld = dw.ld,
        .accumulate = true,
    };
    return matmul_run(cpu_state(device)->matmul, &task, err);
}

int cpu_linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                        Tensor w, bool accumulate_dx, Error *err) {
    if (dx.data) TRY(cpu_matmul_dx(device, dx, dy, w, accumulate_dx, err));
    if (dw.data) TRY(cpu_matmul_dw(device, dw, dy, x, err));
    if (db.data) cpu_column_sums(device, db.data, dy);
    return 0;
}
