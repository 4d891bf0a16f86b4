/* The flat tables of several processes: who updates what, and what is where (params.h). */
#include "kernels/moments.h"
#include "kernels/params_private.h"

#include <stdlib.h>

/* ---- Whose values. ---- */

/* The group of joined parameters that `value` is in, but not at its beginning; -1: none. */
static int group_within(const Params *params, int64_t value, int64_t *begin, int64_t *end) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0 || !param_leads(params, i) || p->offset >= value) continue;
        const Param *last = &params->items[params_group_end(params, i) - 1];
        *begin = p->offset, *end = params_round_up(last->offset + param_elements(last));
        if (value < *end) return i;
    }
    return -1;
}

/* The last place up to `bound` that is a multiple of the unit from the beginning of an aligned
 * parameter. */
static int64_t unit_bound(const Params *params, int64_t bound) {
    const int unit = params->share.unit;
    int64_t last = 0;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0 || p->offset > bound || p->offset % PARAMS_ALIGNED_VALUES) continue;
        const int64_t all = param_elements(p), within = bound - p->offset;
        const int64_t at = p->offset + (within < all ? within : all) / unit * unit;
        if (at > last) last = at;
    }
    return last;
}

/* The block whose slot a parameter has; -1: none. */
static int block_of(const Params *params, const Param *p) {
    const ParamsShare *s = &params->share;
    const uintptr_t slot = (uintptr_t)p->slot, blocks = (uintptr_t)s->blocks;
    if (!blocks || slot < blocks || slot >= blocks + s->block_bytes * (size_t)s->block_count)
        return -1;
    return (int)((slot - blocks) / s->block_bytes);
}

/* Whether a parameter is a table that comes in parts. */
static bool is_table(const Params *params, const Param *p) {
    const ParamsShare *s = &params->share;
    if (p->offset < 0 || !p->slot || p->ndim != 2 || s->level < 3 || s->ranks < 2) return false;
    return p->slot == s->tables[0] || p->slot == s->tables[1];
}

/* The bytes of a value that its owner alone has, with moments in 8 bits. */
static int64_t own_bytes(const Params *params, const Param *p) {
    const int64_t moments = moments_narrow(p) ? 2 : 2 * (int64_t)sizeof(float);
    const int level = params->share.level;
    const bool masters = params_masters_divided(params);
    const bool block = block_of(params, p) >= 0 || is_table(params, p);
    return moments + (masters ? 4 : 0) + (block && level >= 2 ? 4 : 0) +
           (block && level >= 3 && params->compute != DTYPE_F32 ? 2 : 0);
}

/* Where parts of as many own bytes end: an embedding's value has four times the moments. */
static int64_t bytes_bound(const Params *params, int rank) {
    double all = 0, before = 0;
    for (int i = 0; i < params->count; i++)
        if (params->items[i].offset >= 0)
            all +=
                (double)(own_bytes(params, &params->items[i]) * param_elements(&params->items[i]));
    const double want = all * rank / params->share.ranks;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0) continue;
        const double each = (double)own_bytes(params, p), n = (double)param_elements(p);
        if (before + each * n >= want) return p->offset + (int64_t)((want - before) / each);
        before += each * n;
    }
    return params->flat;
}

/* Equal parts, or with a unit, for moments in 8 bits, parts of about the same memory; with `whole` a
 * bound within a matrix of Muon's moves to its nearer end. */
int64_t params_bound(const Params *params, int rank) {
    const ParamsShare *s = &params->share;
    int64_t begin, end;
    if (!params_divided(params)) return rank > 0 ? params->flat : 0;
    if (rank >= s->ranks) return params->flat;
    const int64_t even = params->flat / PARAMS_ALIGNED_VALUES * rank / s->ranks;
    const int64_t bound = even * PARAMS_ALIGNED_VALUES;
    if (s->unit) return rank > 0 ? unit_bound(params, bytes_bound(params, rank)) : 0;
    const int i = s->whole ? group_within(params, bound, &begin, &end) : -1;
    if (i < 0 || !params->items[i].hidden) return bound;
    return bound - begin <= end - bound ? begin : end;
}

/* ---- Where vectors are. ---- */

