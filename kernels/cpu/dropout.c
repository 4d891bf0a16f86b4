#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa/philox.h"
#include "kernels/cpu/threads.h"

#include <math.h>
#include <string.h>

/* Values that a thread processes at a time, a multiple of the words generated together: words and
 * values fit the L1 cache. */
enum { PIECE = 2048 };

/* The parameters of one call. */
typedef struct Drop {
    Dropout dropout;
    uint32_t threshold; /* a value is kept if its word >= threshold */
    bool accumulate;
} Drop;

/* y = kept values of x, times scale, or y += that. `omp simd`: y may be x, but never overlaps it
 * otherwise. */
INLINE void values_drop(void *y, Dtype y_dtype, const void *x, Dtype x_dtype, const uint32_t *word,
                        uint32_t threshold, float scale, bool accumulate, int count) {
    const float *x_wide = x;
    const uint16_t *x_narrow = x;
    float *y_wide = y;
    uint16_t *y_narrow = y;
#pragma omp simd
    for (int i = 0; i < count; i++) {
        const float value = (x_dtype == DTYPE_F32 ? x_wide[i] : bf16_to_f32(x_narrow[i])) * scale;
        float kept = word[i] >= threshold ? value : 0;
        if (accumulate) kept += y_dtype == DTYPE_F32 ? y_wide[i] : bf16_to_f32(y_narrow[i]);
        if (y_dtype == DTYPE_F32)
            y_wide[i] = kept;
        else
            y_narrow[i] = f32_to_bf16(kept);
    }
}

/* Values [first, first + count) of the tensors; first is a multiple of PIECE. With p = 0 nothing is
 * drawn: all words are 0, as the threshold is, and the scale is 1. */
static void piece_drop(Tensor y, Tensor x, int64_t first, int count, const Drop *drop) {
    uint32_t word[PIECE];
    const Dropout *d = &drop->dropout;
    if (d->p == 0) memset(word, 0, sizeof word);
    for (int i = 0; d->p > 0 && i < count; i += PHILOX_WORDS) {
        PhiloxWords words = philox_words(d->seed, d->stream, (uint64_t)(first + i) / 4);
        memcpy(word + i, &words.low, sizeof words.low);
        memcpy(word + i + LANES, &words.high, sizeof words.high);
    }
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    const float scale = 1 / (1 - d->p);
    const bool add = drop->accumulate;
    const uint32_t least = drop->threshold;
    void *to = (char *)y.data + (size_t)first * dtype_size(y.dtype);
    const void *from = (const char *)x.data + (size_t)first * dtype_size(x.dtype);
    switch ((y.dtype == h) * 4 + (x.dtype == h) * 2 + add) { /* each a separate loop */
    case 0:
        values_drop(to, f, from, f, word, least, scale, false, count);
        break;
    case 1:
        values_drop(to, f, from, f, word, least, scale, true, count);
        break;
    case 2:
        values_drop(to, f, from, h, word, least, scale, false, count);
        break;
    case 3:
        values_drop(to, f, from, h, word, least, scale, true, count);
        break;
    case 4:
        values_drop(to, h, from, f, word, least, scale, false, count);
        break;
    case 5:
        values_drop(to, h, from, f, word, least, scale, true, count);
        break;
    case 6:
        values_drop(to, h, from, h, word, least, scale, false, count);
        break;
    default:
        values_drop(to, h, from, h, word, least, scale, true, count);
        break;
    }
}

int cpu_dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout, bool accumulate,
                        Error *err) {
    if (dropout.p == 0 && !accumulate)
        return y.data == x.data ? 0 : cpu_convert_forward(device, y, x, err);
    /* (word + 0.5) / 2^32 >= p in integers. Exact: p has 24 bits, and scaling by a power of two and
     * subtracting one half (unless p 2^32 is smaller) fit a double. */
    const Drop drop = {dropout, (uint32_t)fmax(ceil((double)dropout.p * 0x1p32 - 0.5), 0),
                       accumulate};
    const int64_t n = tensor_count(x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(device, n))
    for (int64_t i = 0; i < n; i += PIECE)
        piece_drop(y, x, i, n - i < PIECE ? (int)(n - i) : PIECE, &drop);
    return 0;
}
