#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Columns that a thread processes at a time: there may be only one segment. */
enum { PIECE = 256 };

int cpu_segment_mean_forward(Device *device, Tensor y, Tensor x, const int32_t *begin, int segments,
                             Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t d = x.shape[1], values = d * (begin[segments] - begin[0]);
#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(device, values))
    for (int s = 0; s < segments; s++)
        for (int64_t i = 0; i < d; i += PIECE)
            kernels->mean_rows(tensor_columns(tensor_rows(y, s, 1), i, 1).data, y.dtype,
                               tensor_columns(tensor_rows(x, begin[s], 1), i, 1).data, x.dtype,
                               x.ld, begin[s + 1] - begin[s], d - i < PIECE ? d - i : PIECE);
    return 0;
}