static bool is_vector(const Params *params, int i) {
    return params->items[i].trainable && params->items[i].role == PARAM_VECTOR;
}

/* The values of the vectors before parameter i, and of its group before it. */
int64_t params_vector_place(const Params *params, int i) {
    int64_t used = 0;
    for (int k = 0; k <= i && k < params->count; k++) {
        if (!is_vector(params, k)) continue;
        if (param_leads(params, k)) used = params_round_up(used);
        if (k < i) used += param_elements(&params->items[k]);
    }
    return used;
}

/* Without masters: clears what is not this rank's. */
static int keep_own_vectors(const Params *params, Error *err) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (!is_vector(params, i)) continue;
        const int64_t n = param_elements(p);
        int64_t first = params->own_begin - p->offset, end = params->own_end - p->offset;
        first = first < 0 ? 0 : first > n ? n : first;
        end = end < first ? first : end > n ? n : end;
        float *values = params->own_vectors + params_vector_place(params, i);
        TRY(device_clear(params->device, values, (size_t)first * sizeof *values, err));
        TRY(device_clear(params->device, values + end, (size_t)(n - end) * sizeof *values, err));
    }
    return 0;
}

int params_own_vectors(const Params *params, Error *err) {
    if (!params->own_vectors) return 0;
    if (params_without_masters(params)) return keep_own_vectors(params, err);
    TRY(device_clear(params->device, params->own_vectors,
                     (size_t)params->vector_values * sizeof(float), err));
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (!is_vector(params, i)) continue;
        int64_t first = p->offset, end = p->offset + param_elements(p);
        if (first < params->own_begin) first = params->own_begin;
        if (end > params->own_end) end = params->own_end;
        if (first >= end) continue;
        float *to = params->own_vectors + params_vector_place(params, i) + (first - p->offset);
        TRY(convert_forward(params->device, tensor_2d(to, DTYPE_F32, 1, end - first),
                            tensor_2d(params_master_at(params, first), DTYPE_F32, 1, end - first),
                            err));
    }
    return 0;
}

/* ---- Where gradients are. ---- */

/* The values of the largest stretch of neighbors in the same block. */
static int64_t largest_block(const Params *params) {
    int64_t largest = 0, begin = 0;
    int before = -1;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0) continue;
        const int block = block_of(params, p);
        const int64_t end = params_round_up(p->offset + param_elements(p));
        if (block != before) begin = p->offset;
        if (block >= 0 && end - begin > largest) largest = end - begin;
        before = block;
    }
    return largest;
}

/* Parts of tables are about as large as a block; their rows a multiple of this, for alignment. */
enum { TABLE_ROWS = 64 };

static void find_tables(Params *params) {
    const int64_t largest = largest_block(params);
    int first = params->share.block_count;
    for (int i = 0; i < params->count && params->table_count < 2; i++) {
        const Param *p = &params->items[i];
        if (!is_table(params, p)) continue;
        int64_t rows = largest / param_columns(p) / TABLE_ROWS * TABLE_ROWS;
        if (rows < TABLE_ROWS) rows = TABLE_ROWS;
        const int count = (int)((param_rows(p) + rows - 1) / rows);
        params->tables[params->table_count++] =
            (ParamsTable){.parts = {.rows = rows, .count = count}, .item = i, .first = first};
        first += count;
    }
}

const ParamsTable *params_table_of(const Params *params, int i) {
    for (int k = 0; k < params->table_count; k++)
        if (params->tables[k].item == i) return &params->tables[k];
    return NULL;
}

void params_table_place(const Params *params, const ParamsTable *table, void *whole) {
    const Param *p = &params->items[table->item];
    Tensor *slots[] = {p->slot, p->table_slot};
    for (int i = 0; i < 2; i++) {
        if (!slots[i]) continue;
        slots[i]->data =
            whole ? whole
                  : (char *)params->working + (size_t)p->place * dtype_size(params->compute);
        slots[i]->parts = whole ? NULL : &table->parts;
    }
}

static void begin_run(Params *params, int64_t begin, int block) {
    if (params->run_count) params->runs[params->run_count - 1].end = begin;
    params->runs[params->run_count++] = (ParamsRun){.begin = begin, .block = block};
}

