#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Columns that a thread processes at a time. Several rows of dy may add to one row of the table, so
 * the work is divided by columns: then one thread forms each sum, in the order of the rows. */
enum { PIECE = 64 };

int cpu_gather_backward(Device *device, Tensor dtable, Tensor dy, Tensor index, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = dy.shape[0], d = dy.shape[1];
    const int threads = cpu_threads(device, rows * d);
    const int64_t piece = threads == 1 ? d : PIECE; /* whole rows are faster on one thread */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < d; i += piece)
        for (int64_t t = 0; t < rows; t++) {
            const int32_t to = ((const int32_t *)index.data)[t];
            if (to < 0) continue;
            kernels->add_row(tensor_columns(tensor_rows(dtable, to, 1), i, 1).data,
                             tensor_columns(tensor_rows(dy, t, 1), i, 1).data, dy.dtype,
                             d - i < piece ? d - i : piece);
        }
    return 0;
}
