#include "kernels/int8.h"

#include <math.h>

float int8_quantize(int8_t *to, const float *row, int64_t n) {
    float most = 0;
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite = finite && isfinite(row[i]);
        most = fmaxf(most, fabsf(row[i]));
    }
    if (!finite || most < 1e-30f) {
        for (int64_t i = 0; i < n; i++) to[i] = 0;
        return finite ? 1 : NAN;
    }
    /* In double, so that the nearest integer is not missed by a rounded factor. */
    double factor = 127 / (double)most;
    for (int64_t i = 0; i < n; i++) to[i] = (int8_t)lrint(row[i] * factor);
    return most / 127;
}

/* Values [first, first + count) of one row. */
static void row_values(void *to, Dtype dtype, const int8_t *row, float scale, int64_t count) {
    float part[256];
    for (int64_t done = 0; done < count;) {
        int64_t n = count - done < 256 ? count - done : 256;
        for (int64_t i = 0; i < n; i++) part[i] = (float)row[done + i] * scale;
        values_convert((char *)to + (size_t)done * dtype_size(dtype), dtype, part, DTYPE_F32,
                       (size_t)n);
        done += n;
    }
}

void tensor_values(void *to, Dtype dtype, Tensor t, int64_t first, int64_t count) {
    if (t.dtype != DTYPE_I8) {
        const char *from = (const char *)t.data + (size_t)first * dtype_size(t.dtype);
        values_convert(to, dtype, from, t.dtype, (size_t)count);
        return;
    }
    const int64_t columns = t.shape[0] ? tensor_count(t) / t.shape[0] : 0;
    char *next = to;
    for (int64_t end = first + count; first < end;) {
        int64_t row = first / columns, stop = (row + 1) * columns;
        int64_t n = (stop < end ? stop : end) - first;
        row_values(next, dtype, (const int8_t *)t.data + first, t.scale[row], n);
        next += (size_t)n * dtype_size(dtype);
        first += n;
    }
}

size_t tensor_stored_bytes(Tensor t) {
    return tensor_bytes(t) + (t.scale ? (size_t)t.shape[0] * sizeof *t.scale : 0);
}
