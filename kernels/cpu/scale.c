#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Values that a thread takes at a time. */
enum { PIECE = 8192 };

int cpu_scale_forward(Device *device, Tensor y, Tensor x, float scale, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t n = tensor_count(x);
    const size_t x_size = dtype_size(x.dtype), y_size = dtype_size(y.dtype);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE)
        kernels->scale_row((char *)y.data + (size_t)i * y_size, y.dtype,
                           (const char *)x.data + (size_t)i * x_size, x.dtype, scale,
                           n - i < PIECE ? n - i : PIECE);
    return 0;
}
