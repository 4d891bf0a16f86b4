#include "kernels/params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/int8.h"
#include "kernels/params_private.h"
#include "kernels/random.h"

void params_init(Params *params, Device *device) {
    *params = (Params){.device = device};
}

void params_free(Params *params) {
    for (int i = 0; i < params->count; i++) {
        free(params->items[i].name);
        packed_free(params->device, params->items[i].packed);
    }
    free(params->items);
    free(params->block);
    device_free(params->device, params->vectors);
    device_free(params->device, params->own_vectors);
    device_free(params->device, params->own_grad);
    free(params->runs);
    device_free(params->device, params->master);
    device_free(params->device, params->grad);
    device_free(params->device, params->working);
    device_free(params->device, params->own_working);
    device_free(params->device, params->plain);
    *params = (Params){.device = params->device};
}

int params_declare(Params *params, const ParamSpec *spec, Error *err, const char *name_format,
                   ...) {
    if (params->count == params->capacity) {
        int capacity = params->capacity ? 2 * params->capacity : 64;
        Param *items = realloc(params->items, (size_t)capacity * sizeof *items);
        if (!items) return error_set(err, "out of memory for a table of %d parameters", capacity);
        params->items = items, params->capacity = capacity;
    }
    char name[256];
    va_list args;
    va_start(args, name_format);
    vsnprintf(name, sizeof name, name_format, args);
    va_end(args);
    Param p = {.role = spec->role,
               .ndim = spec->ndim,
               .init = spec->init,
               .init_std = spec->init_std,
               .optional = spec->optional || spec->idle,
               .trainable = !spec->frozen && !spec->idle && spec->role != PARAM_FOLDED,
               .idle = spec->idle,
               .slot = spec->slot,
               .table_slot = spec->table_slot,
               .join = -1,
               .offset = -1};
    memcpy(p.shape, spec->shape, sizeof p.shape);
    if (spec->joined) {
        int before = params->count - 1;
        p.join = params->items[before].join >= 0 ? params->items[before].join : before;
        params->items[p.join].join = p.join;
        p.slot = params->items[p.join].slot;
    }
    p.name = strdup(name);
    if (!p.name) return error_set(err, "out of memory for the parameter %s", name);
    params->items[params->count++] = p;
    return 0;
}

float params_init_std(int64_t columns) {
    return 0.02f * sqrtf(768.0f / (float)(columns > 0 ? columns : 1));
}

void params_scale_init(Params *params, const Tensor *slot, float factor) {
    for (int i = 0; i < params->count; i++)
        if (params->items[i].slot == slot) params->items[i].init_std *= factor;
}

int params_declare_linear(Params *params, Tensor *w, Tensor *b, int64_t rows, int64_t columns,
                          bool idle, Error *err, const char *stem_format, ...) {
    char stem[200];
    va_list args;
    va_start(args, stem_format);
    vsnprintf(stem, sizeof stem, stem_format, args);
    va_end(args);
    ParamSpec weight = {.slot = w,
                        .role = PARAM_MATRIX,
                        .init = INIT_NORMAL,
                        .init_std = params_init_std(columns),
                        .ndim = 2,
                        .shape = {rows, columns},
                        .idle = idle};
    TRY(params_declare(params, &weight, err, "%sweight", stem));
    if (!b) return 0;
    ParamSpec bias = {.slot = b, .role = PARAM_VECTOR, .ndim = 1, .shape = {rows}, .idle = idle};
    return params_declare(params, &bias, err, "%sbias", stem);
}

int params_declare_norm(Params *params, Tensor *w, Tensor *b, int64_t width, bool idle, Error *err,
                        const char *stem_format, ...) {
    char stem[200];
    va_list args;
    va_start(args, stem_format);
    vsnprintf(stem, sizeof stem, stem_format, args);
    va_end(args);
    ParamSpec spec = {.slot = w,
                      .role = PARAM_VECTOR,
                      .init = INIT_ONE,
                      .ndim = 1,
                      .shape = {width},
                      .idle = idle};
    TRY(params_declare(params, &spec, err, "%sweight", stem));
    if (!b) return 0;
    spec.slot = b, spec.init = INIT_ZERO;
    return params_declare(params, &spec, err, "%sbias", stem);
}