/* Runs of neighbors in the same block, and tables' parts. */
static void find_runs(Params *params) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0) continue;
        const ParamsTable *table = params_table_of(params, i);
        for (int k = 0; table && k < table->parts.count; k++)
            begin_run(params, p->offset + k * table->parts.rows * param_columns(p),
                      table->first + k);
        if (table) continue;
        const int block = block_of(params, p);
        if (!params->run_count || params->runs[params->run_count - 1].block != block)
            begin_run(params, p->offset, block);
    }
    if (params->run_count) params->runs[params->run_count - 1].end = params->flat;
}

const ParamsRun *params_run_of(const Params *params, int block) {
    for (int i = 0; i < params->run_count; i++)
        if (params->runs[i].block == block) return &params->runs[i];
    return NULL;
}

/* Whether a run has the second of two memories: blocks follow the parts of the first table. */
static bool is_odd(const Params *params, const ParamsRun *run) {
    const int blocks = params->share.block_count;
    const ParamsTable *t = params->tables;
    if (!params->share.overlap || run->block < 0) return false;
    if (run->block < blocks) return (run->block + (params->table_count ? t->parts.count : 0)) % 2;
    const int second = params->table_count > 1 && run->block >= t[1].first;
    return (run->block - t[second].first) % 2;
}

/* Blocks share the beginning of `grad`, if each is one run; all else follows. */
static void place_runs(Params *params) {
    int64_t largest = 0;
    for (int i = 0; i < params->run_count; i++) {
        ParamsRun *run = &params->runs[i];
        for (int k = 0; k < i; k++)
            if (params->runs[k].block == run->block && run->block >= 0)
                run->block = params->runs[k].block = -1;
    }
    for (int i = 0; i < params->run_count; i++) {
        const ParamsRun *run = &params->runs[i];
        if (run->block >= 0 && run->end - run->begin > largest) largest = run->end - run->begin;
    }
    params->grad_values = params->share.overlap ? 2 * largest : largest;
    for (int i = 0; i < params->table_count && params->share.overlap; i++)
        params->tables[i].parts.apart = largest;
    for (int i = 0; i < params->run_count; i++) {
        ParamsRun *run = &params->runs[i];
        if (is_odd(params, run)) run->place = largest;
        if (run->block >= 0) continue;
        run->place = params->grad_values;
        params->grad_values += run->end - run->begin;
    }
}

static int divide_gradients(Params *params, Error *err) {
    size_t most = (size_t)params->count + 1;
    find_tables(params);
    for (int i = 0; i < params->table_count; i++) most += (size_t)params->tables[i].parts.count;
    params->runs = calloc(most, sizeof *params->runs);
    if (!params->runs) return error_set(err, "out of memory: %d parameters", params->count);
    find_runs(params);
    place_runs(params);
    for (int i = 0; i < params->run_count; i++) {
        ParamsRun *run = &params->runs[i];
        if (run->block < 0) continue;
        run->own = params->own_values;
        const int64_t first = run->begin > params->own_begin ? run->begin : params->own_begin;
        const int64_t end = run->end < params->own_end ? run->end : params->own_end;
        if (first < end) params->own_values += end - first;
    }
    for (int i = 0, k = 0; i < params->count; i++) {
        Param *p = &params->items[i];
        if (p->offset < 0) continue;
        while (p->offset >= params->runs[k].end) k++;
        p->place = params->runs[k].place + p->offset - params->runs[k].begin;
    }
    return 0;
}

int params_share_lay_out(Params *params, Error *err) {
    const ParamsShare *s = &params->share;
    const bool divided = params_divided(params);
    params->own_begin = divided ? params_bound(params, s->rank) : 0;
    params->own_end = divided ? params_bound(params, s->rank + 1) : params->flat;
    params->grad_values = params->flat;
    if (!params->flat) return 0;
    if (params_masters_divided(params) || params_without_masters(params))
        params->vector_values = params_round_up(params_vector_place(params, params->count));
    return divided && s->level >= 2 ? divide_gradients(params, err) : 0;
}

/* ---- Addresses. ---- */

