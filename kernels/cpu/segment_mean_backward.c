#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

#include <string.h>

/* Rows of no segment, before the first or after the last, have gradient 0. */
static void clear_rows(Tensor dx, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
        memset(tensor_rows(dx, r, 1).data, 0, (size_t)dx.shape[1] * dtype_size(dx.dtype));
}

int cpu_segment_mean_backward(Device *device, Tensor dx, Tensor dy, const int32_t *begin,
                              int segments, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = dx.shape[0], d = dx.shape[1];
    clear_rows(dx, 0, segments ? begin[0] : rows);
    if (!segments) return 0;
    clear_rows(dx, begin[segments], rows);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(device, rows *d))
    for (int s = 0; s < segments; s++)
        for (int64_t r = begin[s]; r < begin[s + 1]; r++)
            kernels->scale_row(tensor_rows(dx, r, 1).data, dx.dtype, tensor_rows(dy, s, 1).data,
                               dy.dtype, 1 / (float)(begin[s + 1] - begin[s]), d);
    return 0;
}
