/* elementwise.c - the operations of ELEMENTWISE_LIST (kernels/op_list.h): divides the values among
 * threads, which call the instruction set's row function. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Values that a thread processes at a time: 16 kB in and out, within the L1 cache. */
enum { PIECE = 4096 };

static void *value_at(Tensor t, int64_t i) {
    return (char *)t.data + (size_t)i * dtype_size(t.dtype);
}

/* clang-format would break the line after the pragma. */
/* clang-format off */
#define ELEMENTWISE(X, name, type, parameter)                                                  \
    int cpu_##name##_forward(Device *device, Tensor y, Tensor x, type parameter, Error *err) { \
        (void)err;                                                                             \
        const CpuKernels *kernels = cpu_state(device)->kernels;                                \
        const int64_t n = tensor_count(x);                                                     \
        _Pragma("omp parallel for schedule(static) num_threads(cpu_threads(device, n))")       \
        for (int64_t i = 0; i < n; i += PIECE)                                                 \
            kernels->name##_row(value_at(y, i), y.dtype, value_at(x, i), x.dtype, parameter,   \
                                n - i < PIECE ? n - i : PIECE);                                \
        return 0;                                                                              \
    }
/* clang-format on */
ELEMENTWISE_LIST(ELEMENTWISE, )
