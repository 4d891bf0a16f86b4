/* values.cuh - shared by all kernels: f32 and bf16 access, sums over warps and blocks, random
 * numbers. Private to kernels/cuda/. */
#ifndef EASYFIRST_KERNELS_CUDA_VALUES_CUH
#define EASYFIRST_KERNELS_CUDA_VALUES_CUH

#include "kernels/cuda/cuda.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;

static const unsigned FULL_WARP = 0xffffffffu;

/* ---- Values. Arithmetic is f32 for all storage types. ---- */

static __device__ __forceinline__ float to_f32(float v) {
    return v;
}
static __device__ __forceinline__ float to_f32(bf16 v) {
    return __bfloat162float(v);
}
static __device__ __forceinline__ float to_f32(f16 v) {
    return __half2float(v);
}
static __device__ __forceinline__ float to_f32(int8_t v) {
    return (float)v;
}
static __device__ __forceinline__ void from_f32(float *to, float v) {
    *to = v;
}
static __device__ __forceinline__ void from_f32(bf16 *to, float v) {
    *to = __float2bfloat16_rn(v);
}
static __device__ __forceinline__ void from_f32(f16 *to, float v) {
    *to = __float2half_rn(v);
}

/* N adjacent values, read and written in one access: the address must be a multiple of their total
 * size. */
template <typename T, int N> struct __align__(sizeof(T) * N) Values {
    T v[N];
};
template <int N, typename T>
static __device__ __forceinline__ void values_read(float (&to)[N], const T *from) {
    const Values<T, N> raw = *reinterpret_cast<const Values<T, N> *>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = to_f32(raw.v[i]);
}
template <int N, typename T>
static __device__ __forceinline__ void values_write(T *to, const float (&from)[N]) {
    Values<T, N> raw;
#pragma unroll
    for (int i = 0; i < N; i++) from_f32(&raw.v[i], from[i]);
    *reinterpret_cast<Values<T, N> *>(to) = raw;
}

/* Whether every row of a matrix is aligned to the size of n values, so that rows of a multiple of n
 * values can be read n at a time. */
static inline bool rows_aligned(Tensor t, int n) {
    const size_t size = dtype_size(t.dtype) * (size_t)n;
    const int64_t ld = t.ndim < 2 ? 0 : t.ld;
    return (uintptr_t)t.data % size == 0 && (size_t)ld * dtype_size(t.dtype) % size == 0;
}

/* The same for the first `count` values only, if fewer than N, at any address: one by one unless
 * `aligned`, which means that the address is a multiple of the size of N values. Missing values
 * read as 0. */
