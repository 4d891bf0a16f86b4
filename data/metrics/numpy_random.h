/* numpy_random.h - the random numbers of numpy.random.default_rng(seed), bit for bit: PCG64
 * (O'Neill, 2014; XSL-RR, 128 bits of state) seeded by numpy's SeedSequence. sacrebleu draws its
 * resamples with it.
 */
#ifndef EASYFIRST_DATA_METRICS_NUMPY_RANDOM_H
#define EASYFIRST_DATA_METRICS_NUMPY_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct NumpyRandom {
    uint64_t state[2], increment[2]; /* high half first */
    uint32_t kept;                   /* the high half of the last 64 bits ... */
    bool has_kept;                   /* ... has not been used yet */
    uint32_t bits;                   /* of numpy_random_bit */
    int bit_count;                   /* that are left in it */
} NumpyRandom;

void numpy_random_seed(NumpyRandom *random, uint64_t seed);

uint64_t numpy_random_next(NumpyRandom *random);

/* The next number of integers(count) and of choice(count): 0 <= number < count <= 2^32 - 1. */
uint32_t numpy_random_below(NumpyRandom *random, uint32_t count);

/* The next number of one call of integers(2, dtype=bool). */
bool numpy_random_bit(NumpyRandom *random);

#endif
