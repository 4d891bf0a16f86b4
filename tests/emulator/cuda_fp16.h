/* cuda_fp16.h - replaces CUDA's header of this name: see README.md. */
#ifndef EASYFIRST_TESTS_EMULATOR_CUDA_FP16_H
#define EASYFIRST_TESTS_EMULATOR_CUDA_FP16_H

#include "cuda_runtime.h"

extern "C" {
#include "kernels/tensor.h"
}

struct __align__(2) __half {
    uint16_t bits;
};
static inline float __half2float(__half v) {
    float f;
    values_convert(&f, DTYPE_F32, &v.bits, DTYPE_F16, 1);
    return f;
}
static inline __half __float2half_rn(float v) {
    __half h;
    values_convert(&h.bits, DTYPE_F16, &v, DTYPE_F32, 1);
    return h;
}

#endif
