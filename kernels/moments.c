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

void moments_own(const Params *params, int index, int64_t *first, int64_t *count) {
    const Param *p = &params->items[index];
    int64_t end = param_elements(p);
    *first = 0;
    if (params_divided(params) && params->flat && p->offset >= 0) {
        if (params->own_begin > p->offset) *first = params->own_begin - p->offset;
        if (params->own_end - p->offset < end) end = params->own_end - p->offset;
    }
    *count = end > *first ? end - *first : 0;
    if (!*count) *first = 0;
}

/* The values of both tables; `place` may be NULL. */
static void lay_out(const Params *params, int64_t *place, int64_t *wide, int64_t *narrow) {
    *wide = *narrow = 0;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        int64_t *used = moments_narrow(p) ? narrow : wide, first, own;
        moments_own(params, i, &first, &own);
        if (place) place[i] = p->trainable ? *used : -1;
        if (p->trainable) *used += round_up(own, moments_narrow(p) ? MOMENT_BLOCK : 64);
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
    int64_t first, n;
    moments_own(params, index, &first, &n);
    const int64_t at = t->place[index];
    const int64_t block = at / MOMENT_BLOCK, blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    return (Moments8){.m = part_of(t->bytes.m, at, n),
                      .v = part_of(t->bytes.v, at, n),
                      .m_scale = part_of(t->bytes.m_scale, block, blocks),
                      .v_scale = part_of(t->bytes.v_scale, block, blocks),
                      .maps = t->bytes.maps};
}

void moments_values_of(const MomentTables *t, const Params *params, int index, Tensor *m,
                       Tensor *v) {
    int64_t first, n;
    moments_own(params, index, &first, &n);
    const int64_t at = t->place[index];
    *m = part_of(t->m, at, n), *v = part_of(t->v, at, n);
}

/* ---- Between host, device and ranks. ---- */

static int64_t values_each(MomentPiece piece) {
    return piece >= MOMENT_M_SCALE ? MOMENT_BLOCK : 1;
}

int64_t moments_piece_values(MomentPiece piece, int64_t values) {
    return (values + values_each(piece) - 1) / values_each(piece);
}

size_t moments_piece_bytes(MomentPiece piece, int64_t values) {
    const bool bytes = piece == MOMENT_M8 || piece == MOMENT_V8;
    return (size_t)moments_piece_values(piece, values) * (bytes ? 1 : sizeof(float));
}

/* The own part of a piece, and where in the whole it begins. */
static Tensor own_piece(const MomentTables *t, const Params *params, int index, MomentPiece piece,
                        int64_t *begin) {
    int64_t first, count;
    Tensor m, v;
    moments_own(params, index, &first, &count);
    *begin = first / values_each(piece);
    if (piece <= MOMENT_V) {
        moments_values_of(t, params, index, &m, &v);
        return piece == MOMENT_M ? m : v;
    }
    const Moments8 q = moments_bytes_of(t, params, index);
    return piece == MOMENT_M8        ? q.m
           : piece == MOMENT_V8      ? q.v
           : piece == MOMENT_M_SCALE ? q.m_scale
                                     : q.v_scale;
}

int moments_fetch(const MomentTables *t, const Params *params, int index, MomentPiece piece,
                  int64_t first, int64_t count, void *host, Error *err) {
    const ParamsShare *s = &params->share;
    const Param *p = &params->items[index];
    int64_t begin;
    const Tensor own = own_piece(t, params, index, piece, &begin);
    const size_t size = dtype_size(own.dtype);
    if (first >= begin && first + count <= begin + own.shape[0])
        return device_download(params->device, host,
                               (const char *)own.data + (size_t)(first - begin) * size,
                               (size_t)count * size, err);
    if (!s->fetch)
        return error_set(err, "rank %d of %d does not have these moments", s->rank, s->ranks);
    const int64_t at = first * values_each(piece), left = param_elements(p) - at;
    const int64_t values = count * values_each(piece);
    return s->fetch(s->user, params, piece, p->offset + at, values < left ? values : left, host,
                    err);
}

int moments_store(const MomentTables *t, const Params *params, int index, MomentPiece piece,
                  const void *host, Error *err) {
    int64_t begin;
    const Tensor own = own_piece(t, params, index, piece, &begin);
    if (!own.shape[0]) return 0;
    return device_upload(params->device, own.data,
                         (const char *)host + (size_t)begin * dtype_size(own.dtype),
                         tensor_bytes(own), err);
}
