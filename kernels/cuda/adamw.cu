#include "kernels/cuda/adamw.cuh"
#include "kernels/cuda/elementwise.cuh"

struct AdamRun {
    void *p; /* f32, or bf16 */
    float *m, *v;
    const float *g;
    void *copy;
    Dtype copy_dtype; /* NONE: no copy */
    int64_t n;
    bool aligned, narrow;
    AdamStep step;
    AdamRounding rounding;
};

enum { ADAM_N = 4 };

static __device__ __forceinline__ void weights_get(const AdamRun &a, float (&weight)[ADAM_N],
                                                   int64_t first, int64_t count, bool aligned) {
    if (!a.narrow) {
        values_get(weight, static_cast<const float *>(a.p) + first, count, aligned);
        return;
    }
    const uint16_t *p = static_cast<const uint16_t *>(a.p) + first;
    for (int i = 0; i < ADAM_N; i++) weight[i] = i < count ? adam_wide(p[i]) : 0;
}

static __device__ __forceinline__ void weights_put(const AdamRun &a, const float (&weight)[ADAM_N],
                                                   int64_t first, int64_t count, bool aligned) {
    if (!a.narrow) {
        values_put(static_cast<float *>(a.p) + first, weight, count, aligned);
        return;
    }
    uint16_t *p = static_cast<uint16_t *>(a.p) + first;
    const uint64_t index = a.rounding.first + (uint64_t)first;
    uint32_t words[4] = {};
    for (int i = 0; i < ADAM_N && i < count; i++) {
        if (i == 0 || (index + i) % 8 == 0)
            philox(words, a.rounding.seed, a.rounding.stream, (index + i) / 8);
        p[i] = adam_round(weight[i], words, index + i);
    }
}

/* `count` weights from `first`, at most four. */
static __device__ __forceinline__ void adam_values(const AdamRun &a, int64_t first, int64_t count,
                                                   bool aligned) {
    float weight[ADAM_N], mean[ADAM_N], square[ADAM_N], gradient[ADAM_N];
    weights_get(a, weight, first, count, aligned);
    values_get(mean, a.m + first, count, aligned);
    values_get(square, a.v + first, count, aligned);
    values_get(gradient, a.g + first, count, aligned);
#pragma unroll
    for (int i = 0; i < ADAM_N; i++)
        adam_value(&weight[i], &mean[i], &square[i], gradient[i], a.step);
    weights_put(a, weight, first, count, aligned);
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
    AdamRun run = {p.data,
                   (float *)m.data,
                   (float *)v.data,
                   (const float *)g.data,
                   copy.data,
                   copy.data ? copy.dtype : DTYPE_NONE,
                   p.shape[0],
                   false,
                   p.dtype == DTYPE_BF16,
                   adam_step(*adamw),
                   adam_rounding(*adamw)};
    run.aligned = values_aligned(p, ADAM_N) && values_aligned(copy, ADAM_N) &&
                  values_aligned(m, ADAM_N) && values_aligned(v, ADAM_N) &&
                  values_aligned(g, ADAM_N);
    LAUNCH(device, adamw_kernel, elementwise_blocks(run.n, ADAM_N), ELEMENTWISE_THREADS, 0, err,
           run);
    return 0;
}
