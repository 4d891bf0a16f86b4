/* activations.cuh - activation functions and their derivatives of a scalar. Private to
 * kernels/cuda/.
 *
 * The formulas are those of kernels/cpu/isa/activation.c, so that a model's values agree between
 * devices to the last few bits; they keep digits that a naive formula would lose to cancellation.
 * About 25 instructions for a gelu: at 4 bytes read and written for each bf16 value, memory leaves
 * a Hopper SM time for about 35, so that an elementwise kernel is still memory-bound. Switches over
 * a constant cost nothing: make the activation a template argument of the kernel.
 *
 * A NaN stays a NaN everywhere, which fmaxf(x, 0) would not keep.
 */
#ifndef EASYFIRST_KERNELS_CUDA_ACTIVATIONS_CUH
#define EASYFIRST_KERNELS_CUDA_ACTIVATIONS_CUH

#include "kernels/cuda/values.cuh"

/* Q(a) = 1 - Phi(a) of the normal distribution is exp(-a^2 / 2) G(a), and this is G: a polynomial
 * in t = 1 / (1 + 0.34 a), minimax in relative error (3e-8) up to a = 14, beyond which Q is 0. */
static __device__ __forceinline__ float normal_tail(float a) {
    const float t = __fdividef(1.0f, 0.34f * a + 1.0f);
    float g = t * -0.0261204919f + 0.139499570f;
    g = g * t - 0.273132895f;
    g = g * t + 0.202182828f;
    g = g * t - 0.0447185442f;
    g = g * t + 0.115359195f;
    g = g * t + 0.115197653f;
    g = g * t + 0.136112197f;
    g = g * t + 0.135620503f;
    return g * t;
}

/* x Phi(x) = max(x, 0) - |x| Q(|x|). The clamp avoids infinity times 0. */
static __device__ __forceinline__ float gelu(float x) {
    const float a = fminf(15.0f, fabsf(x));
    return (x < 0.0f ? 0.0f : x) - a * normal_tail(a) * expf(-0.5f * a * a);
}

static __device__ __forceinline__ float activate(float x, Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return gelu(x);
    case ACTIVATION_QUICK_GELU:
        return __fdividef(x, expf(-1.702f * x) + 1.0f);
    case ACTIVATION_RELU:
        return x < 0.0f ? 0.0f : x;
    case ACTIVATION_TANH:
        return tanhf(x);
    case ACTIVATION_SILU:
        return __fdividef(x, expf(-x) + 1.0f);
    default:
        return x;
    }
}

/* Phi(x) + x phi(x). With a = |x| and phi(a) = c exp(-a^2 / 2) it is, at -a, exp(-a^2 / 2) (G(a) -
 * c a), and at a, 1 minus that. */
static __device__ __forceinline__ float gelu_derivative(float x) {
    const float a = fminf(15.0f, fabsf(x));
    const float h = (normal_tail(a) - 0.398942280f * a) * expf(-0.5f * a * a);
    return x < 0.0f ? h : x >= 0.0f ? 1.0f - h : x;
}

/* Of x sigmoid(k x), given u = k x: s (1 + u (1 - s)), s being its sigmoid; again 1 minus that of
 * the other sign. e^-110 is exactly 0 in f32, not subnormal. */
static __device__ __forceinline__ float sigmoid_derivative(float u) {
    const float a = fminf(110.0f, fabsf(u));
    const float e = expf(-a), s = __fdividef(1.0f, e + 1.0f);
    const float h = e * s * (1.0f - a * s);
    return u < 0.0f ? h : u >= 0.0f ? 1.0f - h : u;
}

/* 1 - tanh(x)^2, from e^-2|x|. */
static __device__ __forceinline__ float tanh_derivative(float x) {
    const float a = fminf(55.0f, fabsf(x));
    const float e = expf(-2.0f * a), s = __fdividef(1.0f, e + 1.0f);
    return x == x ? 4.0f * e * (s * s) : x;
}

/* dy act'(x) */
static __device__ __forceinline__ float activate_backward(float dy, float x,
                                                          Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return dy * gelu_derivative(x);
    case ACTIVATION_QUICK_GELU:
        return dy * sigmoid_derivative(1.702f * x);
    case ACTIVATION_RELU: /* a selection, not a product: below 0 even infinity gives 0 */
        return x <= 0.0f ? 0.0f : dy;
    case ACTIVATION_TANH:
        return dy * tanh_derivative(x);
    case ACTIVATION_SILU:
        return dy * sigmoid_derivative(x);
    default:
        return dy;
    }
}

#endif
