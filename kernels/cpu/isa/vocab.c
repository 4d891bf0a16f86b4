/* vocab.c - one pass over logits for both the softmax's statistics and the best token.
 *
 * Logits come in blocks small enough to stay in the L1 cache. A block's maximum, computed by
 * vectors, determines whether the running maximum and the sum are rescaled, and whether the block
 * is searched for a token, which is rare after the first few.
 */
#include <math.h>

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/philox.h"
#include "kernels/cpu/isa/vector.h"
#include "kernels/random.h"

enum { BLOCK = 256 };

/* Loads a block's values and adds the bias; lanes beyond its end are -inf. */
INLINE float block_load(float *values, const float *logits, const float *bias, int n) {
    Vec largest = vec_set1(-INFINITY);
    for (int i = 0; i < n; i += LANES) {
        Vec v = vec_get(logits, DTYPE_F32, i, n - i);
        if (bias) v += vec_get(bias, DTYPE_F32, i, n - i);
        if (n - i < LANES) v = vec_select(vec_lane_numbers() < n - i, v, vec_set1(-INFINITY));
        vec_store(values + i, v);
        largest = vec_max(v, largest); /* ignores NaN */
    }
    return vec_largest(largest);
}

/* Updates max and sum with a block. Its own sum is of at most BLOCK / LANES additions in each lane;
 * the sum over all of the vocabulary is in double. Without a finite logit yet the shift is 0, so
 * that -inf gives 0 and NaN gives NaN. */
static void block_sum(VocabRow *row, const float *values, int n, float largest) {
    if (largest > row->max) {
        row->sum *= exp((double)row->max - largest);
        row->max = largest;
    }
    float shift = row->max == -INFINITY ? 0 : row->max;
    Vec sum = {0};
    for (int i = 0; i < n; i += LANES) sum += vec_exp_bounded(vec_load(values + i) - shift);
    row->sum += vec_sum(sum);
}

static void offer(VocabRow *row, double value, float logit, int32_t id) {
    if (!(value > row->best || (value == row->best && value > -INFINITY && id < row->best_token)))
        return;
    row->best = value;
    row->best_logit = logit;
    row->best_token = id;
}

static void block_argmax(VocabRow *row, const float *values, int32_t id, float largest) {
    if (largest < row->best || largest == -INFINITY) return;
    int i = 0;
    while (values[i] != largest) i++;
    offer(row, largest, largest, id + i);
}

/* The smallest random word with which a logit can still win, or 2^32 if none can: noise above g
 * needs a uniform number above exp(-exp(-g)). Lowered a little, so that rounding never excludes a
 * winner; the remaining ids are compared exactly. */
static uint64_t least_word(double best, double largest) {
    double g = best - largest;
    if (!(g <= 22.88)) return (uint64_t)1 << 32; /* the largest noise is 22.87 */
    double word = exp(-exp(-g)) * 0x1p32 * (1 - 1e-12) - 2;
    return word > 0 ? (uint64_t)word : 0;
}

/* True if a word is not below the least. */
INLINE bool words_reach(PhiloxWords words, uint32_t least) {
    VecWide m = (VecWide)((words.low >= least) | (words.high >= least));
    uint64_t any = 0;
#pragma GCC unroll 8
    for (int i = 0; i < PHILOX_BLOCKS; i++) any |= m[i];
    return any != 0;
}

/* Every id has its own random number, so all words of the block are generated, by vectors; but the
 * two logarithms are computed only if the word is large enough to win. */
static void block_draw(VocabRow *row, const float *values, int32_t id, int n, float largest,
                       const VocabChoice *choice, uint64_t stream, int64_t first_index) {
    const double top = (double)largest / choice->temperature;
    uint64_t least = least_word(row->best, top);
    const uint64_t index = (uint64_t)first_index + (uint64_t)id;
    const int skipped = (int)(index % 4); /* words of the first Philox block before ours */
    for (int i = -skipped; i < n && least >> 32 == 0; i += PHILOX_WORDS) {
        PhiloxWords words = philox_words(choice->seed, stream, (index + (uint64_t)(int64_t)i) / 4);
        if (!words_reach(words, (uint32_t)least)) continue;
        uint32_t word[PHILOX_WORDS];
        memcpy(word, &words, sizeof word);
        int begin = i < 0 ? -i : 0, end = n - i < PHILOX_WORDS ? n - i : PHILOX_WORDS;
        for (int k = begin; k < end; k++) {
            if (word[k] < least) continue;
            double noise = random_gumbel(choice->seed, stream, index + (uint64_t)(i + k));
            offer(row, (double)values[i + k] / choice->temperature + noise, values[i + k],
                  id + i + k);
        }
        least = least_word(row->best, top);
    }
}

/* Contiguous ids. */
static void scan(VocabRow *row, const float *logits, const float *bias, int32_t id, int64_t n,
                 const VocabChoice *choice, uint64_t stream, int64_t index) {
    float values[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int m = n - i < BLOCK ? (int)(n - i) : BLOCK;
        float largest = block_load(values, logits + i, bias ? bias + i : NULL, m);
        block_sum(row, values, m, largest);
        if (choice->temperature > 0)
            block_draw(row, values, id + (int32_t)i, m, largest, choice, stream, index);
        else
            block_argmax(row, values, id + (int32_t)i, largest);
    }
}

void ISA_NAME(vocab_scan)(VocabRow *row, const float *logits, const float *bias, int32_t first_id,
                          int64_t n, const VocabChoice *choice, uint64_t stream, int64_t index) {
    if (n > (int64_t)choice->limit - first_id) n = (int64_t)choice->limit - first_id;
    int64_t hole = (int64_t)choice->banned - first_id;
    if (hole < 0 || hole >= n) {
        scan(row, logits, bias, first_id, n, choice, stream, index);
        return;
    }
    scan(row, logits, bias, first_id, hole, choice, stream, index);
    scan(row, logits + hole + 1, bias ? bias + hole + 1 : NULL, choice->banned + 1, n - hole - 1,
         choice, stream, index);
}

void ISA_NAME(softmax_gradient_row)(float *v, float max, float scale, float even, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const int left = n - i < LANES ? (int)(n - i) : LANES;
        Vec p = vec_exp_bounded(vec_get(v, DTYPE_F32, i, left) - max);
        vec_put(v, DTYPE_F32, i, left, scale * p - even);
    }
}
