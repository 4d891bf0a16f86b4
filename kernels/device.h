/* device.h - where things are computed: a CPU with its threads, or one CUDA GPU.
 *
 * A Device holds what a backend needs between calls: threads or a stream, library handles, compiled
 * primitives, scratch memory. It is used by one thread at a time. Several devices are independent,
 * but of GPUs a program opens one: its number is chosen once, for the thread that opens it. */
#ifndef EASYFIRST_KERNELS_DEVICE_H
#define EASYFIRST_KERNELS_DEVICE_H

#include "kernels/error.h"
#include "kernels/tensor.h"

typedef enum DeviceKind { DEVICE_CPU, DEVICE_CUDA } DeviceKind;

typedef struct DeviceOptions {
    DeviceKind kind;
    int index;       /* which GPU */
    int threads;     /* CPU threads; 0: as many as OpenMP would take (OMP_NUM_THREADS, all cores) */
    const char *isa; /* CPU: "base", "avx2" or "avx512" instead of the best one there is; NULL */
} DeviceOptions;

typedef struct Device Device;

int device_open(Device **device, const DeviceOptions *options, Error *err);
void device_close(Device *device); /* NULL is allowed */

/* What a device's name says: "cpu"; "cuda", the first GPU, or "cuda:N"; "auto" or NULL, which sets
 * *automatic. False if there is no such name. */
bool device_name_read(const char *name, DeviceOptions *options, bool *automatic);

/* Opens the device of that name; for "auto" the first GPU if there is one that can be opened, else
 * the CPU. `threads` are the CPU's. */
int device_choose(Device **device, const char *name, int threads, Error *err);

/* Before a thread other than the one that opened it uses the device: of GPUs, each thread has its
 * own. */
int device_use(Device *device, Error *err);

/* How many GPUs there are to open: 0 without a driver, and where the CUDA backend
 * (libeasyfirst-cuda.so, beside the program) is not there or cannot be loaded. None is opened. */
int device_gpu_count(void);

DeviceKind device_kind(const Device *device);
int device_threads(const Device *device);
bool device_has_bf16(const Device *device); /* bf16 matmuls in hardware */
/* One line for people: "CPU, 2 threads, avx512, bf16". Owned by the device. */
const char *device_text(const Device *device);

/* The bytes of a GPU's memory that nobody, in this program or another, has taken, and all of them.
 * False for a CPU, whose memory is not counted. */
bool device_memory(Device *device, size_t *free_bytes, size_t *total);

/* Returns when everything that was asked for is done, with the error of what failed since: a GPU
 * works behind the calls. For clocks; downloads wait by themselves. */
int device_wait(Device *device, Error *err);

/* What a GPU was given to do since it was opened: kernels (a library's call counts as one), and
 * bytes copied to it and back. All 0 for a CPU. */
typedef struct DeviceCounters {
    uint64_t launches, bytes_up, bytes_down;
} DeviceCounters;
DeviceCounters device_counters(const Device *device);

/* The arithmetic for weights of a type: bf16 weights are computed with in bf16 where the device has
 * it, everything else in f32. Accumulation is f32 in both. */
Dtype device_compute_dtype(const Device *device, Dtype weights);

/* Memory on the device, aligned to 256 bytes; NULL may be freed. Alloc fails with the size
 * asked. */
int device_alloc(Device *device, void **memory, size_t bytes, Error *err);
void device_free(Device *device, void *memory);

/* Copies from the host to the device and back. Upload returns when `from` may be reused. */
int device_upload(Device *device, void *to, const void *from, size_t bytes, Error *err);
int device_download(Device *device, void *to, const void *from, size_t bytes, Error *err);

/* Sets bytes of device memory to zero. */
int device_clear(Device *device, void *memory, size_t bytes, Error *err);

/* ---- Replay. ---- */

/* Names a piece of work by everything that decides which operations it consists of and what they
 * are given: addresses, shapes, numbers. Two different pieces have the same key with a probability
 * of 2^-128, about. */
typedef struct ReplayKey {
    uint64_t low, high;
} ReplayKey;
static inline ReplayKey replay_key(void) {
    ReplayKey key = {0x9E3779B97F4A7C15u, 0xD1B54A32D192ED03u};
    return key; /* also read as C++ */
}
void replay_key_add(ReplayKey *key, const void *bytes, size_t count);
void replay_key_add_tensor(ReplayKey *key, Tensor t);

/* Does the work, which consists of operations of ops.h on the device and of nothing else: no
 * upload, no download, nothing that hands values to the host. A GPU records what a key stands for
 * when it comes for the second time, as one CUDA graph, and from then on does not call `work` but
 * starts the recording: one launch in place of hundreds, each of which takes the host as long as a
 * small operation takes the GPU. */
typedef int (*DeviceWork)(void *work, Error *err);
bool device_replays(const Device *device); /* false: it would simply call `run` */
int device_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err);

/* ---- Arena: a stack of tensors in one block of device memory, sized before the work
 * begins. ---- */

typedef struct Arena {
    Device *device;
    char *block;
    size_t size, used, peak;
} Arena;

int arena_open(Arena *arena, Device *device, size_t bytes, Error *err);
void arena_close(Arena *arena);

/* The bytes that arena_take uses for such a matrix, rounded up to its alignment (256). */
size_t arena_bytes(Dtype dtype, int64_t rows, int64_t columns);

/* A matrix [rows, columns], values undefined. An error, with the numbers, if the arena is too
 * small: that is a mistake in whoever sized it. */
int arena_take(Arena *arena, Tensor *t, Dtype dtype, int64_t rows, int64_t columns, Error *err);

/* A vector of n values copied from the host. */
int arena_upload(Arena *arena, Tensor *t, Dtype dtype, int64_t n, const void *values, Error *err);

/* Takes everything back that was taken since `used` was this. */
static inline void arena_reset(Arena *arena, size_t used) {
    arena->used = used;
}

#endif
