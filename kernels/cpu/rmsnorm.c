#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

int cpu_rmsnorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                        float eps, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], d = x.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *d))
    for (int64_t r = 0; r < rows; r++)
        kernels->rmsnorm_row(tensor_rows(y, r, 1).data, y.dtype,
                             copy.data ? tensor_rows(copy, r, 1).data : NULL, copy.dtype,
                             stats.data ? tensor_rows(stats, r, 1).data : NULL,
                             tensor_rows(x, r, 1).data, x.dtype, w.data, eps, d);
    return 0;
}

/* Columns that a thread sums at a time, as in layernorm_backward.c. */
enum { PIECE = 32 };

int cpu_rmsnorm_backward(Device *device, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                         Tensor stats, bool accumulate_dx, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], d = x.shape[1];
    const int threads = cpu_threads(device, rows * d);
    /* The sums first: dx may be dy, which they need. */
    if (dw.data) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < d; i += PIECE)
            kernels->layernorm_backward_columns(
                (float *)dw.data + i, NULL, tensor_columns(dy, i, 1).data, dy.ld, dy.dtype,
                tensor_columns(x, i, 1).data, x.ld, x.dtype, stats.data, stats.ld, rows,
                d - i < PIECE ? d - i : PIECE);
    }
    if (!dx.data) return 0;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        kernels->rmsnorm_backward_row(tensor_rows(dx, r, 1).data, dx.dtype,
                                      tensor_rows(dy, r, 1).data, dy.dtype,
                                      tensor_rows(x, r, 1).data, x.dtype, w.data,
                                      tensor_rows(stats, r, 1).data, accumulate_dx, d);
    return 0;
}
