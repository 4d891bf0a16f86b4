#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa/philox.h"
#include "kernels/cpu/threads.h"

#include <math.h>
#include <string.h>

/* Values that a thread takes at a time, a multiple of the words that are made together: these and
 * the values are within the first-level cache. */
enum { PIECE = 2048 };

/* Values [first, first + count) of the tensors; first is a multiple of PIECE. A value is kept if
 * its word is not below `threshold`. `omp simd`: y may be x, but never overlaps it otherwise. */
static void piece_drop(void *y, const void *x, Dtype dtype, int64_t first, int count,
                       const Dropout *dropout, uint32_t threshold) {
    uint32_t word[PIECE];
    for (int i = 0; i < count; i += PHILOX_WORDS) {
        PhiloxWords words = philox_words(dropout->seed, dropout->stream, (uint64_t)(first + i) / 4);
        memcpy(word + i, &words.low, sizeof words.low);
        memcpy(word + i + LANES, &words.high, sizeof words.high);
    }
    const float scale = 1 / (1 - dropout->p);
    if (dtype == DTYPE_F32) {
        const float *from = (const float *)x + first;
        float *to = (float *)y + first;
#pragma omp simd
        for (int i = 0; i < count; i++) {
            const float kept = from[i] * scale;
            to[i] = word[i] >= threshold ? kept : 0;
        }
    } else {
        const uint16_t *from = (const uint16_t *)x + first;
        uint16_t *to = (uint16_t *)y + first;
#pragma omp simd
        for (int i = 0; i < count; i++) {
            const uint16_t kept = f32_to_bf16(bf16_to_f32(from[i]) * scale);
            to[i] = word[i] >= threshold ? kept : 0;
        }
    }
}

int cpu_dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout, Error *err) {
    (void)err;
    const int64_t n = tensor_count(x);
    if (dropout.p == 0) { /* nothing to draw */
        memmove(y.data, x.data, tensor_bytes(x));
        return 0;
    }
    /* (word + 0.5) / 2^32 >= p in whole numbers. Exact: p has 24 bits, and scaling by a power of
     * two and taking one half away (where p 2^32 is not below it) fit into those of a double. */
    const uint32_t threshold = (uint32_t)fmax(ceil((double)dropout.p * 0x1p32 - 0.5), 0);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE)
        piece_drop(y.data, x.data, x.dtype, i, n - i < PIECE ? (int)(n - i) : PIECE, &dropout,
                   threshold);
    return 0;
}
