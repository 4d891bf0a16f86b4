/* activation.c - activation functions, elementwise. */
#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/vector.h"

/* x Phi(x), Phi the normal distribution. 1 + erf(x / sqrt 2) loses its digits to cancellation where
 * x is negative; with Q(a) = 1 - Phi(a), gelu(x) = max(x, 0) - |x| Q(|x|) keeps them on both sides.
 *
 * Q(a) = exp(-a^2 / 2) G(a), where G falls slowly from 1/2, as 1 / (a sqrt(2 pi)) in the end: a
 * polynomial of degree 9 in t = 1 / (1 + 0.34 a), minimax in relative error (3e-8) up to a = 14,
 * beyond which Q is 0 in f32; the clamp avoids infinity times that 0. */
INLINE Vec normal_tail(Vec a) { /* G */
    Vec t = 1.0f / (0.34f * a + 1.0f);
    Vec g = t * -0.0261204919f + 0.139499570f;
    g = g * t - 0.273132895f;
    g = g * t + 0.202182828f;
    g = g * t - 0.0447185442f;
    g = g * t + 0.115359195f;
    g = g * t + 0.115197653f;
    g = g * t + 0.136112197f;
    g = g * t + 0.135620503f;
    return g * t;
}

INLINE Vec gelu(Vec x) {
    Vec a = vec_min(vec_set1(15), vec_abs(x));
    return vec_max((Vec){0}, x) - a * normal_tail(a) * vec_exp_bounded(-0.5f * a * a);
}

/* Near 0 the odd series x + x^3 P(x^2), minimax in relative error (4e-9); else from the exponential
 * function, where the value subtracted from 1 is not near 1. */
INLINE Vec tanh_of(Vec x) {
    Vec a = vec_abs(x), u = x * x;
    Vec p = u * -0.005704982606f + 0.02063908295f;
    p = p * u - 0.05373971363f;
    p = p * u + 0.1333144218f;
    p = p * u - 0.3333328194f;
    Vec near = (p * u) * x + x;
    Vec far = 1.0f - 2.0f / (vec_exp(2.0f * a) + 1.0f);
    far = (Vec)((VecBits)far | ((VecBits)x & 0x80000000u));
    return vec_select(a < 0.625f, near, far);
}

INLINE Vec activate(Vec x, Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return gelu(x);
    case ACTIVATION_QUICK_GELU:
        return x / (vec_exp(-1.702f * x) + 1.0f);
    case ACTIVATION_RELU:
        return vec_max((Vec){0}, x);
    case ACTIVATION_TANH:
        return tanh_of(x);
    case ACTIVATION_SILU:
        return x / (vec_exp(-x) + 1.0f);
    default:
        return x;
    }
}

INLINE void activate_typed(void *y, Dtype y_dtype, const void *x, Dtype x_dtype,
                           Activation activation, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_put(y, y_dtype, i, LANES, activate(vec_get(x, x_dtype, i, LANES), activation));
    if (i < n) vec_put(y, y_dtype, i, n - i, activate(vec_get(x, x_dtype, i, n - i), activation));
}

INLINE void activate_row(void *y, Dtype y_dtype, const void *x, Dtype x_dtype,
                         Activation activation, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (x_dtype == f && y_dtype == f)
        activate_typed(y, f, x, f, activation, n);
    else if (x_dtype == f)
        activate_typed(y, h, x, f, activation, n);
    else if (y_dtype == f)
        activate_typed(y, f, x, h, activation, n);
    else
        activate_typed(y, h, x, h, activation, n);
}

void ISA_NAME(activation_row)(void *y, Dtype y_dtype, const void *x, Dtype x_dtype,
                              Activation activation, int64_t n) {
    switch (activation) {
    case ACTIVATION_GELU:
        activate_row(y, y_dtype, x, x_dtype, ACTIVATION_GELU, n);
        break;
    case ACTIVATION_QUICK_GELU:
        activate_row(y, y_dtype, x, x_dtype, ACTIVATION_QUICK_GELU, n);
        break;
    case ACTIVATION_RELU:
        activate_row(y, y_dtype, x, x_dtype, ACTIVATION_RELU, n);
        break;
    case ACTIVATION_TANH:
        activate_row(y, y_dtype, x, x_dtype, ACTIVATION_TANH, n);
        break;
    case ACTIVATION_SILU:
        activate_row(y, y_dtype, x, x_dtype, ACTIVATION_SILU, n);
        break;
    default:
        ISA_NAME(convert_row)(y, y_dtype, x, x_dtype, n);
        break;
    }
}

