/* cuda_bf16.h - replaces CUDA's header of this name: see README.md. */
#ifndef EASYFIRST_TESTS_EMULATOR_CUDA_BF16_H
#define EASYFIRST_TESTS_EMULATOR_CUDA_BF16_H

#include "cuda_runtime.h"

extern "C" {
#include "kernels/tensor.h"
}

struct __align__(2) __nv_bfloat16 {
    uint16_t bits;
};
struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
static inline float __bfloat162float(__nv_bfloat16 v) {
    return bf16_to_f32(v.bits);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float v) {
    return {f32_to_bf16(v)};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return {__bfloat162float(v.x), __bfloat162float(v.y)};
}

#endif
