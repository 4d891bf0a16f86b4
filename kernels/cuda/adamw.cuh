/* adamw.cuh - AdamW's arithmetic on one value. Private to kernels/cuda/. */
#ifndef EASYFIRST_KERNELS_CUDA_ADAMW_CUH
#define EASYFIRST_KERNELS_CUDA_ADAMW_CUH

#include "kernels/cuda/values.cuh"
#include "kernels/ops.h"

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

/* Stochastic rounding to bf16: see AdamW in ops.h. */
struct AdamRounding {
    uint64_t seed, stream, first;
};

static inline AdamRounding adam_rounding(const AdamW &a) {
    return {a.seed, a.stream, (uint64_t)a.first};
}

/* The 16 random bits of a value in those of its block of eight. */
static __device__ __forceinline__ uint16_t adam_round(float x, const uint32_t words[4],
                                                      uint64_t index) {
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) != 0x7f800000u)
        bits += words[index % 8 / 2] >> (index % 2 * 16) & 0xffffu;
    else if (bits & 0x007fffffu)
        bits |= 0x00400000u; /* a NaN stays one */
    return (uint16_t)(bits >> 16);
}

static __device__ __forceinline__ float adam_wide(uint16_t x) {
    return __uint_as_float((uint32_t)x << 16);
}

static inline AdamStep adam_step(const AdamW &a) {
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
    return step;
}

#endif