void params_mark_hidden(Params *params, int first) {
    for (int i = first; i < params->count; i++)
        params->items[i].hidden = params->items[i].role == PARAM_MATRIX;
}

Param *params_find(Params *params, const char *name) {
    for (int i = 0; i < params->count; i++)
        if (!strcmp(params->items[i].name, name)) return &params->items[i];
    return NULL;
}

/* Compares shapes without dimensions of size 1: files store a class embedding as [D] or [1, D],
 * say. */
static bool shapes_agree(const Param *p, const Tensor *t) {
    int j = 0;
    for (int i = 0; i < p->ndim; i++) {
        if (p->shape[i] == 1) continue;
        while (j < t->ndim && t->shape[j] == 1) j++;
        if (j == t->ndim || t->shape[j] != p->shape[i]) return false;
        j++;
    }
    while (j < t->ndim && t->shape[j] == 1) j++;
    return j == t->ndim;
}

/* Whether the scales of an i8 value are of the parameter's rows. */
static bool int8_fits(const Param *p, const Tensor *t) {
    return p->role != PARAM_VECTOR && p->ndim > 1 && t->ndim > 1 && t->shape[0] == p->shape[0];
}

int params_set(Param *param, Tensor value, Error *err) {
    char want[128], got[128];
    shape_text(want, sizeof want, param->ndim, param->shape);
    shape_text(got, sizeof got, value.ndim, value.shape);
    if (!shapes_agree(param, &value))
        return error_set(err, "%s: shape found %s, expected %s", param->name, got, want);
    if (value.dtype == DTYPE_I8 && value.scale && !int8_fits(param, &value))
        return error_set(err, "%s: i8 of shape %s, expected a float type for it", param->name, got);
    if (!dtype_is_float(value.dtype) && !value.scale)
        return error_set(err, "%s: type found %s, expected f32, f16, bf16, or i8 with scales",
                         param->name, dtype_name(value.dtype));
    param->value = tensor_nd(value.data, value.dtype, param->ndim, param->shape);
    param->value.scale = value.scale;
    param->present = true;
    return 0;
}

int params_allocate(Params *params, Dtype dtype, Error *err) {
    size_t total = 0;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (param_leads(params, i)) total = params_aligned(total);
        if (!p->present) total += (size_t)param_elements(p) * dtype_size(dtype);
    }
    char *block = NULL;
    if (total && !(block = calloc(1, total + PARAMS_ALIGNMENT)))
        return error_set(err, "out of memory: %zu MiB for the parameters", total >> 20);
    size_t used = block ? (size_t)(-(uintptr_t)block % PARAMS_ALIGNMENT) : 0, base = used;
    for (int i = 0; i < params->count; i++) {
        Param *p = &params->items[i];
        if (param_leads(params, i)) used = base + params_aligned(used - base);
        if (p->present) continue;
        p->value = tensor_nd(block + used, dtype, p->ndim, p->shape);
        p->present = true;
        used += (size_t)param_elements(p) * dtype_size(dtype);
    }
    params->block = block, params->block_size = total;
    return 0;
}

static uint64_t name_hash(const char *name) {
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

/* Four standard normal numbers from one Philox block (Box and Muller, 1958). */
static void normal_block(float out[4], uint64_t seed, uint64_t stream, uint64_t block) {
    uint32_t w[4];
    random_philox(w,
                  (uint32_t[]){(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                               (uint32_t)(stream >> 32)},
                  (uint32_t[]){(uint32_t)seed, (uint32_t)(seed >> 32)});
    for (int i = 0; i < 4; i += 2) {
        float r = sqrtf(-2 * logf(((float)w[i] + 0.5f) * 0x1p-32f));
        float angle = 6.2831853f * 0x1p-32f * (float)w[i + 1];
        out[i] = r * cosf(angle), out[i + 1] = r * sinf(angle);
    }
}

enum { INIT_PART = 1024 };

/* Values [first, first + n) of a parameter; `first` is a multiple of 4, n at most INIT_PART. */
static void initialise_part(const Param *p, uint64_t seed, int64_t first, int n) {
    float part[INIT_PART];
    uint64_t stream = name_hash(p->name);
    for (int j = 0; j < n; j += 4) {
        if (p->init == INIT_NORMAL) normal_block(part + j, seed, stream, (uint64_t)(first + j) / 4);
        for (int i = j; i < j + 4; i++)
            part[i] = p->init == INIT_NORMAL ? part[i] * p->init_std
                      : p->init == INIT_ONE  ? 1.0f
                                             : 0.0f;
    }
    char *to = (char *)p->value.data + (size_t)first * dtype_size(p->value.dtype);
    values_convert(to, p->value.dtype, part, DTYPE_F32, (size_t)n);
}

void params_initialise(Params *params, uint64_t seed) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        int64_t n = p->value.scale ? 0 : param_elements(p); /* i8 is never allocated here */
#pragma omp parallel for schedule(static) if (n > 16 * INIT_PART)
        for (int64_t first = 0; first < n; first += INIT_PART)
            initialise_part(p, seed, first, n - first < INIT_PART ? (int)(n - first) : INIT_PART);
    }
}

