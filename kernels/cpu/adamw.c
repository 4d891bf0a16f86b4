#include "kernels/cpu/adamw.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

/* Values that a thread processes at a time: new weights are still in the L1 cache when they are
 * copied. */
enum { PIECE = 4096 };

int cpu_adamw_step(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
                   const AdamW *adamw, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const AdamStep step = adam_step(adamw);
    const int64_t n = p.shape[0];
    const size_t size = copy.data ? dtype_size(copy.dtype) : 0;
    const bool narrow = p.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t here = n - i < PIECE ? n - i : PIECE;
        float wide[PIECE], *weights = narrow ? wide : (float *)p.data + i;
        uint16_t *stored = narrow ? (uint16_t *)p.data + i : NULL;
        if (narrow) kernels->convert_row(wide, DTYPE_F32, stored, DTYPE_BF16, here);
        adam_values(weights, (float *)m.data + i, (float *)v.data + i, (const float *)g.data + i,
                    here, &step);
        if (narrow) adam_round(stored, weights, here, adamw->first + i, adamw);
        if (copy.data)
            kernels->convert_row((char *)copy.data + (size_t)i * size, copy.dtype, weights,
                                 DTYPE_F32, here);
    }
    return 0;
}

/* Pieces of a sum, for any number of threads: its bits depend on the values alone. */
enum { SUM_PIECES = 256 };

/* In eight independent sums, which a compiler can vectorize; a single one would be added in strict
 * order. */
static double piece_square_sum(Tensor x, int64_t first, int64_t end) {
    double sum[8] = {0};
    int64_t i = first;
    if (x.dtype == DTYPE_F32) {
        const float *v = x.data;
        for (; i + 8 <= end; i += 8)
            for (int j = 0; j < 8; j++) sum[j] += (double)v[i + j] * v[i + j];
        for (; i < end; i++) sum[0] += (double)v[i] * v[i];
    } else {
        const uint16_t *v = x.data;
        for (; i + 8 <= end; i += 8)
            for (int j = 0; j < 8; j++) {
                double value = bf16_to_f32(v[i + j]);
                sum[j] += value * value;
            }
        for (; i < end; i++) sum[0] += (double)bf16_to_f32(v[i]) * bf16_to_f32(v[i]);
    }
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

int cpu_square_sum(Device *device, double *sum, Tensor x, Error *err) {
    (void)err;
    const int64_t n = tensor_count(x), each = (n + SUM_PIECES - 1) / SUM_PIECES;
    double part[SUM_PIECES];
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < SUM_PIECES; i++) {
        const int64_t first = i * each, end = first + each;
        part[i] = first < n ? piece_square_sum(x, first, end < n ? end : n) : 0;
    }
    double total = 0;
    for (int i = 0; i < SUM_PIECES; i++) total += part[i];
    *sum = total;
    return 0;
}
