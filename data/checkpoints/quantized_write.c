/* Writing a part with 8-bit weights, and back (part_write_int8, part_write_dequantized). */
#include "data/checkpoints/model_files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "kernels/int8.h"

/* Smaller matrices gain nothing worth their rounding; of short rows the scale would be a large
 * part. */
enum { VALUES_LEAST = 1024, COLUMNS_LEAST = 16 };

bool param_quantized(const Param *p) {
    int64_t n = tensor_count(p->value), rows = p->ndim > 1 ? p->shape[0] : 0;
    return p->role != PARAM_VECTOR && rows > 0 && n >= VALUES_LEAST && n / rows >= COLUMNS_LEAST;
}

typedef struct Entry {
    const Param *param;
    bool scales; /* the scales of the parameter, not its integers */
} Entry;

typedef struct Writing {
    const Params *params;
    Entry *what;              /* [count] */
    CheckpointEntry *entries; /* [count] */
    char **names;             /* [count] of scales, owned; else NULL */
    size_t count;
} Writing;

/* Quantizes row `row` of a parameter; `values` has space for its f32 values. */
static int row_quantize(const Writing *w, const Param *p, int64_t row, float *values,
                        int8_t *integers, float *scale, Error *err) {
    int64_t columns = tensor_count(p->value) / p->shape[0];
    TRY(params_fetch_part(w->params, p, row * columns, columns, values, DTYPE_F32, err));
    *scale = int8_quantize(integers, values, columns);
    if (isfinite(*scale)) return 0;
    return error_set(err, "%s: row %lld has a value that is not finite: it cannot be quantized",
                     p->name, (long long)row);
}

/* Values [first, first + count) of the integers, or of the scales, of a parameter. */
static int fetch_rows(const Writing *w, const Entry *e, int64_t first, int64_t count, char *bytes,
                      Error *err) {
    const Param *p = e->param;
    const int64_t columns = tensor_count(p->value) / p->shape[0], each = e->scales ? 1 : columns;
    const int64_t top = first / each, bottom = (first + count + each - 1) / each;
    int status = 0;
#pragma omp parallel
    {
        float *values = malloc((size_t)columns * sizeof *values);
        int8_t *integers = malloc((size_t)columns);
#pragma omp for schedule(static)
        for (int64_t row = top; row < bottom; row++) {
            Error failure;
            float scale = 0;
            int failed = values && integers
                             ? row_quantize(w, p, row, values, integers, &scale, &failure)
                             : error_set(&failure, "%s: out of memory", p->name);
            if (failed) {
/* Without a name: a name would be a symbol of the library. */
#pragma omp critical
                if (status == 0) status = -1, *err = failure;
            } else if (e->scales) {
                memcpy(bytes + (size_t)(row - first) * sizeof scale, &scale, sizeof scale);
            } else {
                int64_t begin = row * columns, end = begin + columns;
                if (begin < first) begin = first;
                if (end > first + count) end = first + count;
                memcpy(bytes + (begin - first), integers + (begin - row * columns),
                       (size_t)(end - begin));
            }
        }
        free(values), free(integers);
    }
    return status;
}

static int fetch(void *user, size_t entry, int64_t first, int64_t count, void *bytes, Error *err) {
    const Writing *w = user;
    const Entry *e = &w->what[entry];
    Dtype dtype = w->entries[entry].value.dtype;
    if (e->scales || dtype == DTYPE_I8) return fetch_rows(w, e, first, count, bytes, err);
    return params_fetch_part(w->params, e->param, first, count, bytes, dtype, err);
}

static void add(Writing *w, const Param *p, bool scales, const char *name, Tensor value) {
    w->what[w->count] = (Entry){p, scales};
    w->entries[w->count++] = (CheckpointEntry){name, value};
}

/* A parameter's entry, and the one of its scales. What is i8 already is written as it is. */
static int list_param(Writing *w, const Param *p, Dtype dtype, Error *err) {
    Dtype own = dtype != DTYPE_I8 && p->value.dtype == DTYPE_I8 ? dtype
                : dtype == DTYPE_I8 && param_quantized(p)       ? DTYPE_I8
                                                                : p->value.dtype;
    Tensor value = tensor_nd(NULL, own, p->ndim, p->shape);
    if (p->value.dtype == own) value.data = p->value.data;
    add(w, p, false, p->name, value);
    if (own != DTYPE_I8) return 0;
    char *name = path_format(err, "%s" CHECKPOINT_SCALE, p->name);
    if (!name) return -1;
    w->names[w->count] = name;
    add(w, p, true, name, tensor_1d((float *)(uintptr_t)p->value.scale, DTYPE_F32, p->shape[0]));
    return 0;
}

static int write_as(const Params *params, const char *path, Dtype dtype, Error *err) {
    size_t most = 2 * (size_t)params->count + 1;
    Writing w = {.params = params,
                 .what = calloc(most, sizeof *w.what),
                 .entries = calloc(most, sizeof *w.entries),
                 .names = calloc(most, sizeof *w.names)};
    int status = w.what && w.entries && w.names ? 0 : error_set(err, "%s: out of memory", path);
    for (int i = 0; i < params->count && status == 0; i++)
        if (params->items[i].present) status = list_param(&w, &params->items[i], dtype, err);
    if (status == 0) status = checkpoint_write_stream(path, w.entries, w.count, fetch, &w, err);
    for (size_t i = 0; w.names && i < w.count; i++) free(w.names[i]);
    free(w.what), free(w.entries), free(w.names);
    return status;
}

int part_write_int8(const Params *params, const char *path, Error *err) {
    return write_as(params, path, DTYPE_I8, err);
}

int part_write_dequantized(const Params *params, const char *path, Dtype dtype, Error *err) {
    if (!dtype_is_float(dtype))
        return error_set(err, "%s: to be written as %s, expected f32, f16 or bf16", path,
                         dtype_name(dtype));
    return write_as(params, path, dtype, err);
}
