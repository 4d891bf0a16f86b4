#include "kernels/cuda/values.cuh"

enum { PATCH_THREADS = 256 };

/* One block a patch, whose threads loop over its values: the row of y is written contiguously. A
 * warp reads lines of a patch (14 values); other warps and blocks find the rest of their memory
 * sectors in the caches. 6 bytes a value; an image of 224 x 224 is 0.9 MB, so a batch of one takes
 * no time. */
template <typename Y>
__global__ void __launch_bounds__(PATCH_THREADS)
    patches_kernel(Y *y, const float *x, int channels, int side, int patch) {
    const unsigned across = (unsigned)(side / patch), square = (unsigned)(patch * patch);
    const unsigned n = (unsigned)channels * square, column = blockIdx.x % across,
                   line = blockIdx.x / across;
    const int64_t image = line / across, plane = (int64_t)side * side;
    const float *corner = x + image * channels * plane + (int64_t)(line % across) * patch * side +
                          column * (unsigned)patch;
    Y *row = y + (int64_t)blockIdx.x * n;
    for (unsigned i = threadIdx.x; i < n; i += PATCH_THREADS) {
        const unsigned channel = i / square, at = i % square;
        from_f32(row + i, corner[channel * plane + (int64_t)(at / (unsigned)patch) * side +
                                 at % (unsigned)patch]);
    }
}

template <typename Y>
static int patches_launch(Device *device, Tensor y, Tensor x, int channels, int side, int patch,
                          Error *err) {
    LAUNCH(device, patches_kernel<Y>, (unsigned)y.shape[0], PATCH_THREADS, 0, err, (Y *)y.data,
           (const float *)x.data, channels, side, patch);
    return 0;
}

int cuda_patches_forward(Device *device, Tensor y, Tensor x, int channels, int side, int patch,
                         Error *err) {
    if (y.shape[0] > INT32_MAX || y.shape[1] > INT32_MAX)
        return error_set(err, "patches_forward: %lld patches of %lld values are too many for a GPU",
                         (long long)y.shape[0], (long long)y.shape[1]);
    WITH_TYPE(Y, y.dtype, return patches_launch<Y>(device, y, x, channels, side, patch, err));
    return 0;
}
