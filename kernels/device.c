#include "kernels/device.h"

#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening. ---- */

#ifdef EASYFIRST_EMULATED /* linked statically, without a driver */
static int cuda_library(const CudaLibrary **library, Error *err) {
    (void)err;
    *library = &easyfirst_cuda_library;
    return 0;
}
#else
/* A library stays open: CUDA cannot be unloaded and loaded again. */
static int cuda_library(const CudaLibrary **library, Error *err) {
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
        return error_set_code(err, ERROR_NO_DEVICE,
                              "no GPU can be used: NVIDIA's driver (libcuda.so.1) is not on this "
                              "machine: use the device \"cpu\", or install the driver");
    /* Found by the run path of the binary that contains this: the program searches its own folder,
     * ../lib/easyfirst and ../lib, the shared library its own folder and easyfirst/ in it. */
    void *opened = dlopen("libeasyfirst-cuda.so", RTLD_NOW | RTLD_LOCAL);
    if (!opened)
        return error_set_code(err, ERROR_NO_DEVICE,
                              "the CUDA backend cannot be loaded: %s: build the program where nvcc "
                              "is, see that CUDA's libraries are found (LD_LIBRARY_PATH), or use "
                              "the device \"cpu\"",
                              dlerror());
    const CudaLibrary *found = dlsym(opened, "easyfirst_cuda_library");
    if (!found || found->built_with != CUDA_LIBRARY_BUILD)
        return error_set_code(err, ERROR_NO_DEVICE,
                              "libeasyfirst-cuda.so is not of this program's version: build or "
                              "install both together, or use the device \"cpu\"");
    *library = found;
    return 0;
}
#endif

static int open_kind(Device *device, const DeviceOptions *options, Error *err) {
    if (options->kind != DEVICE_CUDA) return cpu_open(device, options, err);
    const CudaLibrary *library;
    TRY(cuda_library(&library, err));
    return library->open(device, options, err);
}

int device_open(Device **device, const DeviceOptions *options, Error *err) {
    DeviceOptions wanted = options ? *options : (DeviceOptions){.kind = DEVICE_CPU};
    Device *d = calloc(1, sizeof *d);
    if (!d) return error_set(err, "out of memory: %zu bytes requested", sizeof *d);
    if (open_kind(d, &wanted, err) != 0) {
        free(d);
        return -1;
    }
    *device = d;
    return 0;
}

bool device_name_read(const char *name, DeviceOptions *options, bool *automatic) {
    *automatic = !name || !strcmp(name, "auto");
    options->kind = DEVICE_CPU, options->index = 0;
    if (*automatic || !strcmp(name, "cpu")) return true;
    options->kind = DEVICE_CUDA;
    if (!strcmp(name, "cuda")) return true;
    if (strncmp(name, "cuda:", 5) != 0) return false;
    const char *digits = name + 5;
    size_t count = strspn(digits, "0123456789");
    if (!count || digits[count] || count > 4) return false;
    options->index = atoi(digits);
    return options->index < 1024;
}

int device_choose(Device **device, const char *name, int threads, Error *err) {
    DeviceOptions options = {.threads = threads};
    bool automatic;
    if (!device_name_read(name, &options, &automatic))
        return error_set(err, "there is no device \"%s\": expected cpu, cuda, cuda:N or auto",
                         name);
    if (!automatic) return device_open(device, &options, err);
    DeviceOptions gpu = {.kind = DEVICE_CUDA, .threads = threads};
    if (device_gpu_count() > 0 && device_open(device, &gpu, NULL) == 0) return 0;
    return device_open(device, &options, err);
}

int device_use(Device *device, Error *err) {
    return device->backend->use ? device->backend->use(device, err) : 0;
}

int device_gpu_count(void) {
    const CudaLibrary *library;
    return cuda_library(&library, NULL) == 0 ? library->count() : 0;
}

void device_close(Device *device) {
    if (!device) return;
    device->backend->close(device);
    free(device);
}

DeviceKind device_kind(const Device *device) {
    return device->kind;
}

int device_threads(const Device *device) {
    return device->threads;
}

bool device_has_bf16(const Device *device) {
    return device->bf16;
}

const char *device_text(const Device *device) {
    return device->text;
}

void device_cancel_by(Device *device, const int *flag) {
    device->cancel = flag;
}

int device_cancelled(const Device *device, Error *err) {
    if (!device->cancel || !__atomic_load_n(device->cancel, __ATOMIC_RELAXED)) return 0;
    return error_set_code(err, ERROR_CANCELLED, "cancelled");
}

bool device_memory(Device *device, size_t *free_bytes, size_t *total) {
    *free_bytes = *total = 0;
    return device->backend->memory && device->backend->memory(device, free_bytes, total);
}

int device_wait(Device *device, Error *err) {
    return device->backend->wait ? device->backend->wait(device, err) : 0;
}

DeviceCounters device_counters(const Device *device) {
    return device->counters;
}

