/* cuda.h - the CUDA backend's state. Private to kernels/cuda/.
 *
 * Matmuls are cuBLASLt's, attention of whole sequences is cuDNN's where supported; all other
 * kernels are our own. All work of a device goes into one stream, in the order of the calls; only
 * downloads, and operations that return values to the host, wait for it.
 *
 * Every launch goes through LAUNCH, so that the same sources can also be compiled by a plain C++
 * compiler against tests/emulator/, which runs the threads of a block in turn on a CPU: so kernels
 * are tested without a GPU.
 */
#ifndef EASYFIRST_KERNELS_CUDA_CUDA_H
#define EASYFIRST_KERNELS_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "kernels/backend.h"
}

struct Matmuls;        /* cuBLASLt's handle, its workspace and the algorithms chosen: matmul.h */
struct FusedAttention; /* cuDNN's handle and plans: attention_cudnn.h */
struct Nccl;           /* between ranks: nccl.h */
struct Replays;        /* CUDA graphs of repeated work: replay.h */

/* A copy of the last host values passed to a kernel, so that equal values are not sent again: the
 * spans of a batch are the same in every layer. */
typedef struct HostCopy {
    void *host, *device; /* equal contents */
    size_t bytes, capacity;
} HostCopy;

/* Page-locked memory that small uploads go through. From pageable memory CUDA stages uploads itself
 * and may wait, for each, until all earlier work is done. Two halves in turn; once one is full, its
 * event `passed` marks when the GPU has read it. */
typedef struct UploadRing {
    char *memory;
    size_t used; /* of the half */
    int half;
    cudaEvent_t passed[2];
    bool waiting[2];
} UploadRing;

typedef struct CudaState {
    int index; /* which GPU */
    cudaStream_t stream;
    cudaDeviceProp properties;
    struct Matmuls *matmuls;
    struct FusedAttention *fused; /* NULL: cuDNN is not available */
    char *workspace;              /* device memory, scratch of one operation at a time */
    size_t workspace_size;
    char *dequantized; /* device memory, rows of one i8 weight at a time: pack.h */
    size_t dequantized_size;
    char *staging; /* page-locked host memory for small results */
    size_t staging_size;
    HostCopy spans, windows, offsets; /* windows: spans with one */
    struct Replays *replays;
    UploadRing ring;
    struct Nccl *nccl; /* NULL: no other ranks */
} CudaState;

static inline CudaState *cuda_state(Device *device) {
    return (CudaState *)device->state;
}

/* Returns -1 from the caller unless the call succeeds; the error names the call, CUDA's error
 * string and the GPU. */
#define CUDA_TRY(call, err)                                                            \
    do {                                                                               \
        cudaError_t cuda_status_ = (call);                                             \
        if (cuda_status_ != cudaSuccess) return cuda_failed(cuda_status_, #call, err); \
    } while (0)
int cuda_failed(cudaError_t status, const char *call, Error *err); /* -1 */

/* kernel<<<grid, block, shared, the device's stream>>>(...); returns -1 from the caller if the
 * launch fails. A kernel that is a template with commas goes in parentheses. */
#ifdef EASYFIRST_EMULATED
#define LAUNCH(device, kernel, grid, block, shared, err, ...)               \
    do {                                                                    \
        emulator_launch(grid, block, shared, [=] { kernel(__VA_ARGS__); }); \
        (device)->counters.launches++, (void)(err);                         \
    } while (0)
#else
#define LAUNCH(device, kernel, grid, block, shared, err, ...)                             \
    do {                                                                                  \
        (kernel)<<<(grid), (block), (shared), cuda_state(device)->stream>>>(__VA_ARGS__); \
        (device)->counters.launches++;                                                    \
        CUDA_TRY(cudaGetLastError(), err);                                                \
    } while (0)
#endif

/* For work outside of LAUNCH, device_upload and device_download: a library's call counts as a
 * launch, a copy as its bytes. */
static inline void cuda_count_launch(Device *device) {
    device->counters.launches++;
}
static inline void cuda_count_up(Device *device, size_t bytes) {
    device->counters.bytes_up += bytes;
}
static inline void cuda_count_down(Device *device, size_t bytes) {
    device->counters.bytes_down += bytes;
}

/* At least `bytes` of device scratch, aligned to 256, valid until the next call. It only ever
 * grows; growing waits for the work in progress and discards all recordings (replay.h). */
int cuda_workspace(Device *device, void **memory, size_t bytes, Error *err);

/* The same of another block of device memory in the state. */
int cuda_grow(Device *device, char **held, size_t *size, void **memory, size_t bytes, Error *err);

/* The same of page-locked host memory, for results. */
int cuda_staging(Device *device, void **memory, size_t bytes, Error *err);

/* `bytes` of host values on the device: sent unless `copy` already holds them (`host` may be
 * copy->host itself). The address in *memory is valid until the next call with the same copy, or,
 * within a recording, as long as the recording. */
int cuda_host_copy(Device *device, HostCopy *copy, const void **memory, const void *host,
                   size_t bytes, Error *err);

/* Blocks of `per_block` that cover n, at most `most` (for grid-stride kernels). */
static inline unsigned cuda_blocks(int64_t n, int64_t per_block, int64_t most) {
    int64_t blocks = (n + per_block - 1) / per_block;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* The operations: cuda_linear_forward and so on. */
#define CUDA_OPERATION(op) OP_TYPE(op) cuda_##op;
OP_LIST(CUDA_OPERATION)

int cuda_pack_weight(Device *, struct Packed **, const Tensor *pieces, int count, Dtype compute,
                     bool vocabulary, const PackProgress *, Error *);
void cuda_packed_free(Device *, struct Packed *);
int cuda_conv2d_pack(Device *, struct Packed **, const Conv2d *, Tensor w, Dtype compute, Error *);
size_t cuda_pack_size(Device *, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                      bool vocabulary);

#endif
