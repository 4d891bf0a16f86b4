#include "data/metrics/numpy_random.h"

__extension__ typedef unsigned __int128 Wide;

/* ---- SeedSequence: the seed's 32-bit words, mixed into a pool, from which any number of words is
 * drawn. ---- */

enum { POOL = 4, SHIFT = 16 };

static uint32_t mix_word(uint32_t value, uint32_t *constant) {
    value ^= *constant;
    *constant *= 0x931e8875u;
    value *= *constant;
    return value ^ value >> SHIFT;
}

static uint32_t mix_pair(uint32_t x, uint32_t y) {
    uint32_t result = 0xca01f9ddu * x - 0x4973f715u * y;
    return result ^ result >> SHIFT;
}

static void pool_fill(uint32_t pool[POOL], uint64_t seed) {
    const uint32_t words[POOL] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t constant = 0x43b0d7e5u;
    for (int i = 0; i < POOL; i++) pool[i] = mix_word(words[i], &constant);
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to) pool[to] = mix_pair(pool[to], mix_word(pool[from], &constant));
}

static void pool_draw(const uint32_t pool[POOL], uint64_t *out, int count) {
    uint32_t constant = 0x8b51f9ddu;
    for (int i = 0; i < 2 * count; i++) {
        uint32_t value = pool[i % POOL] ^ constant;
        constant *= 0x58f38dedu;
        value *= constant;
        value ^= value >> SHIFT;
        out[i / 2] = i % 2 ? out[i / 2] | (uint64_t)value << 32 : value;
    }
}

/* ---- PCG64. ---- */

static Wide join(const uint64_t halves[2]) {
    return (Wide)halves[0] << 64 | halves[1];
}

static void split(uint64_t halves[2], Wide value) {
    halves[0] = (uint64_t)(value >> 64), halves[1] = (uint64_t)value;
}

static Wide step(Wide state, Wide increment) {
    const Wide multiplier = (Wide)0x2360ed051fc65da4u << 64 | 0x4385df649fccf645u;
    return state * multiplier + increment;
}

void numpy_random_seed(NumpyRandom *r, uint64_t seed) {
    uint32_t pool[POOL];
    uint64_t words[4] = {0};
    pool_fill(pool, seed);
    pool_draw(pool, words, 4);
    *r = (NumpyRandom){0};
    Wide increment = join(words + 2) << 1 | 1;
    split(r->increment, increment);
    split(r->state, step(step(0, increment) + join(words), increment));
}

uint64_t numpy_random_next(NumpyRandom *r) {
    Wide state = step(join(r->state), join(r->increment));
    split(r->state, state);
    uint64_t folded = r->state[0] ^ r->state[1];
    int turn = (int)(state >> 122);
    return turn ? folded >> turn | folded << (64 - turn) : folded;
}

/* The low half of 64 bits, then the high half. */
static uint32_t next_half(NumpyRandom *r) {
    if (r->has_kept) {
        r->has_kept = false;
        return r->kept;
    }
    uint64_t both = numpy_random_next(r);
    r->kept = (uint32_t)(both >> 32), r->has_kept = true;
    return (uint32_t)both;
}

/* Lemire's method (2019): the high half of a product, without the draws that would make the first
 * numbers likelier. */
uint32_t numpy_random_below(NumpyRandom *r, uint32_t count) {
    if (count <= 1) return 0; /* numpy draws nothing */
    uint64_t product = (uint64_t)next_half(r) * count;
    if ((uint32_t)product < count)
        for (uint32_t least = -count % count; (uint32_t)product < least;)
            product = (uint64_t)next_half(r) * count;
    return (uint32_t)(product >> 32);
}

bool numpy_random_bit(NumpyRandom *r) {
    if (!r->bit_count)
        r->bits = next_half(r), r->bit_count = 32;
    else
        r->bits >>= 1;
    r->bit_count--;
    return r->bits & 1;
}