float *params_master_at(const Params *params, int64_t value) {
    if (params_without_masters(params)) return NULL;
    if (!params_masters_divided(params)) return params->master + value;
    if (value < params->own_begin || value >= params->own_end) return NULL;
    return params->master + (value - params->own_begin);
}

static const ParamsRun *run_with(const Params *params, int64_t value) {
    int i = 0;
    while (i + 1 < params->run_count && value >= params->runs[i].end) i++;
    return &params->runs[i];
}

/* The place of an own value of a block in own_grad and own_working; -1: it is none of a block. */
static int64_t own_place(const Params *params, const ParamsRun *run, int64_t value) {
    if (run->block < 0) return -1;
    return run->own + value - (run->begin > params->own_begin ? run->begin : params->own_begin);
}

/* Of the weights that operations read, an own value. */
static char *own_weight(const Params *params, int64_t value) {
    const size_t size = dtype_size(params->compute);
    if (!params_weights_divided(params)) return (char *)params->working + (size_t)value * size;
    const ParamsRun *run = run_with(params, value);
    const int64_t own = own_place(params, run, value);
    if (own >= 0) return (char *)params->own_working + (size_t)own * size;
    return (char *)params->working + (size_t)(run->place + value - run->begin) * size;
}

Tensor params_updated(const Params *params, int index, int64_t first, int64_t count) {
    const Param *p = &params->items[index];
    if (!params_without_masters(params))
        return tensor_1d(params_master_at(params, p->offset + first), DTYPE_F32, count);
    if (p->role == PARAM_VECTOR)
        return tensor_1d(params->own_vectors + params_vector_place(params, index) + first,
                         DTYPE_F32, count);
    return tensor_1d(own_weight(params, p->offset + first), params->compute, count);
}

void *params_copy_at(const Params *params, int64_t value) {
    if (params->compute == DTYPE_F32 || params_without_masters(params)) return NULL;
    return own_weight(params, value);
}

const void *params_gathered_from(const Params *params, int64_t value) {
    if (params->compute == DTYPE_F32) return params_master_at(params, value);
    return own_weight(params, value);
}

float *params_grad_at(const Params *params, int64_t value) {
    if (!params->runs) return params->grad + value;
    const ParamsRun *run = run_with(params, value);
    const int64_t own = own_place(params, run, value);
    return own >= 0 ? params->own_grad + own : params->grad + run->place + (value - run->begin);
}

/* ---- Moments. ---- */

int params_fetch_moment(const Params *params, Tensor own, int kind, int64_t first, int64_t count,
                        float *host, Error *err) {
    const ParamsShare *s = &params->share;
    if (first >= params->own_begin && first + count <= params->own_end)
        return device_download(params->device, host,
                               (const float *)own.data + (first - params->own_begin),
                               (size_t)count * sizeof(float), err);
    if (!s->fetch)
        return error_set(err, "rank %d of %d does not have these moments", s->rank, s->ranks);
    return s->fetch(s->user, params, kind, first, count, host, err);
}

int params_store_moment(const Params *params, Tensor own, int64_t first, int64_t count,
                        const float *host, Error *err) {
    int64_t begin = first > params->own_begin ? first : params->own_begin;
    int64_t end = first + count < params->own_end ? first + count : params->own_end;
    if (begin >= end) return 0;
    return device_upload(params->device, (float *)own.data + (begin - params->own_begin),
                         host + (begin - first), (size_t)(end - begin) * sizeof(float), err);
}

size_t params_flat_bytes(const Params *params, int64_t flat, Dtype compute) {
    const int64_t own = params->own_end - params->own_begin;
    const bool divided = params->flat && params_divided(params);
    const bool gathered = divided && params->share.level >= 3, wide = compute == DTYPE_F32;
    const int64_t vectors = params_round_up(params_vector_place(params, params->count));
    size_t working = wide ? 0 : (size_t)flat * dtype_size(compute);
    if (gathered)
        working =
            (size_t)(params->grad_values + (wide ? 0 : params->own_values)) * dtype_size(compute);
    int64_t values = gathered || (divided && !wide) ? own + vectors : flat;
    if (params->masterless && !wide) values = vectors;
    values += params->runs ? params->grad_values + params->own_values : flat;
    return working + (size_t)values * sizeof(float);
}
