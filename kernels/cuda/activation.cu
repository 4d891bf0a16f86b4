#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/elementwise.cuh"

/* Statements with A as a constant, so that a kernel contains one formula only; does nothing for
 * ACTIVATION_NONE. */
#define WITH_ACTIVATION(A, activation, ...)                 \
    do {                                                    \
        if ((activation) == ACTIVATION_GELU) {              \
            constexpr Activation A = ACTIVATION_GELU;       \
            __VA_ARGS__;                                    \
        } else if ((activation) == ACTIVATION_RELU) {       \
            constexpr Activation A = ACTIVATION_RELU;       \
            __VA_ARGS__;                                    \
        } else if ((activation) == ACTIVATION_TANH) {       \
            constexpr Activation A = ACTIVATION_TANH;       \
            __VA_ARGS__;                                    \
        } else if ((activation) == ACTIVATION_SILU) {       \
            constexpr Activation A = ACTIVATION_SILU;       \
            __VA_ARGS__;                                    \
        } else {                                            \
            constexpr Activation A = ACTIVATION_QUICK_GELU; \
            __VA_ARGS__;                                    \
        }                                                   \
    } while (0)

template <Activation A> struct Activate {
    __device__ float operator()(float x) const {
        return activate(x, A);
    }
};

int cuda_activation_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err) {
    if (activation == ACTIVATION_NONE) return cuda_convert_forward(device, y, x, err);
    WITH_ACTIVATION(A, activation, return elementwise(device, y, x, Activate<A>{}, err));
    return 0;
}

/* `count` values from `first`, at most N; dx may be dy: a thread writes only values that no other
 * reads. */
template <Activation A, int N, typename DY, typename X>
static __device__ __forceinline__ void derivatives(void *dx, Dtype dx_dtype, const DY *dy,
                                                   const X *x, int64_t first, int64_t count,
                                                   bool aligned) {
    float v[N], at[N];
    values_get(v, dy + first, count, aligned);
    values_get(at, x + first, count, aligned);
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = activate_backward(v[i], at[i], A);
    values_put_as(dx, dx_dtype, first, v, count, aligned);
}

template <Activation A, typename DY, typename X>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS)
    activation_backward_kernel(void *dx, Dtype dx_dtype, const DY *dy, const X *x, int64_t n,
                               bool aligned) {
    enum { N = ValuesWide<DY, X>::COUNT };
    const int64_t first = elementwise_first(N), count = n - first;
    if (count <= 0) return;
    if (aligned && count >= N) /* as constants: without branches between the reads */
        derivatives<A, N>(dx, dx_dtype, dy, x, first, N, true);
    else
        derivatives<A, N>(dx, dx_dtype, dy, x, first, count, false);
}

template <Activation A, typename DY, typename X>
static int backward_launch(Device *device, Tensor dx, Tensor dy, Tensor x, Error *err) {
    enum { N = ValuesWide<DY, X>::COUNT };
    const int64_t n = tensor_count(x);
    const bool aligned = values_aligned(dx, N) && values_aligned(dy, N) && values_aligned(x, N);
    LAUNCH(device, (activation_backward_kernel<A, DY, X>), elementwise_blocks(n, N),
           ELEMENTWISE_THREADS, 0, err, dx.data, dx.dtype, (const DY *)dy.data, (const X *)x.data,
           n, aligned);
    return 0;
}

int cuda_activation_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                             Error *err) {
    if (activation == ACTIVATION_NONE)
        return dx.data == dy.data ? 0 : cuda_convert_forward(device, dx, dy, err);
    WITH_ACTIVATION(
        A, activation,
        WITH_TYPE(
            DY, dy.dtype,
            WITH_TYPE(X, x.dtype, return (backward_launch<A, DY, X>)(device, dx, dy, x, err))));
    return 0;
}
