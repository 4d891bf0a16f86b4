#include "kernels/random.h"

#include <math.h>

void random_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u; /* Weyl sequences: golden ratio, sqrt(3) - 1 */
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

double random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    uint64_t block = index / 4;
    uint32_t out[4];
    random_philox(out,
                  (uint32_t[]){(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                               (uint32_t)(stream >> 32)},
                  (uint32_t[]){(uint32_t)seed, (uint32_t)(seed >> 32)});
    return (out[index % 4] + 0.5) * 0x1p-32;
}

double random_gumbel(uint64_t seed, uint64_t stream, uint64_t index) {
    return -log(-log(random_uniform(seed, stream, index)));
}

/* The finalizer of splitmix64, a bijection of 64 bits; folds in one argument after another. */
static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t random_stream(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    return mix(mix(mix(mix(a) ^ b) ^ c) ^ d);
}
