/* Convolutions of images with their channels together.
 *
 * Those of one pixel are matmuls, by cuBLASLt: they have most of the multiplications. All others, a
 * tower's first one and the depthwise ones, are bound by memory and have a kernel here. cuDNN's
 * convolutions take the same padding on both sides only, which TensorFlow's "same" is not.
 *
 * A weight is packed as a matrix [out, kernel * kernel * channels], the channels of a pixel
 * together (depthwise: [out, kernel * kernel]). */
#include "kernels/cuda/pack.h"
#include "kernels/cuda/values.cuh"

#include <stdlib.h>

enum { CONV_THREADS = 256 };

static bool is_matmul(const Conv2d *c) {
    return c->kernel == 1 && c->stride == 1 && !c->before && !c->after && !c->depthwise;
}

static __device__ __forceinline__ float limit6(float v, bool relu6) {
    return !relu6 ? v : v < 0 ? 0 : v > 6 ? 6 : v; /* a NaN stays one */
}

/* One result a thread, neighbours in a warp being neighbouring channels of a place: reads of x and
 * writes of y are contiguous if depthwise; otherwise all read the same x, and the few weights come
 * from the caches. */
template <typename T>
__global__ void __launch_bounds__(CONV_THREADS)
    conv2d_kernel(T *y, const T *x, const T *w, int64_t ld, const float *b, Conv2d c, int wide,
                  int64_t places, int64_t count, bool accumulate) {
    const int64_t step = (int64_t)gridDim.x * CONV_THREADS;
    const int in = c.depthwise ? 1 : c.channels;
    for (int64_t i = (int64_t)blockIdx.x * CONV_THREADS + threadIdx.x; i < count; i += step) {
        const int o = (int)(i % c.out);
        const int64_t place = i / c.out % places, image = i / c.out / places;
        const int top = (int)(place / wide) * c.stride - c.before;
        const int left = (int)(place % wide) * c.stride - c.before;
        const T *pixels = x + image * c.height * c.width * c.channels + (c.depthwise ? o : 0);
        const T *row = w + o * ld;
        float sum = b[o];
        for (int dy = 0; dy < c.kernel; dy++) {
            if (top + dy < 0 || top + dy >= c.height) continue;
            for (int dx = 0; dx < c.kernel; dx++) {
                if (left + dx < 0 || left + dx >= c.width) continue;
                const T *at = pixels + ((int64_t)(top + dy) * c.width + left + dx) * c.channels;
                const T *weight = row + (int64_t)(dy * c.kernel + dx) * in;
                for (int k = 0; k < in; k++) sum += to_f32(weight[k]) * to_f32(at[k]);
            }
        }
        if (accumulate) sum += to_f32(y[i]);
        from_f32(y + i, limit6(sum, c.relu6));
    }
}

/* What a matmul lacks: y = limit(y + b). */
template <typename T>
__global__ void __launch_bounds__(CONV_THREADS)
    conv2d_finish_kernel(T *y, const float *b, int out, int64_t count, bool relu6) {
    const int64_t step = (int64_t)gridDim.x * CONV_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * CONV_THREADS + threadIdx.x; i < count; i += step)
        from_f32(y + i, limit6(to_f32(y[i]) + b[i % out], relu6));
}

template <typename T>
static int conv2d_launch(Device *device, Tensor y, Tensor x, Tensor w, const float *b,
                         bool accumulate, Error *err) {
    const Conv2d c = w.packed->conv;
    const int64_t count = tensor_count(y), ld = pack_layout(w)->ld;
    const int wide = conv2d_places(&c, c.width);
    const int64_t places = (int64_t)conv2d_places(&c, c.height) * wide;
    /* 8 blocks fill an SM's threads. */
    const unsigned blocks = cuda_blocks(
        count, CONV_THREADS, 8 * (int64_t)cuda_state(device)->properties.multiProcessorCount);
    T *to = (T *)y.data;
    if (is_matmul(&c)) {
        LAUNCH(device, conv2d_finish_kernel<T>, blocks, CONV_THREADS, 0, err, to, b, c.out, count,
               c.relu6);
        return 0;
    }
    const T *from = (const T *)x.data, *weight = (const T *)w.packed->data;
    LAUNCH(device, conv2d_kernel<T>, blocks, CONV_THREADS, 0, err, to, from, weight, ld, b, c, wide,
           places, count, accumulate);
    return 0;
}

int cuda_conv2d_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, bool accumulate,
                        Error *err) {
    const struct Packed *p = w.packed;
    if (is_matmul(&p->conv)) {
        Tensor matrix = tensor_2d(p->data, p->dtype, p->rows, p->columns);
        matrix.packed = p;
        TRY(cuda_matmul(device, y, operand(x, false), weight_operand(matrix, 0, p->rows, true),
                        NULL, accumulate, err));
    }
    WITH_TYPE(T, y.dtype,
              return conv2d_launch<T>(device, y, x, w, (const float *)b.data, accumulate, err));
    return 0;
}

int cuda_conv2d_pack(Device *device, struct Packed **packed, const Conv2d *conv, Tensor w,
                     Dtype compute, Error *err) {
    const int64_t in = w.shape[1], square = (int64_t)conv->kernel * conv->kernel;
    const float *from = (const float *)w.data;
    float *rows = (float *)malloc((size_t)tensor_count(w) * sizeof *rows);
    if (!rows) return error_set(err, "out of memory for a convolution's weight");
    for (int64_t o = 0; o < conv->out; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t s = 0; s < square; s++)
                rows[(o * square + s) * in + i] = from[(o * in + i) * square + s];
    Tensor matrix = tensor_2d(rows, DTYPE_F32, conv->out, square * in);
    const int status = cuda_pack_weight(device, packed, &matrix, 1, compute, false, NULL, err);
    free(rows);
    if (status == 0) (*packed)->conv = *conv;
    return status;
}
