#include "kernels/cpu/cpu.h"
#include "kernels/cpu/matmul.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 1024 };

enum { ALIGN = 256 };

static void *memory_take(size_t bytes) {
    if (bytes > PTRDIFF_MAX - ALIGN) return NULL; /* the rounding below must not wrap */
    return aligned_alloc(ALIGN, bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN);
}

static int cpu_alloc(Device *device, void **memory, size_t bytes, Error *err) {
    (void)device;
    void *taken = memory_take(bytes);
    if (!taken)
        return error_set(err, "out of memory: %zu bytes (%.1f GiB) requested", bytes,
                         (double)bytes / (1 << 30));
    *memory = taken;
    return 0;
}

static void cpu_free(Device *device, void *memory) {
    (void)device;
    free(memory);
}

static int cpu_copy(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    (void)device, (void)err;
    memmove(to, from, bytes);
    return 0;
}

/* Bytes that a thread clears at a time: the first touch of each new page faults, which takes longer
 * than clearing it. */
enum { CLEAR_PIECE = 1 << 20 };

static int cpu_clear(Device *device, void *memory, size_t bytes, Error *err) {
    (void)err;
    const int threads = bytes < 2 * (size_t)CLEAR_PIECE ? 1 : device->threads;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < bytes; i += CLEAR_PIECE)
        memset((char *)memory + i, 0, bytes - i < CLEAR_PIECE ? bytes - i : CLEAR_PIECE);
    return 0;
}

int cpu_memory(Device *device, CpuMemory *held, void **memory, size_t bytes, Error *err) {
    if (bytes > held->size) {
        free(held->data); /* first, so that both never exist at once */
        *held = (CpuMemory){0};
        TRY(cpu_alloc(device, &held->data, bytes, err));
        held->size = bytes;
    }
    *memory = held->data;
    return 0;
}

int cpu_workspace(Device *device, void **memory, size_t bytes, Error *err) {
    return cpu_memory(device, &cpu_state(device)->workspace, memory, bytes, err);
}

static void cpu_close(Device *device) {
    CpuState *state = cpu_state(device);
    if (!state) return;
    matmul_close(state->matmul);
    free(state->workspace.data);
    free(state->int8.data);
    free(state);
    device->state = NULL;
}

#define TABLE_ENTRY(op) .op = cpu_##op,

static const Backend cpu_backend = {.name = "CPU",
                                    .close = cpu_close,
                                    .alloc = cpu_alloc,
                                    .free = cpu_free,
                                    .upload = cpu_copy,
                                    .download = cpu_copy,
                                    .clear = cpu_clear,
                                    .pack_weight = cpu_pack_weight,
                                    .packed_free = cpu_packed_free,
                                    .pack_size = cpu_pack_size,
                                    .conv2d_pack = cpu_conv2d_pack,
                                    OP_LIST(TABLE_ENTRY)};

int cpu_open(Device *device, const DeviceOptions *options, Error *err) {
    int threads = options->threads ? options->threads : omp_get_max_threads();
    if (options->threads < 0 || options->threads > THREADS_MAX)
        return error_set(err, "%d threads requested, expected 1 to %d, or 0 for all cores",
                         options->threads, THREADS_MAX);
    const CpuKernels *kernels = cpu_kernels_find(options->isa);
    if (!kernels)
        return error_set(err,
                         "the instruction set \"%s\" is not in this processor or this build: "
                         "expected base, avx2 or avx512, or none for the best one",
                         options->isa ? options->isa : "");
    CpuState *state = calloc(1, sizeof *state);
    if (!state) return error_set(err, "out of memory: %zu bytes requested", sizeof *state);
    if (matmul_open(&state->matmul, threads, err) != 0) {
        free(state);
        return -1;
    }
    state->kernels = kernels;
    device->backend = &cpu_backend;
    device->kind = DEVICE_CPU;
    device->threads = threads;
    device->bf16 = matmul_has_bf16();
    device->state = state;
    snprintf(device->text, sizeof device->text, "CPU, %d thread%s, %s%s", threads,
             threads == 1 ? "" : "s", kernels->name, device->bf16 ? ", bf16" : "");
    return 0;
}
