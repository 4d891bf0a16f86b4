#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Columns that a thread sums at a time: work is divided by columns, never by rows, so that the
 * order of a sum does not depend on the number of threads. 32 are whole cache lines in either
 * type. */
enum { PIECE = 32 };

int cpu_layernorm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                           Tensor w, Tensor stats, bool accumulate_dx, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], d = x.shape[1];
    const int threads = cpu_threads(device, rows * d);
    /* The sums first: dx may be dy, which they need. */
    if (dw.data || db.data) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < d; i += PIECE)
            kernels->layernorm_backward_columns(
                dw.data ? (float *)dw.data + i : NULL, db.data ? (float *)db.data + i : NULL,
                tensor_columns(dy, i, 1).data, dy.ld, dy.dtype, tensor_columns(x, i, 1).data, x.ld,
                x.dtype, stats.data, stats.ld, rows, d - i < PIECE ? d - i : PIECE);
    }
    if (!dx.data) return 0;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++)
        kernels->layernorm_backward_row(tensor_rows(dx, r, 1).data, dx.dtype,
                                        tensor_rows(dy, r, 1).data, dy.dtype,
                                        tensor_rows(x, r, 1).data, x.dtype, w.data,
                                        tensor_rows(stats, r, 1).data, accumulate_dx, d);
    return 0;
}