const char *params_missing(const Params *params) {
    for (int i = 0; i < params->count; i++)
        if (!params->items[i].present && !params->items[i].optional) return params->items[i].name;
    return NULL;
}

static bool vector_wanted(const Param *p, bool frozen) {
    return p->role == PARAM_VECTOR && !p->idle && !(frozen && p->trainable);
}

size_t params_vector_bytes(const Params *params, bool frozen) {
    size_t total = 0;
    for (int i = 0; i < params->count; i++) {
        if (!vector_wanted(&params->items[i], frozen)) continue;
        if (param_leads(params, i)) total = params_aligned(total);
        total += (size_t)param_elements(&params->items[i]) * sizeof(float);
    }
    return total;
}

int params_prepare_vectors(Params *params, bool frozen, Error *err) {
    size_t total = params_vector_bytes(params, frozen);
    if (!total) return 0;
    float *host = calloc(1, total); /* optional ones without values stay zero */
    if (!host) return error_set(err, "out of memory: %zu KiB for biases and norms", total >> 10);
    int status = device_alloc(params->device, &params->vectors, total, err);
    size_t used = 0;
    for (int i = 0; i < params->count && status == 0; i++) {
        Param *p = &params->items[i];
        if (!vector_wanted(p, frozen)) continue;
        int64_t n = param_elements(p);
        bool first = param_leads(params, i);
        if (first) used = params_aligned(used);
        if (p->present)
            values_convert((char *)host + used, DTYPE_F32, p->value.data, p->value.dtype,
                           (size_t)n);
        if (first)
            *p->slot = tensor_1d((char *)params->vectors + used, DTYPE_F32, n);
        else
            p->slot->shape[0] += n, p->slot->ld += n;
        used += (size_t)n * sizeof(float);
    }
    if (status == 0) status = device_upload(params->device, params->vectors, host, total, err);
    free(host);
    return status;
}

/* The group of matrices being packed, to find the matrix of a row of the stack. */
typedef struct Packing {
    const Params *params;
    int first, end;
    ParamsRelease release;
    void *user;
} Packing;

static void rows_packed(void *user, int64_t first, int64_t count) {
    const Packing *packing = user;
    int64_t above = 0;
    for (int i = packing->first; i < packing->end; i++) {
        const Param *p = &packing->params->items[i];
        int64_t begin = first > above ? first - above : 0, end = first + count - above;
        if (end > param_rows(p)) end = param_rows(p);
        if (begin < end) packing->release(packing->user, p, begin, end - begin);
        above += param_rows(p);
    }
}

static int prepare_matrix(Params *params, int first, ParamsRelease release, void *user,
                          Error *err) {
    Param *p = &params->items[first];
    int end = params_group_end(params, first);
    Tensor pieces[8];
    if (end - first > (int)(sizeof pieces / sizeof pieces[0]))
        return error_set(err, "%s: too many joined matrices", p->name);
    int64_t rows = 0;
    for (int i = first; i < end; i++) {
        const Param *q = &params->items[i];
        if (!q->present) return error_set(err, "%s: no values to prepare", q->name);
        pieces[i - first] =
            tensor_2d(q->value.data, q->value.dtype, param_rows(q), param_columns(q));
        pieces[i - first].scale = q->value.scale;
        rows += param_rows(q);
    }
    Packing packing = {params, first, end, release, user};
    PackProgress progress = {rows_packed, &packing};
    if (pack_weight(params->device, &p->packed, pieces, end - first, params->compute,
                    p->role == PARAM_VOCABULARY, release ? &progress : NULL, err))
        return error_context(err, "%s", p->name);
    *p->slot = tensor_2d(NULL, params->compute, rows, param_columns(p));
    p->slot->packed = p->packed;
    return 0;
}