Dtype device_compute_dtype(const Device *device, Dtype weights) {
    bool half = weights == DTYPE_BF16 || weights == DTYPE_I8;
    return half && device->bf16 ? DTYPE_BF16 : DTYPE_F32;
}

int device_alloc(Device *device, void **memory, size_t bytes, Error *err) {
    return device->backend->alloc(device, memory, bytes, err);
}

void device_free(Device *device, void *memory) {
    if (memory) device->backend->free(device, memory);
}

int device_upload(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    return bytes ? device->backend->upload(device, to, from, bytes, err) : 0;
}

int device_download(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    return bytes ? device->backend->download(device, to, from, bytes, err) : 0;
}

int device_clear(Device *device, void *memory, size_t bytes, Error *err) {
    return bytes ? device->backend->clear(device, memory, bytes, err) : 0;
}

/* ---- Replay. ---- */

/* Two folded 128-bit products for each 64-bit word; the last word is padded with its length, so
 * that "a" and "a\0" differ. */
void replay_key_add(ReplayKey *key, const void *bytes, size_t count) {
    const char *at = bytes;
    for (size_t i = 0; i <= count; i += 8) {
        uint64_t word = 0;
        const size_t here = count - i < 8 ? count - i : 8;
        memcpy(&word, at + i, here);
        if (here < 8) word |= (uint64_t)(here + 1) << 56;
        const unsigned __int128 a = (unsigned __int128)(key->low ^ word) * 0x9FB21C651E98DF25u,
                                b = (unsigned __int128)(key->high + word) * 0xC2B2AE3D27D4EB4Fu;
        key->low = (uint64_t)a ^ (uint64_t)(a >> 64) ^ key->high;
        key->high = ((uint64_t)b ^ (uint64_t)(b >> 64)) + 0x9E3779B97F4A7C15u;
    }
}

void replay_key_add_tensor(ReplayKey *key, Tensor t) {
    const uint64_t words[] = {(uintptr_t)t.data,
                              t.packed ? (uintptr_t)t.packed->data : 0,
                              (uint64_t)t.dtype,
                              (uint64_t)t.ndim,
                              t.ndim > 0 ? (uint64_t)t.shape[0] : 0,
                              t.ndim > 1 ? (uint64_t)t.shape[1] : 0,
                              (uint64_t)t.ld};
    replay_key_add(key, words, sizeof words);
}

bool device_replays(const Device *device) {
    return device->backend->replay != NULL;
}

int device_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err) {
    if (!device->backend->replay) return run(work, err);
    return device->backend->replay(device, key, run, work, err);
}

/* ---- Arena. ---- */

enum { ARENA_ALIGN = 256 };

/* False for negative sizes and if the product overflows. */
static bool matrix_bytes(size_t *bytes, Dtype dtype, int64_t rows, int64_t columns) {
    size_t n;
    if (rows < 0 || columns < 0 || __builtin_mul_overflow((size_t)rows, (size_t)columns, &n) ||
        __builtin_mul_overflow(n, dtype_size(dtype), &n) || n > SIZE_MAX - ARENA_ALIGN)
        return false;
    *bytes = (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return true;
}

int arena_open(Arena *arena, Device *device, size_t bytes, Error *err) {
    *arena = (Arena){.device = device};
    void *block;
    if (device_alloc(device, &block, bytes, err) != 0) return error_context(err, "arena");
    arena->block = block;
    arena->size = bytes;
    return 0;
}

void arena_close(Arena *arena) {
    if (arena->device) device_free(arena->device, arena->block);
    *arena = (Arena){0};
}

size_t arena_bytes(Dtype dtype, int64_t rows, int64_t columns) {
    size_t bytes;
    /* An invalid request gets a size that no arena can have. */
    return matrix_bytes(&bytes, dtype, rows, columns) ? bytes : SIZE_MAX;
}

int arena_take(Arena *arena, Tensor *t, Dtype dtype, int64_t rows, int64_t columns, Error *err) {
    size_t bytes, left = arena->size - arena->used;
    char shape[64];
    shape_text(shape, sizeof shape, 2, (int64_t[]){rows, columns});
    if (!dtype_size(dtype) || !matrix_bytes(&bytes, dtype, rows, columns))
        return error_set(err, "arena: there is no matrix %s of type %s", shape, dtype_name(dtype));
    if (bytes > left)
        return error_set(err, "arena: %s %s takes %zu bytes, %zu of %zu are left", shape,
                         dtype_name(dtype), bytes, left, arena->size);
    *t = tensor_2d(arena->block + arena->used, dtype, rows, columns);
    arena->used += bytes;
    if (arena->used > arena->peak) arena->peak = arena->used;
    return 0;
}

int arena_upload(Arena *arena, Tensor *t, Dtype dtype, int64_t n, const void *values, Error *err) {
    size_t used = arena->used;
    Tensor taken;
    TRY(arena_take(arena, &taken, dtype, 1, n, err));
    if (device_upload(arena->device, taken.data, values, tensor_bytes(taken), err) != 0) {
        arena_reset(arena, used);
        return -1;
    }
    *t = tensor_1d(taken.data, dtype, n);
    return 0;
}
