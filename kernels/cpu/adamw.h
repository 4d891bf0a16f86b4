/* adamw.h - AdamW's arithmetic on a few values. Private to kernels/cpu/. */
#ifndef EASYFIRST_KERNELS_CPU_ADAMW_H
#define EASYFIRST_KERNELS_CPU_ADAMW_H

#include "kernels/ops.h"
#include "kernels/random.h"

#include <math.h>

/* With the corrections c1 = 1 / (1 - beta1^step) and c2 = 1 / (1 - beta2^step) of the moments,
 *     p -= lr (c1 m / (sqrt(c2 v) + eps) + weight_decay p). */
typedef struct AdamStep {
    float keep1, add1, keep2, add2; /* of the old moment and of the new gradient */
    float rate, root;               /* lr c1, sqrt(c2) */
    float eps, decay, grad_scale;   /* decay: lr weight_decay */
} AdamStep;

static inline AdamStep adam_step(const AdamW *adamw) {
    const AdamW a = *adamw;
    /* In double: 1 - beta2^step would lose its digits in the first steps. */
    const double rest1 = 1 - pow(a.beta1, (double)a.step), rest2 = 1 - pow(a.beta2, (double)a.step);
    return (AdamStep){
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
}

static inline void adam_values(float *restrict p, float *restrict m, float *restrict v,
                               const float *restrict g, int64_t n, const AdamStep *step) {
    const AdamStep s = *step;
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * s.grad_scale;
        m[i] = s.keep1 * m[i] + s.add1 * gradient;
        v[i] = s.keep2 * v[i] + s.add2 * gradient * gradient;
        p[i] -= s.rate * m[i] / (sqrtf(v[i]) * s.root + s.eps) + s.decay * p[i];
    }
}

/* Rounds values to bf16, up with the probability of what rounding down would lose: `index` is that of
 * the first one in the random numbers, of which a block has 16 bits for each of eight values. */
static inline void adam_round(uint16_t *restrict to, const float *restrict from, int64_t n,
                              int64_t index, const AdamW *adamw) {
    const uint32_t key[2] = {(uint32_t)adamw->seed, (uint32_t)(adamw->seed >> 32)};
    const uint32_t stream[2] = {(uint32_t)adamw->stream, (uint32_t)(adamw->stream >> 32)};
    uint32_t words[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        const uint64_t at = (uint64_t)(index + i);
        if (i == 0 || at % 8 == 0) {
            const uint64_t block = at / 8;
            random_philox(
                words, (uint32_t[]){(uint32_t)block, (uint32_t)(block >> 32), stream[0], stream[1]},
                key);
        }
        to[i] = f32_to_bf16_with(from[i], words[at % 8 / 2] >> (at % 2 * 16));
    }
}

#endif
