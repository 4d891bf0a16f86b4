#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

int cpu_rotary_forward(Device *device, Tensor y, Tensor x, Tensor table, Tensor index, bool back,
                       Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = x.shape[0], width = table.shape[1], heads = x.shape[1] / width;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *x.shape[1]))
    for (int64_t r = 0; r < rows; r++)
        kernels->rotary_row(tensor_rows(y, r, 1).data, y.dtype, tensor_rows(x, r, 1).data, x.dtype,
                            tensor_rows(table, ((const int32_t *)index.data)[r], 1).data, back,
                            heads, width);
    return 0;
}
