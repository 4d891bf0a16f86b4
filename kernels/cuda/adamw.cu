#include "kernels/cuda/elementwise.cuh"

#include <math.h>

/* With the corrections c1 = 1 / (1 - beta1^step) and c2 = 1 / (1 - beta2^step) of the moments,
 *     p -= lr (c1 m / (sqrt(c2 v) + eps) + weight_decay p). */
struct AdamStep {
    float keep1, add1, keep2, add2; /* of the old moment and of the new gradient */
    float rate, root;               /* lr c1, sqrt(c2) */
    float eps, decay, grad_scale;   /* decay: lr weight_decay */
};

/* One weight, with the CPU's order of operations and rounding, so that the same gradients give the
 * same weights on both. */
static __device__ __forceinline__ void adam_value(float *p, float *m, float *v, float g,
                                                  const AdamStep &s) {
    const float gradient = __fmul_rn(g, s.grad_scale);
    *m = __fadd_rn(__fmul_rn(s.keep1, *m), __fmul_rn(s.add1, gradient));
    *v = __fadd_rn(__fmul_rn(s.keep2, *v), __fmul_rn(__fmul_rn(s.add2, gradient), gradient));
    const float below = __fadd_rn(__fmul_rn(sqrtf(*v), s.root), s.eps);
    const float step = __fadd_rn(__fmul_rn(s.rate, *m) / below, __fmul_rn(s.decay, *p));
    *p = __fadd_rn(*p, -step);
}

struct AdamRun {
    float *p, *m, *v;
    const float *g;
    void *copy;
    Dtype copy_dtype; /* NONE: no copy */
    int64_t n;
    bool aligned;
    AdamStep step;
};

enum { ADAM_N = 4 };

/* `count` weights from `first`, at most four. */
static __device__ __forceinline__ void adam_values(const AdamRun &a, int64_t first, int64_t count,
                                                   bool aligned) {
    float weight[ADAM_N], mean[ADAM_N], square[ADAM_N], gradient[ADAM_N];
    values_get(weight, a.p + first, count, aligned);
    values_get(mean, a.m + first, count, aligned);
    values_get(square, a.v + first, count, aligned);
    values_get(gradient, a.g + first, count, aligned);
#pragma unroll
    for (int i = 0; i < ADAM_N; i++)
        adam_value(&weight[i], &mean[i], &square[i], gradient[i], a.step);
    values_put(a.p + first, weight, count, aligned);
    values_put(a.m + first, mean, count, aligned);
    values_put(a.v + first, square, count, aligned);
    if (a.copy_dtype == DTYPE_F16)
        values_put(static_cast<f16 *>(a.copy) + first, weight, count, aligned);
    else if (a.copy_dtype != DTYPE_NONE)
        values_put_as(a.copy, a.copy_dtype, first, weight, count, aligned);
}

/* Memory-bound: 28 bytes of each weight, and its copy. A thread has four reads of 16 bytes in
 * flight. */
__global__ void __launch_bounds__(ELEMENTWISE_THREADS) adamw_kernel(AdamRun a) {
    const int64_t first = elementwise_first(ADAM_N), count = a.n - first;
    if (count <= 0) return;
    if (a.aligned && count >= ADAM_N) /* as constants: without branches between the reads */
        adam_values(a, first, ADAM_N, true);
    else
        adam_values(a, first, count, false);
}

int cuda_adamw_step(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
                    const AdamW *adamw, Error *err) {
    const AdamW a = *adamw;
    /* In double: 1 - beta2^step would lose its digits in the first steps. */
    const double rest1 = 1 - pow(a.beta1, (double)a.step), rest2 = 1 - pow(a.beta2, (double)a.step);
    AdamStep step = {};
    step.keep1 = a.beta1;
    step.add1 = (float)(1 - (double)a.beta1);
    step.keep2 = a.beta2;
    step.add2 = (float)(1 - (double)a.beta2);
    step.rate = (float)(a.lr / rest1);
    step.root = (float)(1 / sqrt(rest2));
    step.eps = a.eps;
    step.decay = (float)((double)a.lr * a.weight_decay);
    step.grad_scale = a.grad_scale;
    AdamRun run = {(float *)p.data,
                   (float *)m.data,
                   (float *)v.data,
                   (const float *)g.data,
                   copy.data,
                   copy.data ? copy.dtype : DTYPE_NONE,
                   p.shape[0],
                   false,
                   step};
    run.aligned = values_aligned(p, ADAM_N) && values_aligned(copy, ADAM_N) &&
                  values_aligned(m, ADAM_N) && values_aligned(v, ADAM_N) &&
                  values_aligned(g, ADAM_N);
    LAUNCH(device, adamw_kernel, elementwise_blocks(run.n, ADAM_N), ELEMENTWISE_THREADS, 0, err,
           run);
    return 0;
}
