/* philox.h - the blocks of random.h's Philox4x32-10, several at a time in the lanes of a register.
 * Dropout and the draws of vocab_scan need one number for each key or id: one block at a time they
 * would take longer than the matrix product.
 */
#ifndef EASYFIRST_KERNELS_CPU_ISA_PHILOX_H
#define EASYFIRST_KERNELS_CPU_ISA_PHILOX_H

#include "kernels/cpu/isa/vector.h"

/* Each 64-bit lane works on one block and holds 32-bit words, so that products have their room. */
enum { PHILOX_BLOCKS = LANES / 2, PHILOX_WORDS = 4 * PHILOX_BLOCKS };
typedef uint64_t VecWide __attribute__((vector_size(LANES * 4)));

/* The product of the low halves. */
INLINE VecWide wide_multiply(VecWide a, VecWide b) {
#if defined __AVX512F__
    return (VecWide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined __AVX2__
    return (VecWide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined __SSE2__
    return (VecWide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* The words of blocks first ... first + PHILOX_BLOCKS - 1 in order: word i is the one that
 * random_uniform(seed, stream, 4 * first + i) is made of. */
INLINE void philox_words(uint32_t words[PHILOX_WORDS], uint64_t seed, uint64_t stream,
                         uint64_t first) {
    const uint64_t low = 0xffffffffu;
    VecWide block;
    for (int i = 0; i < PHILOX_BLOCKS; i++) block[i] = first + (uint64_t)i;
    const VecWide m0 = (VecWide){0} + 0xD2511F53u, m1 = (VecWide){0} + 0xCD9E8D57u;
    VecWide c0 = block & low, c1 = block >> 32;
    VecWide c2 = (VecWide){0} + (stream & low), c3 = (VecWide){0} + (stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        VecWide p0 = wide_multiply(m0, c0), p1 = wide_multiply(m1, c2);
        c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0;
        c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
        c1 = p1 & low, c3 = p0 & low;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < PHILOX_BLOCKS; i++) {
        words[4 * i] = (uint32_t)c0[i], words[4 * i + 1] = (uint32_t)c1[i];
        words[4 * i + 2] = (uint32_t)c2[i], words[4 * i + 3] = (uint32_t)c3[i];
    }
}

#endif
