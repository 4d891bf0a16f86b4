#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

int cpu_layernorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                          Tensor b, float eps, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], d = x.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *d))
    for (int64_t r = 0; r < rows; r++)
        kernels->layernorm_row(tensor_rows(y, r, 1).data, y.dtype,
                               copy.data ? tensor_rows(copy, r, 1).data : NULL, copy.dtype,
                               stats.data ? tensor_rows(stats, r, 1).data : NULL,
                               tensor_rows(x, r, 1).data, x.dtype, w.data, b.data, eps, d);
    return 0;
}