/* The slot of a parameter as a gather table; NULL if it is not one. */
static Tensor *looked_up(const Param *p) {
    if (p->idle) return NULL;
    if (p->role == PARAM_VOCABULARY) return p->table_slot;
    return p->role == PARAM_TABLE ? p->slot : NULL;
}

/* Tables are read in place: from the file's memory map on a CPU, from copies on a GPU. */
static size_t table_bytes(const Params *params) {
    size_t total = 0;
    if (device_kind(params->device) == DEVICE_CPU) return 0;
    for (int i = 0; i < params->count; i++) {
        if (!looked_up(&params->items[i])) continue;
        Tensor value = params->items[i].value;
        size_t scales = tensor_stored_bytes(value) - tensor_bytes(value);
        total = params_aligned(total) + tensor_bytes(value);
        if (scales) total = params_aligned(total) + scales;
    }
    return total;
}

static int prepare_tables(Params *params, Error *err) {
    size_t total = table_bytes(params), used = 0;
    if (total) TRY(device_alloc(params->device, &params->plain, total, err));
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        Tensor *slot = looked_up(p);
        if (!slot) continue;
        *slot = tensor_2d(p->value.data, p->value.dtype, param_rows(p), param_columns(p));
        slot->scale = p->value.scale;
        if (!total) continue;
        used = params_aligned(used);
        slot->data = (char *)params->plain + used;
        used += tensor_bytes(*slot);
        TRY(device_upload(params->device, slot->data, p->value.data, tensor_bytes(*slot), err));
        if (!slot->scale) continue;
        used = params_aligned(used);
        size_t bytes = (size_t)slot->shape[0] * sizeof(float);
        slot->scale = (const float *)((char *)params->plain + used);
        TRY(device_upload(params->device, (char *)params->plain + used, p->value.scale, bytes,
                          err));
        used += bytes;
    }
    return 0;
}

static int prepare_folded(Params *params, ParamsRelease release, void *user, Error *err) {
    TRY(params->fold.run(params->fold.model, err));
    for (int i = 0; i < params->count && release; i++)
        if (params->items[i].role == PARAM_FOLDED && params->items[i].present)
            release(user, &params->items[i], 0, params->items[i].shape[0]);
    return 0;
}

int params_prepare(Params *params, Dtype compute, ParamsRelease release, void *user, Error *err) {
    const char *missing = params_missing(params);
    if (missing) return error_set(err, "the parameter %s has no values", missing);
    params->compute = compute;
    TRY(params_prepare_vectors(params, false, err));
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->idle || !param_leads(params, i)) continue;
        if (p->role == PARAM_MATRIX || p->role == PARAM_VOCABULARY)
            TRY(prepare_matrix(params, i, release, user, err));
    }
    TRY(prepare_tables(params, err));
    return params->fold.run ? prepare_folded(params, release, user, err) : 0;
}

int64_t params_count(const Params *params) {
    int64_t n = 0;
    for (int i = 0; i < params->count; i++) n += param_elements(&params->items[i]);
    return n;
}

size_t params_stored_bytes(const Params *params) {
    size_t n = 0;
    for (int i = 0; i < params->count; i++) n += tensor_stored_bytes(params->items[i].value);
    return n;
}

size_t params_prepared_bytes(const Params *params, Dtype compute) {
    size_t n = params_vector_bytes(params, false) + table_bytes(params);
    if (params->fold.bytes) n += params->fold.bytes(params->fold.model);
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->idle || !param_leads(params, i)) continue;
        if (p->role != PARAM_MATRIX && p->role != PARAM_VOCABULARY) continue;
        int64_t rows = 0;
        Dtype stored = DTYPE_I8; /* of all its members, or any other */
        for (int j = i; j < params_group_end(params, i); j++) {
            rows += param_rows(&params->items[j]);
            if (params->items[j].value.dtype != DTYPE_I8) stored = compute;
        }
        n += pack_size(params->device, rows, param_columns(p), stored, compute,
                       p->role == PARAM_VOCABULARY);
    }
    return n;
}
