#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

#include <math.h>

/* Values that a thread processes at a time: new weights are still in the L1 cache when they are
 * copied. */
enum { PIECE = 4096 };

/* With the corrections c1 = 1 / (1 - beta1^step) and c2 = 1 / (1 - beta2^step) of the moments,
 *     p -= lr (c1 m / (sqrt(c2 v) + eps) + weight_decay p). */
typedef struct Step {
    float keep1, add1, keep2, add2; /* of the old moment and of the new gradient */
    float rate, root;               /* lr c1, sqrt(c2) */
    float eps, decay, grad_scale;   /* decay: lr weight_decay */
} Step;

static void piece_step(float *restrict p, float *restrict m, float *restrict v,
                       const float *restrict g, int64_t n, const Step *step) {
    const Step s = *step;
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * s.grad_scale;
        m[i] = s.keep1 * m[i] + s.add1 * gradient;
        v[i] = s.keep2 * v[i] + s.add2 * gradient * gradient;
        p[i] -= s.rate * m[i] / (sqrtf(v[i]) * s.root + s.eps) + s.decay * p[i];
    }
}

int cpu_adamw_step(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
                   const AdamW *adamw, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const AdamW a = *adamw;
    /* In double: 1 - beta2^step would lose its digits in the first steps. */
    const double rest1 = 1 - pow(a.beta1, (double)a.step), rest2 = 1 - pow(a.beta2, (double)a.step);
    const Step step = {
        .keep1 = a.beta1,
        .add1 = (float)(1 - (double)a.beta1),
        .keep2 = a.beta2,
        .add2 = (float)(1 - (double)a.beta2),
        .rate = (float)(a.lr / rest1),
        .root = (float)(1 / sqrt(rest2)),
        .eps = a.eps,
        .decay = (float)((double)a.lr * a.weight_decay),
        .grad_scale = a.grad_scale,
    };
    const int64_t n = p.shape[0];
    const size_t size = copy.data ? dtype_size(copy.dtype) : 0;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t here = n - i < PIECE ? n - i : PIECE;
        float *weights = (float *)p.data + i;
        piece_step(weights, (float *)m.data + i, (float *)v.data + i, (const float *)g.data + i,
                   here, &step);
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
