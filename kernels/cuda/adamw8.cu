#include "kernels/cuda/adamw.cuh"
#include "kernels/cuda/values.cuh"

enum { MOMENT_WARPS = MOMENT_BLOCK / 32 };

struct Adam8Run {
    void *p; /* f32, or bf16 */
    float *m_scale, *v_scale;
    uint8_t *m, *v;
    const float *maps, *g;
    void *copy;
    Dtype copy_dtype; /* NONE: no copy */
    int64_t n;
    bool narrow;
    AdamStep step;
    AdamRounding rounding;
};

static __device__ __forceinline__ void weight_put(const Adam8Run &a, int64_t at, float weight) {
    if (!a.narrow) {
        static_cast<float *>(a.p)[at] = weight;
        return;
    }
    const uint64_t index = a.rounding.first + (uint64_t)at;
    uint32_t words[4];
    philox(words, a.rounding.seed, a.rounding.stream, index / 8);
    static_cast<uint16_t *>(a.p)[at] = adam_round(weight, words, index);
}

/* The number of midpoints below x, which is the index of the nearest number. */
static __device__ __forceinline__ int nearest(float x, const float *midpoints) {
    int at = 0;
#pragma unroll
    for (int half = MOMENT_BLOCK / 2; half; half /= 2)
        at += x > midpoints[at + half - 1] ? half : 0;
    return at;
}

/* The largest of the block's values, for all threads. */
static __device__ __forceinline__ float block_max(float v, float *parts) {
    v = warp_max(v);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = parts[0];
    for (int w = 1; w < MOMENT_WARPS; w++) v = fmaxf(v, parts[w]);
    return v;
}

static __device__ __forceinline__ uint8_t code_of(float value, float scale,
                                                  const float *midpoints) {
    return (uint8_t)nearest(scale > 0 ? value / scale : 0, midpoints);
}

/* One thread a value, one block of threads a block of values; 4 KiB of maps are in shared memory.
 * 14 bytes of each weight are moved, and its copy. */
__global__ void __launch_bounds__(MOMENT_BLOCK) adamw8_kernel(Adam8Run a) {
    __shared__ float maps[4][MOMENT_BLOCK], parts[2][MOMENT_WARPS];
    const int t = (int)threadIdx.x;
    for (int i = 0; i < 4; i++) maps[i][t] = a.maps[i * MOMENT_BLOCK + t];
    const int64_t at = (int64_t)blockIdx.x * MOMENT_BLOCK + t;
    const bool inside = at < a.n;
    float m_scale = a.m_scale[blockIdx.x], v_scale = a.v_scale[blockIdx.x], m = 0, v = 0;
    __syncthreads(); /* also: all have read the old scales */
    if (inside) {
        float p = a.narrow ? adam_wide(static_cast<const uint16_t *>(a.p)[at])
                           : static_cast<const float *>(a.p)[at];
        m = __fmul_rn(maps[0][a.m[at]], m_scale);
        v = __fmul_rn(maps[2][a.v[at]], v_scale);
        adam_value(&p, &m, &v, a.g[at], a.step);
        weight_put(a, at, p);
        const float weight[1] = {p};
        if (a.copy_dtype == DTYPE_F16)
            values_put(static_cast<f16 *>(a.copy) + at, weight, 1, false);
        else if (a.copy_dtype != DTYPE_NONE)
            values_put_as(a.copy, a.copy_dtype, at, weight, 1, false);
    }
    m_scale = block_max(fabsf(m), parts[0]), v_scale = block_max(fabsf(v), parts[1]);
    if (inside) a.m[at] = code_of(m, m_scale, maps[1]), a.v[at] = code_of(v, v_scale, maps[3]);
    if (t == 0) a.m_scale[blockIdx.x] = m_scale, a.v_scale[blockIdx.x] = v_scale;
}

int cuda_adamw8_step(Device *device, Tensor p, Tensor copy, const Moments8 *moments, Tensor g,
                     const AdamW *adamw, Error *err) {
    const Moments8 &q = *moments;
    const Adam8Run run = {p.data,
                          (float *)q.m_scale.data,
                          (float *)q.v_scale.data,
                          (uint8_t *)q.m.data,
                          (uint8_t *)q.v.data,
                          (const float *)q.maps.data,
                          (const float *)g.data,
                          copy.data,
                          copy.data ? copy.dtype : DTYPE_NONE,
                          p.shape[0],
                          p.dtype == DTYPE_BF16,
                          adam_step(*adamw),
                          adam_rounding(*adamw)};
    LAUNCH(device, adamw8_kernel, cuda_blocks(run.n, MOMENT_BLOCK, INT32_MAX), MOMENT_BLOCK, 0, err,
           run);
    return 0;
}
