/* One CUDA GPU: memory, copies, the stream, and the table of operations. */
#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/nccl.h"
#include "kernels/cuda/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cuda_failed(cudaError_t status, const char *call, Error *err) {
    int name = (int)strcspn(call, "(");
    cudaGetLastError(); /* cleared: the next launch checks it and must not report it again */
    return error_set(err, "CUDA: %.*s: %s (%s)", name, call, cudaGetErrorString(status),
                     cudaGetErrorName(status));
}

/* ---- Memory. ---- */

static int cuda_alloc(Device *device, void **memory, size_t bytes, Error *err) {
    const CudaState *s = cuda_state(device);
    cudaError_t status = cudaMalloc(memory, bytes ? bytes : 1);
    if (status == cudaSuccess) return 0;
    if (status != cudaErrorMemoryAllocation) return cuda_failed(status, "cudaMalloc", err);
    cudaGetLastError(); /* cleared: out of memory is not a device error, and later calls must not
                           report it */
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    return error_set_code(
        err, ERROR_DEVICE_MEMORY,
        "out of memory on GPU %d (%s): %.2f GiB requested, %.2f of %.2f GiB are free: a "
        "smaller batch or model, arithmetic in bf16, or the device \"cpu\"",
        s->index, s->properties.name, (double)bytes / (1 << 30), (double)free_bytes / (1 << 30),
        (double)total / (1 << 30));
}

/* cudaFree waits for the device, so that work in progress keeps its memory. */
static void cuda_free(Device *device, void *memory) {
    (void)device;
    cudaFree(memory);
}

enum { RING_HALF = 512 << 10, RING_MOST = 64 << 10 };

static int ring_open(UploadRing *ring, Error *err) {
    void *memory = NULL;
    CUDA_TRY(cudaMallocHost(&memory, 2 * RING_HALF), err);
    ring->memory = (char *)memory;
    for (int i = 0; i < 2; i++)
        CUDA_TRY(cudaEventCreateWithFlags(&ring->passed[i], cudaEventDisableTiming), err);
    return 0;
}

static void ring_close(UploadRing *ring) {
    for (int i = 0; i < 2; i++)
        if (ring->passed[i]) cudaEventDestroy(ring->passed[i]);
    cudaFreeHost(ring->memory);
}

/* Allocates `bytes`, at most RING_MOST, valid until the GPU has read them. */
static int ring_take(UploadRing *ring, cudaStream_t stream, void **place, size_t bytes,
                     Error *err) {
    if (ring->used + bytes > RING_HALF) {
        CUDA_TRY(cudaEventRecord(ring->passed[ring->half], stream), err);
        ring->waiting[ring->half] = true;
        ring->half ^= 1, ring->used = 0;
        if (ring->waiting[ring->half])
            CUDA_TRY(cudaEventSynchronize(ring->passed[ring->half]), err);
    }
    *place = ring->memory + (size_t)ring->half * RING_HALF + ring->used;
    ring->used += (bytes + 15) / 16 * 16;
    return 0;
}

/* `from` has always been read when the call returns: CUDA stages pageable memory, unless the GPU
 * can read it directly, which it may do later. */
static int cuda_upload(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    CudaState *s = cuda_state(device);
    if (replay_recording(device)) return error_set(err, "CUDA: an upload within a recording");
    const bool small = bytes <= RING_MOST;
    if (small) {
        void *place = NULL;
        TRY(ring_take(&s->ring, s->stream, &place, bytes, err));
        memcpy(place, from, bytes);
        from = place;
    }
    CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, s->stream), err);
    if (!small && s->properties.pageableMemoryAccess)
        CUDA_TRY(cudaStreamSynchronize(s->stream), err);
    cuda_count_up(device, bytes);
    return 0;
}

static int cuda_download(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    cudaStream_t stream = cuda_state(device)->stream;
    CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), err);
    CUDA_TRY(cudaStreamSynchronize(stream), err);
    cuda_count_down(device, bytes);
    return 0;
}

static int cuda_clear(Device *device, void *memory, size_t bytes, Error *err) {
    CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, cuda_state(device)->stream), err);
    return 0;
}

static bool cuda_memory(Device *device, size_t *free_bytes, size_t *total) {
    (void)device;
    return cudaMemGetInfo(free_bytes, total) == cudaSuccess;
}

static int cuda_use(Device *device, Error *err) {
    CUDA_TRY(cudaSetDevice(cuda_state(device)->index), err);
    return 0;
}

static int cuda_wait(Device *device, Error *err) {
    CUDA_TRY(cudaStreamSynchronize(cuda_state(device)->stream), err);
    return 0;
}

int cuda_grow(Device *device, char **held, size_t *size, void **memory, size_t bytes, Error *err) {
    if (bytes > *size) {
        if (replay_recording(device))
            return error_set(err, "CUDA: the workspace would have to grow within a recording");
        replays_forget(device, false);
        cuda_free(device, *held);
        *held = NULL, *size = 0;
        void *taken = NULL;
        TRY(cuda_alloc(device, &taken, bytes, err));
        *held = (char *)taken, *size = bytes;
    }
    *memory = *held;
    return 0;
}

int cuda_workspace(Device *device, void **memory, size_t bytes, Error *err) {
    CudaState *s = cuda_state(device);
    return cuda_grow(device, &s->workspace, &s->workspace_size, memory, bytes, err);
}

int cuda_staging(Device *device, void **memory, size_t bytes, Error *err) {
    CudaState *s = cuda_state(device);
    if (bytes > s->staging_size) {
        cudaFreeHost(s->staging);
        s->staging = NULL, s->staging_size = 0;
        void *taken = NULL;
        CUDA_TRY(cudaMallocHost(&taken, bytes), err);
        s->staging = (char *)taken, s->staging_size = bytes;
    }
    *memory = s->staging;
    return 0;
}

