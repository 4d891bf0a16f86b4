/* device.h - a compute device: a CPU with its threads, or one CUDA GPU.
 *
 * A Device holds what a backend needs between calls: threads or a stream, library handles, compiled
 * primitives, scratch memory. It is used by one thread at a time. Several devices are independent,
 * but a program opens at most one GPU: its index is chosen once, for the thread that opens it. */
#ifndef EASYFIRST_KERNELS_DEVICE_H
#define EASYFIRST_KERNELS_DEVICE_H

#include "kernels/error.h"
#include "kernels/tensor.h"

typedef enum DeviceKind { DEVICE_CPU, DEVICE_CUDA } DeviceKind;

typedef struct DeviceOptions {
    DeviceKind kind;
    int index;       /* which GPU */
    int threads;     /* CPU threads; 0: OpenMP's default (OMP_NUM_THREADS, else all cores) */
    const char *isa; /* CPU: "base", "avx2" or "avx512"; NULL: the best one available */
} DeviceOptions;

typedef struct Device Device;

int device_open(Device **device, const DeviceOptions *options, Error *err);
void device_close(Device *device); /* NULL is allowed */

/* Parses a device name: "cpu"; "cuda", the first GPU, or "cuda:N"; "auto" or NULL, which sets
 * *automatic. False for any other name. */
bool device_name_read(const char *name, DeviceOptions *options, bool *automatic);

/* Opens the device of that name; for "auto" the first GPU that can be opened, else the CPU.
 * `threads` are the CPU's. */
int device_choose(Device **device, const char *name, int threads, Error *err);

/* Call before a thread other than the one that opened the device uses it: CUDA's current GPU is a
 * setting of each thread. */
int device_use(Device *device, Error *err);

/* The number of GPUs that can be opened: 0 without a driver, or if the CUDA backend
 * (libeasyfirst-cuda.so, next to the program) is missing or cannot be loaded. Opens none. */
int device_gpu_count(void);

DeviceKind device_kind(const Device *device);
int device_threads(const Device *device);
bool device_has_bf16(const Device *device); /* bf16 matmuls in hardware */
/* A one-line description: "CPU, 2 threads, avx512, bf16". Owned by the device. */
const char *device_text(const Device *device);

/* From now on forward passes on the device poll device_cancelled between blocks, which fails with
 * "cancelled" (ERROR_CANCELLED) when *flag, read with __atomic_load_n, is not 0; NULL: never. */
void device_cancel_by(Device *device, const int *flag);
int device_cancelled(const Device *device, Error *err);

/* A GPU's free memory (not in use by this or any other program) and total memory, in bytes. False
 * for a CPU, whose memory is not counted. */
bool device_memory(Device *device, size_t *free_bytes, size_t *total);

/* Waits until all work is complete and returns the error of any that failed: a GPU works
 * asynchronously. For timings; downloads wait by themselves. */
int device_wait(Device *device, Error *err);

/* Work submitted to a GPU since it was opened: kernels (a library's call counts as one), and bytes
 * copied to it and back. All 0 for a CPU. */
typedef struct DeviceCounters {
    uint64_t launches, bytes_up, bytes_down;
} DeviceCounters;
DeviceCounters device_counters(const Device *device);

/* The compute type for weights of a type: bf16 for bf16 and i8 weights where the device supports it, else
 * f32. Accumulation is f32 in both. */
Dtype device_compute_dtype(const Device *device, Dtype weights);

/* Memory on the device, aligned to 256 bytes; NULL may be freed. The error of alloc names the size
 * requested. */
int device_alloc(Device *device, void **memory, size_t bytes, Error *err);
void device_free(Device *device, void *memory);

/* Copies from the host to the device and back. Upload returns when `from` may be reused. */
int device_upload(Device *device, void *to, const void *from, size_t bytes, Error *err);
int device_download(Device *device, void *to, const void *from, size_t bytes, Error *err);

/* Zeroes device memory. */
int device_clear(Device *device, void *memory, size_t bytes, Error *err);

/* ---- Replay. ---- */

/* Identifies a piece of work by everything that determines its operations and their arguments:
 * addresses, shapes, values. Two different pieces have the same key with a probability of about
 * 2^-128. */
typedef struct ReplayKey {
    uint64_t low, high;
} ReplayKey;
static inline ReplayKey replay_key(void) {
    ReplayKey key = {0x9E3779B97F4A7C15u, 0xD1B54A32D192ED03u};
    return key; /* also read as C++ */
}
void replay_key_add(ReplayKey *key, const void *bytes, size_t count);
void replay_key_add_tensor(ReplayKey *key, Tensor t);

/* Calls run(work), which must consist of operations of ops.h on the device only: no upload, no
 * download, nothing that returns values to the host. A GPU captures a key's work as a CUDA graph
 * when it comes for the second time, and from then on launches the graph instead of calling `run`:
 * one launch instead of hundreds, each of which takes the host as long as a small operation takes
 * the GPU. */
typedef int (*DeviceWork)(void *work, Error *err);
bool device_replays(const Device *device); /* false: device_replay only calls `run` */
int device_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err);

/* ---- Arena: a stack of tensors in one block of device memory, sized in advance. ---- */

typedef struct Arena {
    Device *device;
    char *block;
    size_t size, used, peak;
} Arena;

int arena_open(Arena *arena, Device *device, size_t bytes, Error *err);
void arena_close(Arena *arena);

/* The bytes that arena_take uses for a matrix, rounded up to its alignment (256). */
size_t arena_bytes(Dtype dtype, int64_t rows, int64_t columns);

/* A matrix [rows, columns], values undefined. Fails, naming the sizes, if the arena is too small:
 * then the code that sized it is wrong. */
int arena_take(Arena *arena, Tensor *t, Dtype dtype, int64_t rows, int64_t columns, Error *err);

/* A vector of n values copied from the host. */
int arena_upload(Arena *arena, Tensor *t, Dtype dtype, int64_t n, const void *values, Error *err);

/* Frees everything taken since arena->used was `used`. */
static inline void arena_reset(Arena *arena, size_t used) {
    arena->used = used;
}

#endif
