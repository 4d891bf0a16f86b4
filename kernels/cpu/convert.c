#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Values that a thread processes at a time. */
enum { PIECE = 8192 };

/* A tensor without gaps becomes one row, to save a call for each short row. */
static Tensor as_matrix(Tensor t, bool flat) {
    int64_t rows = flat ? 1 : tensor_row_count(t);
    Tensor m = tensor_2d(t.data, t.dtype, rows, rows ? tensor_count(t) / rows : 0);
    if (!flat) m.ld = t.ld;
    return m;
}

static bool has_gaps(Tensor t) {
    return t.ndim > 1 && t.ld != t.shape[t.ndim - 1] && tensor_row_count(t) > 1;
}

int cpu_convert_forward(Device *device, Tensor y, Tensor x, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const bool flat = !has_gaps(x) && !has_gaps(y);
    const Tensor to = as_matrix(y, flat), from = as_matrix(x, flat);
    const int64_t rows = to.shape[0], n = to.shape[1];
#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(device, rows *n))
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i += PIECE)
            kernels->convert_row(tensor_columns(tensor_rows(to, r, 1), i, 1).data, to.dtype,
                                 tensor_columns(tensor_rows(from, r, 1), i, 1).data, from.dtype,
                                 n - i < PIECE ? n - i : PIECE);
    return 0;
}
