#include "kernels/matmul_peak.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/clock.h"
#include "kernels/ops.h"

/* Matmuls of growing size, each of eight times the work of the one before, until one of them takes
 * long enough to be timed and is not much faster than the one before: what fills a GPU would keep a
 * processor busy for minutes, but where the threads have to wait for other programs, a small matmul
 * measures nothing but that. Small ones are timed several at once. The second one is there for
 * processors: its operands fit into the second-level caches, which larger ones do not. */
typedef struct PeakSize {
    int64_t rows, inner, columns;
} PeakSize;
static const PeakSize peak_sizes[] = {{256, 128, 512},   {256, 1024, 1024},  {512, 256, 1024},
                                      {1024, 512, 2048}, {2048, 1024, 4096}, {4096, 2048, 8192}};
enum { PEAK_SIZES = sizeof peak_sizes / sizeof *peak_sizes, PEAK_LOOKS = 3, PEAK_RUNS = 5 };
static const double PEAK_SECONDS = 2e-3, PEAK_MOST_SECONDS = 0.5, PEAK_GAIN = 1.5;

/* Numbers from -1 to 1. Of zeros a GPU makes matmuls faster than of anything else. */
static int fill_random(Device *device, Tensor t, Error *err) {
    const size_t n = (size_t)tensor_count(t);
    uint32_t state = 1;
    char *values = malloc(tensor_bytes(t));
    if (!values) return error_set(err, "out of memory: %zu bytes asked", tensor_bytes(t));
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float v = (float)(state >> 8) * 0x1p-23f - 1;
        if (t.dtype == DTYPE_F32)
            ((float *)values)[i] = v;
        else
            ((uint16_t *)values)[i] = f32_to_bf16(v);
    }
    int status = device_upload(device, t.data, values, tensor_bytes(t), err);
    free(values);
    return status;
}

static int time_matmuls(Device *device, Tensor y, Tensor x, Tensor w, int count, double *seconds,
                        Error *err) {
    double begin = clock_seconds();
    for (int i = 0; i < count; i++)
        TRY(linear_forward(device, y, x, w, TENSOR_NONE, ACTIVATION_NONE, false, err));
    TRY(device_wait(device, err));
    *seconds = clock_seconds() - begin;
    return 0;
}

/* The best rate of matmuls of one size; *slow: one of them takes PEAK_SECONDS. */
static int peak_of_size(Device *device, Arena *arena, Dtype compute, int size, double *rate,
                        bool *slow, Error *err) {
    const int64_t rows = peak_sizes[size].rows, inner = peak_sizes[size].inner,
                  columns = peak_sizes[size].columns;
    const double operations = 2.0 * (double)rows * (double)inner * (double)columns;
    double seconds;
    Tensor x, y, w;
    TRY(arena_take(arena, &x, compute, rows, inner, err));
    TRY(arena_take(arena, &y, compute, rows, columns, err));
    TRY(arena_take(arena, &w, compute, columns, inner, err));
    TRY(fill_random(device, x, err));
    TRY(fill_random(device, w, err));
    double best = INFINITY; /* one run may have been interrupted for longer than it takes */
    TRY(time_matmuls(device, y, x, w, 1, &seconds, err)); /* compiles */
    for (int i = 0; i < PEAK_LOOKS; i++) {
        TRY(time_matmuls(device, y, x, w, 1, &seconds, err));
        best = fmin(best, seconds);
    }
    *slow = best >= PEAK_SECONDS;
    const int count = *slow ? 1 : 1 + (int)fmin(PEAK_SECONDS / best, 50);
    for (int i = 0; i < PEAK_RUNS; i++) {
        TRY(time_matmuls(device, y, x, w, count, &seconds, err));
        *rate = fmax(*rate, count * operations / seconds);
    }
    arena_reset(arena, 0);
    return 0;
}

int matmul_peak(Device *device, Dtype compute, double *rate, Error *err) {
    const PeakSize last = peak_sizes[PEAK_SIZES - 1];
    Arena arena;
    bool slow = false;
    *rate = 0;
    TRY(arena_open(&arena, device,
                   arena_bytes(compute, last.rows, last.inner) +
                       arena_bytes(compute, last.rows, last.columns) +
                       arena_bytes(compute, last.columns, last.inner),
                   err));
    int status = 0;
    double begin = clock_seconds(), before = 0;
    for (int size = 0; size < PEAK_SIZES && status == 0; size++) {
        status = peak_of_size(device, &arena, compute, size, rate, &slow, err);
        if (slow && (*rate < PEAK_GAIN * before || clock_seconds() - begin > PEAK_MOST_SECONDS))
            break;
        before = *rate;
    }
    arena_close(&arena);
    return status;
}
