#include "kernels/moments.h"

#include "kernels/params_private.h"

#include <stdlib.h>

const char *const moment_names[] = {[MOMENTS_32BIT] = "32bit", [MOMENTS_8BIT] = "8bit", NULL};

/* ---- Maps. ---- */

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The numbers, and the midpoints between each and the next. */
static void map_make(float *map, float *midpoints, bool both_signs) {
    enum { DECADES = 7 };
    int count = 0;
    double unit = 1e-6;
    map[count++] = 0, map[count++] = 1;
    for (int decade = 0; decade < DECADES; decade++, unit *= 10) {
        const int intervals = 1 << (both_signs ? decade : decade + 1);
        for (int i = 0; i < intervals; i++) {
            const float center = (float)((0.1 + 0.9 * (i + 0.5) / intervals) * unit);
            map[count++] = center;
            if (both_signs) map[count++] = -center;
        }
    }
    qsort(map, (size_t)count, sizeof *map, ascending);
    for (int i = 0; i + 1 < MOMENT_BLOCK; i++)
        midpoints[i] = (float)(((double)map[i] + (double)map[i + 1]) / 2);
    midpoints[MOMENT_BLOCK - 1] = 1; /* not read */
}

void moments_maps(float *maps) {
    _Static_assert(MOMENT_BLOCK == 256, "a map has a number for each byte");
    map_make(maps, maps + MOMENT_BLOCK, true);
    map_make(maps + 2 * MOMENT_BLOCK, maps + 3 * MOMENT_BLOCK, false);
}

/* ---- Layout. ---- */

bool moments_narrow(const Param *p) {
    return p->role == PARAM_MATRIX && param_elements(p) >= MOMENTS8_LEAST;
}

static int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* The values of both tables; `place` may be NULL. */
static void lay_out(const Params *params, int64_t *place, int64_t *wide, int64_t *narrow) {
    *wide = *narrow = 0;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        int64_t *used = moments_narrow(p) ? narrow : wide;
        if (place) place[i] = p->trainable ? *used : -1;
        if (p->trainable)
            *used += round_up(param_elements(p), moments_narrow(p) ? MOMENT_BLOCK : 64);
    }
}

static size_t map_bytes(void) {
    return 4 * MOMENT_BLOCK * sizeof(float);
}

size_t moments_bytes(const Params *params) {
    int64_t wide, narrow;
    lay_out(params, NULL, &wide, &narrow);
    return 2 * ((size_t)wide * sizeof(float) + (size_t)narrow +
                (size_t)(narrow / MOMENT_BLOCK) * sizeof(float)) +
           (narrow ? map_bytes() : 0);
}

static int take(MomentTables *t, int at, Tensor *table, Dtype dtype, int64_t count, Error *err) {
    *table = tensor_1d(NULL, dtype, count);
    if (!count) return 0;
    TRY(device_alloc(t->device, &t->memory[at], tensor_bytes(*table), err));
    table->data = t->memory[at];
    return device_clear(t->device, table->data, tensor_bytes(*table), err);
}

static int take_maps(MomentTables *t, Error *err) {
    float maps[4 * MOMENT_BLOCK];
    Tensor flat;
    moments_maps(maps);
    TRY(take(t, 6, &flat, DTYPE_F32, 4 * MOMENT_BLOCK, err));
    t->bytes.maps = tensor_2d(flat.data, DTYPE_F32, 4, MOMENT_BLOCK);
    return device_upload(t->device, flat.data, maps, sizeof maps, err);
}

int moments_open(MomentTables *t, const Params *params, Error *err) {
    int64_t wide, narrow;
    *t = (MomentTables){.device = params->device};
    t->place = calloc((size_t)params->count + 1, sizeof *t->place);
    if (!t->place) return error_set(err, "out of memory for %d moments", params->count);
    lay_out(params, t->place, &wide, &narrow);
    const int64_t blocks = narrow / MOMENT_BLOCK;
    TRY(take(t, 0, &t->m, DTYPE_F32, wide, err));
    TRY(take(t, 1, &t->v, DTYPE_F32, wide, err));
    TRY(take(t, 2, &t->bytes.m, DTYPE_U8, narrow, err));
    TRY(take(t, 3, &t->bytes.v, DTYPE_U8, narrow, err));
    TRY(take(t, 4, &t->bytes.m_scale, DTYPE_F32, blocks, err));
    TRY(take(t, 5, &t->bytes.v_scale, DTYPE_F32, blocks, err));
    return narrow ? take_maps(t, err) : 0;
}

void moments_close(MomentTables *t) {
    for (size_t i = 0; t->device && i < sizeof t->memory / sizeof t->memory[0]; i++)
        device_free(t->device, t->memory[i]);
    free(t->place);
    *t = (MomentTables){0};
}

static Tensor part_of(Tensor table, int64_t first, int64_t count) {
    return tensor_1d((char *)table.data + (size_t)first * dtype_size(table.dtype), table.dtype,
                     count);
}

Moments8 moments_bytes_of(const MomentTables *t, const Params *params, int index) {
    const int64_t at = t->place[index], n = param_elements(&params->items[index]);
    const int64_t block = at / MOMENT_BLOCK, blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    return (Moments8){.m = part_of(t->bytes.m, at, n),
                      .v = part_of(t->bytes.v, at, n),
                      .m_scale = part_of(t->bytes.m_scale, block, blocks),
                      .v_scale = part_of(t->bytes.v_scale, block, blocks),
                      .maps = t->bytes.maps};
}

void moments_values_of(const MomentTables *t, const Params *params, int index, Tensor *m,
                       Tensor *v) {
    const int64_t at = t->place[index], n = param_elements(&params->items[index]);
    *m = part_of(t->m, at, n), *v = part_of(t->v, at, n);
}
