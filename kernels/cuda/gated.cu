/* y = act(gate) * up and its gradient, value by value. Memory-bound: each byte is read and written
 * once. A row of x has the gates, then the ups, so that a thread's values of both are a row's
 * number of columns apart.
 */
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/elementwise.cuh"

/* N values a thread: of a row alone, since N divides its columns. */
struct Gated {
    void *y; /* or dx */
    const void *x, *dy;
    int64_t columns, count; /* of y, or of dy */
    Dtype y_dtype;
    Activation activation;
};

/* The activation of models is a constant. */
template <bool SILU> static __device__ __forceinline__ Activation gated_by(const Gated &a) {
    return SILU ? ACTIVATION_SILU : a.activation;
}

template <typename X, int N, bool SILU>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS) gated_kernel(Gated a) {
    const int64_t at = elementwise_first(N);
    if (at >= a.count) return;
    const int64_t row = at / a.columns;
    const X *gates = static_cast<const X *>(a.x) + at + row * a.columns;
    float gate[N], up[N];
    values_get(gate, gates, N, N > 1);
    values_get(up, gates + a.columns, N, N > 1);
#pragma unroll
    for (int i = 0; i < N; i++) up[i] *= activate(gate[i], gated_by<SILU>(a));
    values_put_as(a.y, a.y_dtype, at, up, N, N > 1);
}

/* dx may be x: a thread writes only values that no other reads. */
template <typename DY, typename X, int N, bool SILU>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS) gated_backward_kernel(Gated a) {
    const int64_t at = elementwise_first(N);
    if (at >= a.count) return;
    const int64_t first = at + at / a.columns * a.columns; /* in x */
    const X *gates = static_cast<const X *>(a.x) + first;
    float gate[N], up[N], dy[N];
    values_get(gate, gates, N, N > 1);
    values_get(up, gates + a.columns, N, N > 1);
    values_get(dy, static_cast<const DY *>(a.dy) + at, N, N > 1);
#pragma unroll
    for (int i = 0; i < N; i++) {
        up[i] = activate_backward(dy[i] * up[i], gate[i], gated_by<SILU>(a));
        gate[i] = dy[i] * activate(gate[i], gated_by<SILU>(a));
    }
    values_put_as(a.y, a.y_dtype, first, up, N, N > 1);
    values_put_as(a.y, a.y_dtype, first + a.columns, gate, N, N > 1);
}

template <typename X, int N> static int gated_launch(Device *device, const Gated &a, Error *err) {
    WITH_FLAG(SILU, a.activation == ACTIVATION_SILU,
              LAUNCH(device, (gated_kernel<X, N, SILU>), elementwise_blocks(a.count, N),
                     ELEMENTWISE_THREADS, 0, err, a));
    return 0;
}

int cuda_gated_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err) {
    enum { N = 4 };
    const Gated a = {y.data, x.data, NULL, y.shape[1], tensor_count(y), y.dtype, activation};
    const bool wide = a.columns % N == 0 && values_aligned(x, N) && values_aligned(y, N);
    WITH_TYPE(X, x.dtype,
              return wide ? (gated_launch<X, N>)(device, a, err)
                          : (gated_launch<X, 1>)(device, a, err));
    return 0;
}

template <typename DY, typename X, int N>
static int gated_backward_launch(Device *device, const Gated &a, Error *err) {
    WITH_FLAG(SILU, a.activation == ACTIVATION_SILU,
              LAUNCH(device, (gated_backward_kernel<DY, X, N, SILU>),
                     elementwise_blocks(a.count, N), ELEMENTWISE_THREADS, 0, err, a));
    return 0;
}

int cuda_gated_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                        Error *err) {
    enum { N = 4 };
    const Gated a = {dx.data, x.data, dy.data, dy.shape[1], tensor_count(dy), dx.dtype, activation};
    const bool wide = a.columns % N == 0 && values_aligned(x, N) && values_aligned(dy, N) &&
                      values_aligned(dx, N);
    WITH_TYPE(DY, dy.dtype,
              WITH_TYPE(X, x.dtype,
                        return wide ? (gated_backward_launch<DY, X, N>)(device, a, err)
                                    : (gated_backward_launch<DY, X, 1>)(device, a, err)));
    return 0;
}
