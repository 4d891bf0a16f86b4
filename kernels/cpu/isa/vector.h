/* vector.h - SIMD vectors of one register, and the kernels' operations on them.
 *
 * The files of kernels/cpu/isa/ are written once, with GCC's vector extensions, and compiled once
 * for each instruction set: 16 lanes with AVX-512, 8 with AVX2, 4 with what every x86-64 (SSE2) or
 * other processor has. Intrinsics are used only where the extensions cannot express an instruction,
 * with a plain alternative.
 *
 * Everything here is inlined: no vector may cross a call, whose convention would depend on the
 * flags. A comparison gives lanes of all ones or all zeros, which serve as masks.
 */
#ifndef EASYFIRST_KERNELS_CPU_ISA_VECTOR_H
#define EASYFIRST_KERNELS_CPU_ISA_VECTOR_H

#include <math.h>
#include <string.h>

#include "kernels/tensor.h"

#if defined __SSE2__
#include <immintrin.h>
#endif

#if defined __AVX512F__
#define LANES 16
#elif defined __AVX2__
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t VecInt __attribute__((vector_size(LANES * 4)));
typedef uint32_t VecBits __attribute__((vector_size(LANES * 4)));
typedef uint16_t VecHalf __attribute__((vector_size(LANES * 2)));
typedef int8_t VecByte __attribute__((vector_size(LANES)));
typedef float Vec4 __attribute__((vector_size(16)));

/* The same in memory: aligned to one element only, and may alias anything. */
typedef Vec VecMemory __attribute__((aligned(4), may_alias));
typedef VecInt VecIntMemory __attribute__((aligned(4), may_alias));
typedef VecHalf VecHalfMemory __attribute__((aligned(2), may_alias));
typedef VecByte VecByteMemory __attribute__((aligned(1), may_alias));

INLINE Vec vec_load(const float *p) {
    return *(const VecMemory *)p;
}

INLINE void vec_store(float *p, Vec v) {
    *(VecMemory *)p = v;
}

INLINE Vec vec_set1(float x) {
    return x - (Vec){0};
}

INLINE Vec vec_select(VecInt mask, Vec yes, Vec no) {
    return (Vec)(((VecInt)yes & mask) | ((VecInt)no & ~mask));
}

/* a > b ? a : b and a < b ? a : b, as on x86: where either is NaN the result is b. */
#if defined __AVX512F__
#define VEC_X86(op, a, b) _mm512_##op##_ps(a, b)
#elif defined __AVX2__
#define VEC_X86(op, a, b) _mm256_##op##_ps(a, b)
#elif defined __SSE2__
#define VEC_X86(op, a, b) _mm_##op##_ps(a, b)
#endif

INLINE Vec vec_max(Vec a, Vec b) {
#if defined VEC_X86
    return VEC_X86(max, a, b);
#else
    return vec_select(a > b, a, b);
#endif
}

INLINE Vec vec_min(Vec a, Vec b) {
#if defined VEC_X86
    return VEC_X86(min, a, b);
#else
    return vec_select(a < b, a, b);
#endif
}

INLINE Vec vec_abs(Vec v) {
    return (Vec)((VecInt)v & 0x7fffffff);
}

/* 0, 1, 2, ... */
INLINE VecInt vec_lane_numbers(void) {
#if LANES == 16
    return (VecInt){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif LANES == 8
    return (VecInt){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (VecInt){0, 1, 2, 3};
#endif
}

/* ---- All lanes in one. The order of a sum depends on LANES alone. ---- */

#define VEC_QUARTER(v, i) \
    __builtin_shufflevector(v, v, 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3)

INLINE float vec_sum(Vec v) {
#if LANES == 16
    Vec4 q = (VEC_QUARTER(v, 0) + VEC_QUARTER(v, 2)) + (VEC_QUARTER(v, 1) + VEC_QUARTER(v, 3));
#elif LANES == 8
    Vec4 q = VEC_QUARTER(v, 0) + VEC_QUARTER(v, 1);
#else
    Vec4 q = v;
#endif
    return (q[0] + q[2]) + (q[1] + q[3]);
}

INLINE Vec4 vec4_max(Vec4 a, Vec4 b) {
#if defined __SSE2__
    return _mm_max_ps(a, b);
#else
    typedef int32_t Int4 __attribute__((vector_size(16)));
    Int4 mask = a > b;
    return (Vec4)(((Int4)a & mask) | ((Int4)b & ~mask));
#endif
}

/* The largest lane; whether NaN lanes are ignored is undefined. */
INLINE float vec_largest(Vec v) {
#if LANES == 16
    Vec4 q = vec4_max(vec4_max(VEC_QUARTER(v, 0), VEC_QUARTER(v, 2)),
                      vec4_max(VEC_QUARTER(v, 1), VEC_QUARTER(v, 3)));
#elif LANES == 8
    Vec4 q = vec4_max(VEC_QUARTER(v, 0), VEC_QUARTER(v, 1));
#else
    Vec4 q = v;
#endif
    float a = q[0] > q[2] ? q[0] : q[2], b = q[1] > q[3] ? q[1] : q[3];
    return a > b ? a : b;
}

/* ---- bf16 and f16. ---- */

/* Between 16 and 32 bits. GCC would convert in halves and combine them. */
INLINE VecBits vec_widen(VecHalf h) {
#if defined __AVX512F__
    return (VecBits)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined __AVX2__
    return (VecBits)_mm256_cvtepu16_epi32((__m128i)h);
#else
    return __builtin_convertvector(h, VecBits);
#endif
}

/* Of numbers below 65536. */
INLINE VecHalf vec_narrow(VecBits u) {
#if defined __AVX512F__
    return (VecHalf)_mm512_cvtepi32_epi16((__m512i)u);
#elif defined __AVX2__
    __m256i pairs = _mm256_packus_epi32((__m256i)u, (__m256i)u); /* within each half: 0 0 1 1 */
    return (VecHalf)_mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0x08));
#else
    return __builtin_convertvector(u, VecHalf);
#endif
}