/* ---- Derivatives. Those of gelu, quick_gelu and tanh are computed from e^-|x|, so that small
 * values keep their digits; the clamps avoid infinity times 0. ---- */

/* Phi(x) + x phi(x). With a = |x| and phi(a) = c exp(-a^2 / 2) it is, at -a, exp(-a^2 / 2) (G(a) -
 * c a), and at a, 1 minus that. */
INLINE Vec gelu_derivative(Vec x) {
    Vec a = vec_min(vec_set1(15), vec_abs(x));
    Vec h = (normal_tail(a) - 0.398942280f * a) * vec_exp_bounded(-0.5f * a * a);
    return vec_select(x < 0.0f, h, 1.0f - h);
}

/* Of x sigmoid(k x), given u = k x: s (1 + u (1 - s)), s being its sigmoid; again 1 minus that of
 * the other sign. */
INLINE Vec sigmoid_derivative(Vec u) {
    Vec a = vec_min(vec_set1(100), vec_abs(u));
    Vec e = vec_exp_bounded(-a), s = 1.0f / (e + 1.0f);
    Vec h = e * s * (1.0f - a * s);
    return vec_select(u < 0.0f, h, 1.0f - h);
}

/* 1 - tanh(x)^2 */
INLINE Vec tanh_derivative(Vec x) {
    Vec a = vec_min(vec_set1(50), vec_abs(x));
    Vec e = vec_exp_bounded(-2.0f * a), s = 1.0f / (e + 1.0f);
    return 4.0f * e * (s * s);
}

INLINE Vec derivative_times(Vec dy, Vec x, Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return dy * gelu_derivative(x);
    case ACTIVATION_QUICK_GELU:
        return dy * sigmoid_derivative(1.702f * x);
    case ACTIVATION_RELU: /* a selection, not a product: below 0 even infinity gives 0 */
        return (Vec)((VecInt)dy & ~(x <= 0.0f));
    case ACTIVATION_TANH:
        return dy * tanh_derivative(x);
    case ACTIVATION_SILU:
        return dy * sigmoid_derivative(x);
    default:
        return dy;
    }
}

INLINE void derivative_typed(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                             const void *x, Dtype x_dtype, Activation activation, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_put(dx, dx_dtype, i, LANES,
                derivative_times(vec_get(dy, dy_dtype, i, LANES), vec_get(x, x_dtype, i, LANES),
                                 activation));
    if (i < n)
        vec_put(dx, dx_dtype, i, n - i,
                derivative_times(vec_get(dy, dy_dtype, i, n - i), vec_get(x, x_dtype, i, n - i),
                                 activation));
}

/* Constant types for those of a training step; others are dispatched for each vector, which the
 * branch predictor hides. */
INLINE void derivative_row(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype, const void *x,
                           Dtype x_dtype, Activation activation, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (dx_dtype == f && dy_dtype == f && x_dtype == f)
        derivative_typed(dx, f, dy, f, x, f, activation, n);
    else if (dx_dtype == h && dy_dtype == h && x_dtype == h)
        derivative_typed(dx, h, dy, h, x, h, activation, n);
    else
        derivative_typed(dx, dx_dtype, dy, dy_dtype, x, x_dtype, activation, n);
}

void ISA_NAME(activation_backward_row)(void *dx, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                                       const void *x, Dtype x_dtype, Activation activation,
                                       int64_t n) {
    switch (activation) {
    case ACTIVATION_GELU:
        derivative_row(dx, dx_dtype, dy, dy_dtype, x, x_dtype, ACTIVATION_GELU, n);
        break;
    case ACTIVATION_QUICK_GELU:
        derivative_row(dx, dx_dtype, dy, dy_dtype, x, x_dtype, ACTIVATION_QUICK_GELU, n);
        break;
    case ACTIVATION_RELU:
        derivative_row(dx, dx_dtype, dy, dy_dtype, x, x_dtype, ACTIVATION_RELU, n);
        break;
    case ACTIVATION_TANH:
        derivative_row(dx, dx_dtype, dy, dy_dtype, x, x_dtype, ACTIVATION_TANH, n);
        break;
    case ACTIVATION_SILU:
        derivative_row(dx, dx_dtype, dy, dy_dtype, x, x_dtype, ACTIVATION_SILU, n);
        break;
    default:
        ISA_NAME(convert_row)(dx, dx_dtype, dy, dy_dtype, n);
        break;
    }
}