template <int N, typename T>
static __device__ __forceinline__ void values_get(float (&to)[N], const T *from, int64_t count,
                                                  bool aligned) {
    if (aligned && count >= N) {
        values_read(to, from);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = i < count ? to_f32(from[i]) : 0.0f;
}
template <int N, typename T>
static __device__ __forceinline__ void values_put(T *to, const float (&from)[N], int64_t count,
                                                  bool aligned) {
    if (aligned && count >= N) {
        values_write(to, from);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i < count) from_f32(to + i, from[i]);
}

/* Values `at`, at + 1, ... of memory whose type, f32 or bf16, is known at run time only: for
 * writes, and for rare reads. All threads take the same branch. */
template <int N>
static __device__ __forceinline__ void values_get_as(float (&to)[N], const void *from, Dtype dtype,
                                                     int64_t at, int64_t count, bool aligned) {
    if (dtype == DTYPE_F32)
        values_get(to, static_cast<const float *>(from) + at, count, aligned);
    else
        values_get(to, static_cast<const bf16 *>(from) + at, count, aligned);
}
template <int N>
static __device__ __forceinline__ void values_put_as(void *to, Dtype dtype, int64_t at,
                                                     const float (&from)[N], int64_t count,
                                                     bool aligned) {
    if (dtype == DTYPE_F32)
        values_put(static_cast<float *>(to) + at, from, count, aligned);
    else
        values_put(static_cast<bf16 *>(to) + at, from, count, aligned);
}

/* Columns at, at + 1, ... of a row of d values. Beyond its end reads give 0 and writes do nothing.
 * ALIGNED means that rows begin at multiples of the size of N values and have a multiple of N; then
 * there is no branch, so that several reads can be in flight. */
template <bool ALIGNED, int N, typename T>
static __device__ __forceinline__ void columns_read(float *to, const T *row, int at, int d) {
    float v[N] = {0};
    if (!ALIGNED)
        values_get(v, row + at, d - at, false);
    else if (at < d)
        values_read(v, row + at);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = v[i];
}
template <bool ALIGNED, int N, typename T>
static __device__ __forceinline__ void columns_write(T *row, const float *from, int at, int d) {
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = from[i];
    if (!ALIGNED)
        values_put(row + at, v, d - at, false);
    else if (at < d)
        values_write(row + at, v);
}

/* Whether a tensor without gaps, if present, is aligned to the size of n values. */
static inline bool values_aligned(Tensor t, int n) {
    return !t.data || (uintptr_t)t.data % (dtype_size(t.dtype) * (size_t)n) == 0;
}

/* Threads of a block for `lanes` items of work: whole warps, at most `most`. */
static inline unsigned block_threads_for(int64_t lanes, unsigned most) {
    return lanes < most ? (unsigned)(lanes + 31) / 32 * 32 : most;
}

/* Statements with T naming the type of `dtype`, f32 or bf16; these may be WITH_TYPE again. */
#define WITH_TYPE(T, dtype, ...)    \
    do {                            \
        if ((dtype) == DTYPE_F32) { \
            typedef float T;        \
            __VA_ARGS__;            \
        } else {                    \
            typedef bf16 T;         \
            __VA_ARGS__;            \
        }                           \
    } while (0)

/* Statements with F as a constant. */
#define WITH_FLAG(F, flag, ...)       \
    do {                              \
        if (flag) {                   \
            constexpr bool F = true;  \
            __VA_ARGS__;              \
        } else {                      \
            constexpr bool F = false; \
            __VA_ARGS__;              \
        }                             \
    } while (0)

/* How many values of the wider of two types are 16 bytes, a thread's largest access. */
template <typename A, typename B> struct ValuesWide {
    enum { COUNT = 16 / (sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B)) };
};

/* Declares the dynamic shared memory of a block, aligned to 16 bytes; once in a kernel. */
#ifdef EASYFIRST_EMULATED
#define SHARED_MEMORY(type, name) EMULATOR_SHARED(type, name)
#else
#define SHARED_MEMORY(type, name)                                      \
    extern __shared__ __align__(16) unsigned char shared_memory_all[]; \
    type *name = reinterpret_cast<type *>(shared_memory_all)
#endif

/* ---- Sums. All lanes, or threads, get the result. ---- */

static __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}
static __device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

/* `parts` is shared memory of 32 values that nothing else uses; all threads of the block, a
 * multiple of 32, take part. */
static __device__ __forceinline__ float block_sum(float v, float *parts) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads(); /* the previous sum's parts may still be read */
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? parts[lane] : 0.0f);
}

/* Two sums at once, in v; `parts` holds 32 pairs. */
static __device__ __forceinline__ void warp_sum2(float (&v)[2]) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        v[0] += __shfl_xor_sync(FULL_WARP, v[0], offset);
        v[1] += __shfl_xor_sync(FULL_WARP, v[1], offset);
    }
}
static __device__ __forceinline__ void block_sum2(float (&v)[2], float2 *parts) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    warp_sum2(v);
    __syncthreads(); /* the previous sum's parts may still be read */
    if (lane == 0) parts[warp] = make_float2(v[0], v[1]);
    __syncthreads();
    const float2 part = lane < warps ? parts[lane] : make_float2(0, 0);
    v[0] = part.x, v[1] = part.y;
    warp_sum2(v);
}

/* ---- Random numbers, bit-identical to kernels/random.c. ---- */

/* Word index % 4 of Philox4x32-10's block index / 4. */
static __device__ __forceinline__ void philox(uint32_t out[4], uint64_t seed, uint64_t stream,
                                              uint64_t block) {
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32), k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        const uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

#endif
