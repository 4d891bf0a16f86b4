#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Values that a thread processes at a time, as in elementwise.c. */
enum { PIECE = 4096 };

int cpu_activation_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                            Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t n = tensor_count(x);
    const size_t dx_size = dtype_size(dx.dtype), dy_size = dtype_size(dy.dtype),
                 x_size = dtype_size(x.dtype);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE)
        kernels->activation_backward_row((char *)dx.data + (size_t)i * dx_size, dx.dtype,
                                         (const char *)dy.data + (size_t)i * dy_size, dy.dtype,
                                         (const char *)x.data + (size_t)i * x_size, x.dtype,
                                         activation, n - i < PIECE ? n - i : PIECE);
    return 0;
}