/* ---- Gated: act(gate) * up. ---- */

INLINE void gated_typed(void *y, Dtype y_dtype, const void *gate, const void *up, Dtype x_dtype,
                        Activation activation, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        vec_put(y, y_dtype, i, n - i,
                activate(vec_get(gate, x_dtype, i, n - i), activation) *
                    vec_get(up, x_dtype, i, n - i));
}

INLINE void gated_as(void *y, Dtype y_dtype, const void *gate, const void *up, Dtype x_dtype,
                     Activation activation, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (x_dtype == f && y_dtype == f)
        gated_typed(y, f, gate, up, f, activation, n);
    else if (x_dtype == h && y_dtype == h)
        gated_typed(y, h, gate, up, h, activation, n);
    else
        gated_typed(y, y_dtype, gate, up, x_dtype, activation, n);
}

/* The activations of models are constants; others are dispatched for each vector. */
void ISA_NAME(gated_row)(void *y, Dtype y_dtype, const void *gate, const void *up, Dtype x_dtype,
                         Activation activation, int64_t n) {
    if (activation == ACTIVATION_SILU)
        gated_as(y, y_dtype, gate, up, x_dtype, ACTIVATION_SILU, n);
    else if (activation == ACTIVATION_GELU)
        gated_as(y, y_dtype, gate, up, x_dtype, ACTIVATION_GELU, n);
    else
        gated_as(y, y_dtype, gate, up, x_dtype, activation, n);
}

INLINE void gated_derivative(void *dgate, void *dup, Dtype dx_dtype, const void *dy, Dtype dy_dtype,
                             const void *gate, const void *up, Dtype x_dtype, Activation activation,
                             int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t count = n - i;
        const Vec d = vec_get(dy, dy_dtype, i, count), g = vec_get(gate, x_dtype, i, count),
                  u = vec_get(up, x_dtype, i, count);
        vec_put(dgate, dx_dtype, i, count, derivative_times(d * u, g, activation));
        vec_put(dup, dx_dtype, i, count, d * activate(g, activation));
    }
}

INLINE void gated_derivative_as(void *dgate, void *dup, Dtype dx_dtype, const void *dy,
                                Dtype dy_dtype, const void *gate, const void *up, Dtype x_dtype,
                                Activation activation, int64_t n) {
    const Dtype f = DTYPE_F32, h = DTYPE_BF16;
    if (dx_dtype == f && dy_dtype == f && x_dtype == f)
        gated_derivative(dgate, dup, f, dy, f, gate, up, f, activation, n);
    else if (dx_dtype == h && dy_dtype == h && x_dtype == h)
        gated_derivative(dgate, dup, h, dy, h, gate, up, h, activation, n);
    else
        gated_derivative(dgate, dup, dx_dtype, dy, dy_dtype, gate, up, x_dtype, activation, n);
}

void ISA_NAME(gated_backward_row)(void *dgate, void *dup, Dtype dx_dtype, const void *dy,
                                  Dtype dy_dtype, const void *gate, const void *up, Dtype x_dtype,
                                  Activation activation, int64_t n) {
    if (activation == ACTIVATION_SILU)
        gated_derivative_as(dgate, dup, dx_dtype, dy, dy_dtype, gate, up, x_dtype, ACTIVATION_SILU,
                            n);
    else if (activation == ACTIVATION_GELU)
        gated_derivative_as(dgate, dup, dx_dtype, dy, dy_dtype, gate, up, x_dtype, ACTIVATION_GELU,
                            n);
    else
        gated_derivative_as(dgate, dup, dx_dtype, dy, dy_dtype, gate, up, x_dtype, activation, n);
}