INLINE Vec vec_from_bf16(VecHalf h) {
    return (Vec)(vec_widen(h) << 16);
}

/* Round to nearest even; a NaN is made quiet, so that it cannot become an infinity. */
INLINE VecHalf vec_to_bf16(Vec v) {
    VecBits u = (VecBits)v;
    VecBits rounded = u + 0x7fffu + ((u >> 16) & 1u), quiet = u | 0x400000u;
    VecBits nan = (VecBits)(v != v);
    return vec_narrow(((rounded & ~nan) | (quiet & nan)) >> 16);
}

/* The exponent is rebased by a multiplication with 2^112, which is exact for normal and subnormal
 * halves alike; infinities and NaN get the exponent of all ones. */
INLINE Vec vec_from_f16(VecHalf h) {
    VecBits u = vec_widen(h);
    VecBits magnitude = (u & 0x7fffu) << 13, special = (VecBits)((u & 0x7c00u) == 0x7c00u);
    VecBits scaled = (VecBits)((Vec)magnitude * 0x1p112f);
    return (Vec)(scaled | (special & (magnitude | 0x7f800000u)) | ((u & 0x8000u) << 16));
}

/* Round to nearest even. Normal halves: the mantissa is rounded in integers, a carry propagates
 * into the exponent. Smaller ones: adding 1/2, whose last place is the smallest half, lets the
 * processor round. From 65520 on: infinity. */
INLINE VecHalf vec_to_f16(Vec v) {
    VecBits u = (VecBits)v, a = u & 0x7fffffffu;
    VecBits normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    VecBits small = (VecBits)((Vec)a + 0.5f) - 0x3f000000u;
    VecBits is_small = (VecBits)(a < 0x38800000u), is_large = (VecBits)(a >= 0x477ff000u);
    VecBits large = 0x7c00u | ((VecBits)(v != v) & 0x200u);
    VecBits h = (small & is_small) | (normal & ~is_small & ~is_large) | (large & is_large);
    return vec_narrow(h | ((u >> 16) & 0x8000u));
}

/* ---- Parts of an array of f32, bf16 or f16, from element i on: `count` values, or a whole vector
 * if there are more. Lanes beyond are neither read nor written in memory and count as zero. With
 * constant dtype and count, as in a loop over whole vectors, these compile to one load or store.
 * ---- */

INLINE Vec vec_get(const void *from, Dtype dtype, int64_t i, int64_t count) {
    if (dtype == DTYPE_F32) {
        const float *p = (const float *)from + i;
        if (count >= LANES) return vec_load(p);
        float part[LANES] = {0};
        memcpy(part, p, (size_t)count * sizeof *p);
        return vec_load(part);
    }
    const uint16_t *p = (const uint16_t *)from + i;
    VecHalf h = {0};
    if (count >= LANES)
        h = *(const VecHalfMemory *)p;
    else
        memcpy(&h, p, (size_t)count * sizeof *p);
    return dtype == DTYPE_BF16 ? vec_from_bf16(h) : vec_from_f16(h);
}

INLINE void vec_put(void *to, Dtype dtype, int64_t i, int64_t count, Vec v) {
    if (dtype == DTYPE_F32) {
        float *p = (float *)to + i;
        if (count >= LANES)
            vec_store(p, v);
        else
            memcpy(p, &v, (size_t)count * sizeof *p);
        return;
    }
    uint16_t *p = (uint16_t *)to + i;
    VecHalf h = dtype == DTYPE_BF16 ? vec_to_bf16(v) : vec_to_f16(v);
    if (count >= LANES)
        *(VecHalfMemory *)p = h;
    else
        memcpy(p, &h, (size_t)count * sizeof *p);
}

/* ---- exp. ---- */

/* e^x for x <= 88, relative error 1.5e-7 at most; 0 below -87.33 (results there would be
 * subnormal); NaN stays NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2. n comes from adding 1.5 * 2^23, at which a float's last
 * place is 1: the sum's low bits are then n itself, ready to be shifted into an exponent. ln 2 is
 * subtracted in two parts, the first with so few bits that n times it is exact. e^r = 1 + r + r^2
 * P(r), P being minimax of degree 4 (1e-8). The clamp is written so that a NaN passes it. */
INLINE Vec vec_exp_bounded(Vec x) {
    const float shift = 0x1.8p23f;
    VecInt gone = x < -87.33f;
    Vec t = vec_max(vec_set1(-88), x) * 0x1.715476p+0f + shift;
    Vec n = t - shift;
    Vec r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    Vec p = r * 0.00139412180f + 0.00836323505f;
    p = p * r + 0.0416663741f;
    p = p * r + 0.166665766f;
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    Vec power = (Vec)(((VecBits)t << 23) + 0x3f800000u);
    return (Vec)((VecInt)(p * power) & ~gone);
}

/* The same for all x; infinity from 88.38 on. */
INLINE Vec vec_exp(Vec x) {
    return vec_exp_bounded(vec_min(vec_set1(88.5f), x));
}

#endif
