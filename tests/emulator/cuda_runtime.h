/* cuda_runtime.h - replaces CUDA's header of this name: only what the kernels use. See
 * README.md. */
#ifndef EASYFIRST_TESTS_EMULATOR_CUDA_RUNTIME_H
#define EASYFIRST_TESTS_EMULATOR_CUDA_RUNTIME_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* Blocks run one after another, so one variable serves them all. */
#define __shared__   static
#define __constant__ static

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline int2 make_int2(int x, int y) {
    return {x, y};
}
static inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}

/* Of the running thread. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* Runs `body` once for each thread of each block. Dynamic shared memory is at emulator_shared(),
 * filled with NaN when a block begins. */
void emulator_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body);
void *emulator_shared();

/* Runs `work`, or adds it to the graph that is being recorded: so it must capture everything by
 * value, except device memory. */
void emulator_do(const std::function<void()> &work);

/* Waits for all threads of the block, or of the warp's mask, that have not returned; the second
 * also takes `bytes` (at most 64) from each lane and returns those of all 32: lane l's at (char
 * *)result + 64 l, valid until the lane's second next call. */
void emulator_block_barrier();
const void *emulator_warp_exchange(unsigned mask, const void *mine, size_t bytes);

#define EMULATOR_SHARED(type, name) type *name = static_cast<type *>(emulator_shared())

static inline void __syncthreads() {
    emulator_block_barrier();
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    char nothing = 0;
    emulator_warp_exchange(mask, &nothing, 1);
}
static inline unsigned emulator_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}
template <typename T> static inline T emulator_from_lane(unsigned mask, T v, unsigned lane) {
    static_assert(std::is_trivially_copyable<T>::value, "");
    const char *all = static_cast<const char *>(emulator_warp_exchange(mask, &v, sizeof v));
    T out;
    memcpy(&out, all + 64 * (lane % 32), sizeof out);
    return out;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    unsigned own = emulator_lane();
    return emulator_from_lane(
        mask, v, (own & ~unsigned(width - 1)) | (unsigned(lane) & unsigned(width - 1)));
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int = 32) {
    return emulator_from_lane(mask, v, emulator_lane() ^ unsigned(x));
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned own = emulator_lane();
    return emulator_from_lane(mask, v,
                              own % unsigned(width) + by < unsigned(width) ? own + by : own);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned own = emulator_lane();
    return emulator_from_lane(mask, v, own % unsigned(width) >= by ? own - by : own);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const char *all =
        static_cast<const char *>(emulator_warp_exchange(mask, &predicate, sizeof predicate));
    unsigned bits = 0;
    for (unsigned l = 0; l < 32; l++) {
        int one;
        memcpy(&one, all + 64 * l, sizeof one);
        if ((mask >> l & 1) && one) bits |= 1u << l;
    }
    return bits;
}
static inline int __any_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p) {
    return __ballot_sync(mask, !p) == 0;
}

template <typename T> static inline T atomicAdd(T *at, T v) {
    T old = *at;
    *at = old + v;
    return old;
}
template <typename T> static inline T atomicMax(T *at, T v) {
    T old = *at;
    if (v > old) *at = v;
    return old;
}
static inline void __threadfence() {}
template <typename T> static inline T __ldg(const T *at) {
    return *at;
}
template <typename T> static inline T __ldcs(const T *at) {
    return *at;
}
template <typename T> static inline void __stcs(T *at, T v) {
    *at = v;
}
template <typename T> static inline T __ldcg(const T *at) {
    return *at;
}

using std::isfinite;
using std::isinf;
using std::isnan;
#define __expf expf /* the C library declares hidden functions of these names */
#define __logf logf
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __frcp_rn(float a) {
    return 1.0f / a;
}
static inline float __uint_as_float(unsigned v) {
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned v;
    memcpy(&v, &f, sizeof v);
    return v;
}
static inline int __float_as_int(float f) {
    return int(__float_as_uint(f));
}
static inline float __int_as_float(int v) {
    return __uint_as_float(unsigned(v));
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned(uint64_t(a) * b >> 32);
}
static inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}
static inline int __ffs(int v) {
    return __builtin_ffs(v);
}
static inline int __clz(int v) {
    return v ? __builtin_clz(unsigned(v)) : 32;
}
template <typename A, typename B>
static inline typename std::common_type<A, B>::type min(A a, B b) {
    return b < a ? b : a;
}
template <typename A, typename B>
static inline typename std::common_type<A, B>::type max(A a, B b) {
    return a < b ? b : a;
}

/* ---- The runtime: device memory is host memory, and all calls are synchronous. ---- */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice = 100
} cudaError_t;
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, l2CacheSize, pageableMemoryAccess;
} cudaDeviceProp;

const char *cudaGetErrorString(cudaError_t);
const char *cudaGetErrorName(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int index);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int index);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *, unsigned);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned flags);

/* For NCCL's stand-in: work of a stream that real GPUs do whenever they come to it; and its end. */
void emulator_exchange(cudaStream_t stream, const std::function<void()> &work);
void emulator_exchanged(cudaStream_t stream);
cudaError_t cudaEventDestroy(cudaEvent_t);
enum cudaMemoryType {
    cudaMemoryTypeUnregistered,
    cudaMemoryTypeHost,
    cudaMemoryTypeDevice,
    cudaMemoryTypeManaged
};
/* Device: within an allocation of cudaMalloc. */
typedef struct cudaPointerAttributes {
    cudaMemoryType type;
} cudaPointerAttributes;
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *, const void *memory);
template <typename F> static inline cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) {
    return cudaSuccess;
}

#endif
