#include "kernels/cpu/adamw.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/threads.h"

#include <string.h>

/* A moment's values of one block from their codes. */
static void values_read(float *restrict values, const uint8_t *restrict codes, float scale,
                        const float *restrict map, int n) {
    for (int i = 0; i < n; i++) values[i] = map[codes[i]] * scale;
}

/* The number of midpoints below x, which is the index of the nearest number. */
static int nearest(float x, const float *midpoints) {
    int at = 0;
    for (int half = MOMENT_BLOCK / 2; half; half /= 2)
        at += x > midpoints[at + half - 1] ? half : 0;
    return at;
}

/* Their scale, and the codes. */
static float values_write(uint8_t *restrict codes, const float *restrict values,
                          const float *restrict midpoints, int n) {
    float scale = 0;
    for (int i = 0; i < n; i++) scale = fmaxf(scale, fabsf(values[i]));
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)nearest(scale > 0 ? values[i] / scale : 0, midpoints);
    return scale;
}

int cpu_adamw8_step(Device *device, Tensor p, Tensor copy, const Moments8 *moments, Tensor g,
                    const AdamW *adamw, Error *err) {
    (void)err;
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const AdamStep step = adam_step(adamw);
    const Moments8 q = *moments;
    const float *maps = q.maps.data;
    const int64_t n = p.shape[0], blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    const size_t size = copy.data ? dtype_size(copy.dtype) : 0;
    const bool narrow = p.dtype == DTYPE_BF16;
    float *scales[2] = {q.m_scale.data, q.v_scale.data};
    uint8_t *codes[2] = {q.m.data, q.v.data};
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t at = b * MOMENT_BLOCK;
        const int here = n - at < MOMENT_BLOCK ? (int)(n - at) : MOMENT_BLOCK;
        float m[MOMENT_BLOCK], v[MOMENT_BLOCK], wide[MOMENT_BLOCK];
        float *weights = narrow ? wide : (float *)p.data + at;
        uint16_t *stored = narrow ? (uint16_t *)p.data + at : NULL;
        if (narrow) kernels->convert_row(wide, DTYPE_F32, stored, DTYPE_BF16, here);
        values_read(m, codes[0] + at, scales[0][b], maps, here);
        values_read(v, codes[1] + at, scales[1][b], maps + 2 * MOMENT_BLOCK, here);
        adam_values(weights, m, v, (const float *)g.data + at, here, &step);
        scales[0][b] = values_write(codes[0] + at, m, maps + MOMENT_BLOCK, here);
        scales[1][b] = values_write(codes[1] + at, v, maps + 3 * MOMENT_BLOCK, here);
        if (narrow) adam_round(stored, weights, here, adamw->first + at, adamw);
        if (copy.data)
            kernels->convert_row((char *)copy.data + (size_t)at * size, copy.dtype, weights,
                                 DTYPE_F32, here);
    }
    return 0;
}
