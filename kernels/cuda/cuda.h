/* cuda.h - the CUDA backend's own state, shared by the files of kernels/cuda/. Private to them.
 *
 * Matmuls are cuBLASLt's, attention of whole sequences is cuDNN's where it has it;
 * everything between them is ours. All work of a device goes into one stream, in the order of the
 * calls; only downloads, and what hands values to the host, wait for it.
 *
 * Every launch goes through LAUNCH, so that the same sources can also be compiled by a plain C++
 * compiler against tests/emulator/, which runs the threads of a block in turn on a CPU: that is how
 * kernels are tested where there is no GPU.
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

struct Matmuls;        /* cuBLASLt's handle, its workspace and the algorithms chosen: matmuls.h */
struct FusedAttention; /* cuDNN's handle and the plans made: attention_cudnn.h */
struct Replays;        /* recordings of work that comes again: replay.h */

/* A copy of what the host last handed to a kernel, so that the same again is not sent again: the
 * spans of a batch are the same in every layer. */
typedef struct HostCopy {
    void *host, *device; /* equal contents */
    size_t bytes, capacity;
} HostCopy;

/* Page-locked memory that small uploads go through. Without it CUDA may wait, for each of them,
 * until all work before it is done: it stages what comes from other memory itself. Two halves in
 * turn; when one is full, `passed` tells when the GPU has read it. */
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
    struct FusedAttention *fused; /* NULL: cuDNN is not there */
    char *workspace;              /* device memory, scratch of one operation at a time */
    size_t workspace_size;
    char *staging; /* page-locked host memory for small results */
    size_t staging_size;
    HostCopy spans, offsets;
    struct Replays *replays;
    UploadRing ring;
} CudaState;

static inline CudaState *cuda_state(Device *device) {
    return (CudaState *)device->state;
}

/* Returns -1 from the caller, with the call, CUDA's own words for what happened and the GPU, unless
 * the call succeeds. */
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

/* Besides LAUNCH and device_upload and _download: a library's call counts as a launch, a copy as
 * its bytes. */
static inline void cuda_count_launch(Device *device) {
    device->counters.launches++;
}
static inline void cuda_count_up(Device *device, size_t bytes) {
    device->counters.bytes_up += bytes;
}
static inline void cuda_count_down(Device *device, size_t bytes) {
    device->counters.bytes_down += bytes;
}

/* At least `bytes` of device scratch, aligned to 256, valid until the next call. Growing waits for
 * the work under way, and ends all recordings (replay.h); it stays as large as it ever was. */
int cuda_workspace(Device *device, void **memory, size_t bytes, Error *err);

/* The same of page-locked host memory, for what comes back. */
int cuda_staging(Device *device, void **memory, size_t bytes, Error *err);

/* `bytes` of host values on the device: sent unless they are what `copy` holds already (`host` may
 * be copy->host itself). The address in *memory is good until the next call with the same copy, and
 * within a recording as long as that. */
int cuda_host_copy(Device *device, HostCopy *copy, const void **memory, const void *host,
                   size_t bytes, Error *err);

/* Blocks of `per_block` that cover n, at most `most` (for kernels that stride over the rest). */
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
size_t cuda_pack_size(Device *, int64_t rows, int64_t columns, Dtype compute, bool vocabulary);

#endif
