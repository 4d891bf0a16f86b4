/* Rotary positions. Memory-bound: each value is read and written once, the table's few rows are in
 * the cache. A thread turns one pair, so that a warp accesses contiguous values of both halves of a
 * head; y may be x, since no other thread reads its pair.
 */
#include "kernels/cuda/elementwise.cuh"

struct Rotation {
    void *y;
    const void *x;
    int64_t y_ld, x_ld, pairs; /* pairs: of all rows */
    const float *table;
    const int32_t *index;
    int heads, half;
    float sign;
};

template <typename Y, typename X>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS) rotary_kernel(Rotation a) {
    const int64_t at = elementwise_first(1);
    if (at >= a.pairs) return;
    const int64_t row = at / (a.heads * a.half);
    const int pair = (int)(at % (a.heads * a.half)), head = pair / a.half, i = pair % a.half;
    const int column = head * 2 * a.half + i;
    const float *turn = a.table + (int64_t)a.index[row] * 2 * a.half;
    const float c = turn[i], s = a.sign * turn[a.half + i];
    const X *x = static_cast<const X *>(a.x) + row * a.x_ld + column;
    Y *y = static_cast<Y *>(a.y) + row * a.y_ld + column;
    const float first = to_f32(x[0]), second = to_f32(x[a.half]);
    const float turned[2] = {first * c - second * s, second * c + first * s};
    const float low[1] = {turned[0]}, high[1] = {turned[1]};
    values_put(y, low, 1, false);
    values_put(y + a.half, high, 1, false);
}

template <typename Y, typename X>
static int rotary_launch(Device *device, const Rotation &a, Error *err) {
    LAUNCH(device, (rotary_kernel<Y, X>), elementwise_blocks(a.pairs, 1), ELEMENTWISE_THREADS, 0,
           err, a);
    return 0;
}

int cuda_rotary_forward(Device *device, Tensor y, Tensor x, Tensor table, Tensor index, bool back,
                        Error *err) {
    Rotation a = {};
    a.y = y.data, a.x = x.data, a.y_ld = y.ld, a.x_ld = x.ld;
    a.table = (const float *)table.data, a.index = (const int32_t *)index.data;
    a.half = (int)(table.shape[1] / 2), a.heads = (int)(x.shape[1] / table.shape[1]);
    a.pairs = x.shape[0] * x.shape[1] / 2;
    a.sign = back ? -1 : 1;
    WITH_TYPE(Y, y.dtype, WITH_TYPE(X, x.dtype, return (rotary_launch<Y, X>)(device, a, err)));
    return 0;
}
