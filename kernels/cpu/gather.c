#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* A token embedding has three terms, a vision tower's two. */
enum { TERMS_MAX = 16 };

int cpu_gather_forward(Device *device, Tensor y, const GatherTerm *terms, int count, Error *err) {
    if (count > TERMS_MAX)
        return error_set(err, "gather_forward: %d terms, expected at most %d", count, TERMS_MAX);
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int64_t rows = y.shape[0], d = y.shape[1];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, rows *d))
    for (int64_t t = 0; t < rows; t++) {
        const void *row[TERMS_MAX];
        Dtype dtype[TERMS_MAX];
        float scale[TERMS_MAX];
        for (int i = 0; i < count; i++) {
            int32_t index = ((const int32_t *)terms[i].index.data)[t];
            row[i] = index < 0 ? NULL : tensor_rows(terms[i].table, index, 1).data;
            dtype[i] = terms[i].table.dtype;
            scale[i] = index < 0 || !terms[i].table.scale ? 1 : terms[i].table.scale[index];
        }
        kernels->sum_rows(tensor_rows(y, t, 1).data, y.dtype, row, dtype, scale, count, d);
    }
    return 0;
}