int cuda_host_copy(Device *device, HostCopy *copy, const void **memory, const void *host,
                   size_t bytes, Error *err) {
    if (replay_recording(device)) return replay_host_copy(device, memory, host, bytes, err);
    if (bytes > copy->capacity) {
        free(copy->host), cuda_free(device, copy->device);
        *copy = HostCopy{};
        copy->host = malloc(bytes);
        if (!copy->host) return error_set(err, "out of memory: %zu bytes requested", bytes);
        TRY(cuda_alloc(device, &copy->device, bytes, err));
        copy->capacity = bytes;
    }
    *memory = copy->device;
    if (bytes == copy->bytes && (copy->host == host || memcmp(copy->host, host, bytes) == 0))
        return 0;
    copy->bytes = 0; /* in case the upload fails */
    /* From the copy: if the values are in page-locked memory, it is read only when the stream gets
     * there. */
    memcpy(copy->host, host, bytes);
    TRY(cuda_upload(device, copy->device, copy->host, bytes, err));
    copy->bytes = bytes;
    return 0;
}

/* ---- Opening and closing. ---- */

static void cuda_close(Device *device) {
    CudaState *s = cuda_state(device);
    if (!s) return;
    if (s->stream) cudaStreamSynchronize(s->stream);
    replays_close(s->replays);
    nccl_close(s->nccl);
    matmuls_close(s->matmuls);
    fused_attention_close(s->fused);
    free(s->spans.host), cudaFree(s->spans.device);
    free(s->windows.host), cudaFree(s->windows.device);
    free(s->offsets.host), cudaFree(s->offsets.device);
    cudaFree(s->workspace);
    cudaFree(s->dequantized);
    cudaFreeHost(s->staging);
    ring_close(&s->ring);
    if (s->stream) cudaStreamDestroy(s->stream);
    free(s);
    device->state = NULL;
}

#define TABLE_ENTRY(op) b.op = cuda_##op;

static Backend cuda_backend(void) {
    Backend b = {};
    b.name = "CUDA";
    b.close = cuda_close;
    b.alloc = cuda_alloc;
    b.free = cuda_free;
    b.upload = cuda_upload;
    b.download = cuda_download;
    b.clear = cuda_clear;
    b.memory = cuda_memory;
    b.use = cuda_use;
    b.wait = cuda_wait;
    b.replay = cuda_replay;
    b.pack_weight = cuda_pack_weight;
    b.packed_free = cuda_packed_free;
    b.pack_size = cuda_pack_size;
    b.conv2d_pack = cuda_conv2d_pack;
    b.comm_name = nccl_name;
    b.comm_join = nccl_join;
    b.comm_group = nccl_group;
    b.comm_reduce = nccl_reduce;
    b.comm_broadcast = nccl_broadcast;
    b.comm_wait = nccl_wait;
    b.comm_send = nccl_send;
    b.comm_receive = nccl_receive;
    OP_LIST(TABLE_ENTRY)
    return b;
}

static int cuda_count(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError(); /* no driver: later calls must not report it */
    return 0;
}

static int find_gpu(const DeviceOptions *options, cudaDeviceProp *properties, Error *err) {
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0)
        return error_set_code(
            err, ERROR_NO_DEVICE,
            "no GPU was found (%s): use the device \"cpu\", or see that nvidia-smi "
            "lists one",
            status == cudaSuccess ? "CUDA counts 0" : cudaGetErrorString(status));
    if (options->index < 0 || options->index >= count)
        return error_set(err, "GPU %d was asked for, there %s %d: expected 0 to %d", options->index,
                         count == 1 ? "is" : "are", count, count - 1);
    CUDA_TRY(cudaSetDevice(options->index), err);
    CUDA_TRY(cudaGetDeviceProperties(properties, options->index), err);
    if (properties->major >= 8) return 0;
    return error_set_code(
        err, ERROR_NO_DEVICE,
        "GPU %d (%s) has compute capability %d.%d, expected 8.0 or later (Ampere): use "
        "the device \"cpu\"",
        options->index, properties->name, properties->major, properties->minor);
}

static int open_state(CudaState *s, const DeviceOptions *options, Error *err) {
    TRY(find_gpu(options, &s->properties, err));
    s->index = options->index;
    CUDA_TRY(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), err);
    TRY(ring_open(&s->ring, err));
    TRY(replays_open(&s->replays, err));
    TRY(matmuls_open(&s->matmuls, &s->properties, err));
    return fused_attention_open(&s->fused, s->stream, &s->properties, err);
}

static int cuda_open(Device *device, const DeviceOptions *options, Error *err) {
    static const Backend backend = cuda_backend();
    CudaState *s = (CudaState *)calloc(1, sizeof *s);
    if (!s) return error_set(err, "out of memory: %zu bytes requested", sizeof *s);
    device->backend = &backend;
    device->kind = DEVICE_CUDA;
    device->threads = 1;
    device->bf16 = true;
    device->state = s;
    if (open_state(s, options, err) != 0) {
        cuda_close(device);
        return -1;
    }
    snprintf(device->text, sizeof device->text, "GPU %d, %.64s, %.0f GiB, sm_%d%d, bf16", s->index,
             s->properties.name, (double)s->properties.totalGlobalMem / (1 << 30),
             s->properties.major, s->properties.minor);
    return 0;
}

extern "C" __attribute__((visibility("default")))
const CudaLibrary easyfirst_cuda_library = {CUDA_LIBRARY_BUILD, cuda_open, cuda_count};
