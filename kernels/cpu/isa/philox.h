/* philox.h - the blocks of random.h's Philox4x32-10, several at a time in the lanes of a register.
 * Dropout and the draws of vocab_scan need one number for each key or id: one block at a time would
 * take longer than the matmul.
 */
#ifndef EASYFIRST_KERNELS_CPU_ISA_PHILOX_H
#define EASYFIRST_KERNELS_CPU_ISA_PHILOX_H

#include "kernels/cpu/isa/vector.h"

/* Each 64-bit lane works on one block and holds 32-bit words, so that 64-bit products fit. */
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

/* Words in order, of blocks first ... first + PHILOX_BLOCKS - 1: word i of low, and then of high,
 * is the one of random_uniform(seed, stream, 4 * first + i). */
typedef struct PhiloxWords {
    VecBits low, high;
} PhiloxWords;

INLINE PhiloxWords philox_words(uint64_t seed, uint64_t stream, uint64_t first) {
    const uint64_t half = 0xffffffffu;
#if LANES == 16
    VecWide block = first + (VecWide){0, 1, 2, 3, 4, 5, 6, 7};
#elif LANES == 8
    VecWide block = first + (VecWide){0, 1, 2, 3};
#else
    VecWide block = first + (VecWide){0, 1};
#endif
    const VecWide m0 = (VecWide){0} + 0xD2511F53u, m1 = (VecWide){0} + 0xCD9E8D57u;
    VecWide c0 = block & half, c1 = block >> 32;
    VecWide c2 = (VecWide){0} + (stream & half), c3 = (VecWide){0} + (stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        VecWide p0 = wide_multiply(m0, c0), p1 = wide_multiply(m1, c2);
        c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0;
        c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
        c1 = p1 & half, c3 = p0 & half;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    /* Words 0 and 1 of each block, words 2 and 3 of each block (in little-endian lanes); zipped. */
    VecWide a = c0 | c1 << 32, b = c2 | c3 << 32;
#if LANES == 16
    return (PhiloxWords){(VecBits)__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11),
                         (VecBits)__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)};
#elif LANES == 8
    return (PhiloxWords){(VecBits)__builtin_shufflevector(a, b, 0, 4, 1, 5),
                         (VecBits)__builtin_shufflevector(a, b, 2, 6, 3, 7)};
#else
    return (PhiloxWords){(VecBits)__builtin_shufflevector(a, b, 0, 2),
                         (VecBits)__builtin_shufflevector(a, b, 1, 3)};
#endif
}

#endif
