#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* One line of patches at a time: each row of y is written once, and each pixel is read once. */
int cpu_patches_forward(Device *device, Tensor y, Tensor x, int channels, int side, int patch,
                        Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t across = side / patch, lines = x.shape[0] * across;
    const int64_t plane = (int64_t)side * side, square = (int64_t)patch * patch;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, tensor_count(x)))
    for (int64_t line = 0; line < lines; line++) {
        const float *image = (const float *)x.data + line / across * x.ld;
        const float *corner = image + line % across * patch * side;
        for (int64_t p = 0; p < across; p++) {
            Tensor row = tensor_rows(y, line * across + p, 1);
            for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < patch; i++)
                    kernels->convert_row(tensor_columns(row, c * square + i * patch, patch).data,
                                         y.dtype, corner + c * plane + i * side + p * patch,
                                         DTYPE_F32, patch);
        }
    }
    return 0;
}
