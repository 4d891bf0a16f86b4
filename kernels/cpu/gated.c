#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

int cpu_gated_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = y.shape[0], n = y.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *n))
    for (int64_t r = 0; r < rows; r++) {
        const Tensor row = tensor_rows(x, r, 1);
        kernels->gated_row(tensor_rows(y, r, 1).data, y.dtype, row.data,
                           tensor_columns(row, n, n).data, x.dtype, activation, n);
    }
    return 0;
}

int cpu_gated_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                       Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = dy.shape[0], n = dy.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *n))
    for (int64_t r = 0; r < rows; r++) {
        const Tensor row = tensor_rows(x, r, 1), drow = tensor_rows(dx, r, 1);
        kernels->gated_backward_row(drow.data, tensor_columns(drow, n, n).data, dx.dtype,
                                    tensor_rows(dy, r, 1).data, dy.dtype, row.data,
                                    tensor_columns(row, n, n).data, x.dtype, activation, n);
    }
    return 0;
}
