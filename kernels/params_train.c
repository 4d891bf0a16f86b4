/* Parameters in training: one flat table for all trainable ones (params.h). */
#include "kernels/int8.h"
#include "kernels/params_private.h"

#include <stdlib.h>
#include <string.h>

/* Values converted at a time on the way to or from the device. */
enum { PIECE = 1 << 17 };

void params_freeze(Params *params, bool frozen) {
    for (int i = 0; i < params->count; i++)
        params->items[i].trainable =
            !frozen && !params->items[i].idle && params->items[i].role != PARAM_FOLDED;
}

/* ---- Host values to the device and back, in another type. ---- */

/* Values [first, first + n) of `from`. */
static int upload_part(Device *device, void *to, Dtype to_dtype, Tensor from, int64_t first,
                       int64_t n, Error *err) {
    if (to_dtype == from.dtype)
        return device_upload(device, to,
                             (const char *)from.data + (size_t)first * dtype_size(to_dtype),
                             (size_t)n * dtype_size(to_dtype), err);
    size_t to_size = dtype_size(to_dtype);
    int64_t most = n < PIECE ? n : PIECE;
    void *piece = malloc((size_t)most * to_size);
    if (!piece) return error_set(err, "out of memory: %lld values to convert", (long long)most);
    int status = 0;
    for (int64_t i = 0; i < n && status == 0; i += most) {
        int64_t here = n - i < most ? n - i : most;
        tensor_values(piece, to_dtype, from, first + i, here);
        status = device_upload(device, (char *)to + (size_t)i * to_size, piece,
                               (size_t)here * to_size, err);
    }
    free(piece);
    return status;
}

static int upload_as(Device *device, void *to, Dtype to_dtype, Tensor from, Error *err) {
    return upload_part(device, to, to_dtype, from, 0, tensor_count(from), err);
}

/* The masters of a parameter, as far as they are on this rank. */
static int upload_master(const Params *params, const Param *p, Tensor from, Error *err) {
    int64_t first = 0, end = tensor_count(from);
    if (params_without_masters(params)) return 0;
    if (params_masters_divided(params)) {
        if (first < params->own_begin - p->offset) first = params->own_begin - p->offset;
        if (end > params->own_end - p->offset) end = params->own_end - p->offset;
    }
    if (first >= end) return 0;
    return upload_part(params->device, params_master_at(params, p->offset + first), DTYPE_F32, from,
                       first, end - first, err);
}

static int download_as(Device *device, void *to, Dtype to_dtype, Tensor from, Error *err) {
    const int64_t n = from.shape[0];
    if (to_dtype == from.dtype)
        return device_download(device, to, from.data, tensor_bytes(from), err);
    int64_t most = n < PIECE ? n : PIECE;
    void *piece = malloc((size_t)most * dtype_size(from.dtype));
    if (!piece) return error_set(err, "out of memory: %lld values to convert", (long long)most);
    int status = 0;
    for (int64_t i = 0; i < n && status == 0; i += most) {
        const size_t here = (size_t)(n - i < most ? n - i : most), size = dtype_size(from.dtype);
        status = device_download(device, piece, (const char *)from.data + (size_t)i * size,
                                 here * size, err);
        if (status == 0)
            values_convert((char *)to + (size_t)i * dtype_size(to_dtype), to_dtype, piece,
                           from.dtype, here);
    }
    free(piece);
    return status;
}

/* Uploads a parameter's values; zeros if it has none. */
static int upload_value(Device *device, void *to, Dtype dtype, const Param *p, Error *err) {
    int64_t n = param_elements(p);
    if (!p->present) return device_clear(device, to, (size_t)n * dtype_size(dtype), err);
    return upload_as(device, to, dtype, p->value, err);
}

/* ---- Trainable parameters. ---- */

/* The offset of a trainable parameter after `*used` values of the flat tables, which it extends. */
static int64_t take_place(const Params *params, int i, int64_t *used) {
    if (param_leads(params, i)) *used = params_round_up(*used);
    int64_t place = *used;
    *used += param_elements(&params->items[i]);
    return place;
}

static int64_t flat_values(const Params *params) {
    int64_t used = 0;
    for (int i = 0; i < params->count; i++)
        if (params->items[i].trainable) take_place(params, i, &used);
    return params_round_up(used);
}

/* Sets the offsets of all trainable parameters. */
static void lay_out(Params *params) {
    int64_t used = 0;
    for (int i = 0; i < params->count; i++)
        if (params->items[i].trainable)
            params->items[i].offset = params->items[i].place = take_place(params, i, &used);
    params->flat = params_round_up(used);
}

static int check_groups(const Params *params, Error *err) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->join < 0 || params->items[p->join].trainable == p->trainable) continue;
        return error_set(err, "%s and %s are joined: one is frozen, the other is not",
                         params->items[p->join].name, p->name);
    }
    return 0;
}

/* Zeroed; NULL for no bytes. */
static int take_table(const Params *params, void **table, size_t bytes, Error *err) {
    *table = NULL;
    if (!bytes) return 0;
    TRY(device_alloc(params->device, table, bytes, err));
    return device_clear(params->device, *table, bytes, err);
}

static int take_tables(Params *params, Error *err) {
    const int64_t own = params->own_end - params->own_begin;
    const int64_t masters = params_without_masters(params)   ? 0
                            : params_masters_divided(params) ? own
                                                             : params->flat;
    const bool gathered = params_weights_divided(params), wide = params->compute == DTYPE_F32;
    const int64_t read = gathered ? params->grad_values : wide ? 0 : params->flat;
    const size_t size = dtype_size(params->compute), working = (size_t)read * size;
    void *memory[4] = {0};
    TRY(take_table(params, &memory[0], (size_t)masters * sizeof(float), err));
    params->master = memory[0];
    TRY(take_table(params, &memory[1], (size_t)params->grad_values * sizeof(float), err));
    params->grad = memory[1];
    TRY(take_table(params, &params->working, working, err));
    TRY(take_table(params, &params->own_working,
                   gathered && !wide ? (size_t)params->own_values * size : 0, err));
    TRY(take_table(params, &memory[2], (size_t)params->vector_values * sizeof(float), err));
    params->own_vectors = memory[2];
    TRY(take_table(params, &memory[3], (size_t)params->own_values * sizeof(float), err));
    params->own_grad = memory[3];
    return 0;
}

static void *working_at(const Params *params, int64_t offset) {
    return (char *)params->working + (size_t)offset * dtype_size(params->compute);
}

/* A vector's values count as rows here: its group is their concatenation. */
static int64_t group_rows(const Params *params, int first) {
    int64_t rows = 0;
    for (int i = first; i < params_group_end(params, first); i++) {
        const Param *p = &params->items[i];
        rows += p->role == PARAM_VECTOR ? param_elements(p) : param_rows(p);
    }
    return rows;
}

/* A group as the tensor for operations, without its address: vectors are f32, all else is
 * `dtype`. */
static Tensor group_form(const Params *params, int first, Dtype dtype) {
    const Param *p = &params->items[first];
    int64_t rows = group_rows(params, first);
    if (p->role == PARAM_VECTOR) return tensor_1d(NULL, DTYPE_F32, rows);
    return tensor_2d(NULL, dtype, rows, param_columns(p));
}

static void set_slots(const Param *p, Tensor t) {
    *p->slot = t;
    if (p->role == PARAM_VOCABULARY && p->table_slot) *p->table_slot = t;
}

/* Where operations read a trainable parameter. */
static void *read_place(const Params *params, int i) {
    const Param *p = &params->items[i];
    if (p->role != PARAM_VECTOR && params->working)
        return working_at(params, params_weights_divided(params) ? p->place : p->offset);
    if (params->own_vectors) return params->own_vectors + params_vector_place(params, i);
    return params->master + p->offset;
}

/* Replaces all values of a trainable parameter but those of the working copy. */
static int place_values(const Params *params, int i, Tensor values, Error *err) {
    TRY(upload_master(params, &params->items[i], values, err));
    if (!params->own_vectors || params->items[i].role != PARAM_VECTOR) return 0;
    return upload_as(params->device, params->own_vectors + params_vector_place(params, i),
                     DTYPE_F32, values, err);
}

/* Whether a parameter is a block's that is gathered. */
static bool is_gathered(const Params *params, const Param *p) {
    int i = 0;
    while (i < params->run_count && p->offset >= params->runs[i].end) i++;
    return i < params->run_count && params->runs[i].block >= 0;
}

/* This rank's values of it. */
static int place_own_working(const Params *params, const Param *p, Tensor values, Error *err) {
    int64_t first = params->own_begin - p->offset, end = params->own_end - p->offset;
    if (first < 0) first = 0;
    if (end > tensor_count(values)) end = tensor_count(values);
    if (params->compute == DTYPE_F32 || first >= end) return 0;
    void *to = (void *)(uintptr_t)params_gathered_from(params, p->offset + first);
    return upload_part(params->device, to, params->compute, values, first, end - first, err);
}

/* Replaces the values in the working copy. */
static int place_working(const Params *params, const Param *p, Tensor values, Error *err) {
    int64_t at = p->offset;
    if (!params->working) return 0;
    if (params_weights_divided(params)) {
        if (is_gathered(params, p)) return place_own_working(params, p, values, err);
        at = p->place;
    }
    return upload_as(params->device, working_at(params, at), params->compute, values, err);
}

static int place_trainable(Params *params, Error *err) {
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (!p->trainable) continue;
        if (p->present) TRY(place_values(params, i, p->value, err)); /* else they are zero */
        if (p->present) TRY(place_working(params, p, p->value, err));
        if (!param_leads(params, i)) continue;
        Tensor t = group_form(params, i, params->compute);
        t.data = read_place(params, i);
        t.grad = params->grad + p->place;
        const ParamsTable *table = params_table_of(params, i);
        if (table) t.parts = &table->parts;
        set_slots(p, t);
    }
    return 0;
}

/* The values are in the masters now. Their type is kept: checkpoints are written in it, except that
 * i8 becomes bf16, since an update is far smaller than the step between two integers. */
static void forget_given(Params *params) {
    bool needed = false;
    for (int i = 0; i < params->count; i++) {
        Param *p = &params->items[i];
        const char *data = p->value.data, *block = params->block;
        if (p->trainable) {
            if (!p->present) p->value = tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape);
            if (p->value.dtype == DTYPE_I8) p->value.dtype = DTYPE_BF16;
            p->value.data = NULL, p->value.scale = NULL;
            p->present = true;
        } else if (block && data >= block && data < block + params->block_size + PARAMS_ALIGNMENT) {
            needed = true;
        }
    }
    if (needed) return;
    free(params->block);
    params->block = NULL, params->block_size = 0;
}

/* ---- Frozen parameters. ---- */

static bool needs_rows(const Params *params, int i) {
    const Param *p = &params->items[i];
    return !p->trainable && !p->idle && p->role != PARAM_VECTOR && param_leads(params, i);
}

/* Gather reads tables of any type; matmuls need the compute type. What is i8 is dequantized. */
static Dtype plain_type(const Param *p, Dtype compute) {
    return p->role == PARAM_TABLE && p->present && p->value.dtype != DTYPE_I8 ? p->value.dtype
                                                                              : compute;
}

/* Whether operations can use a group in place on the device: contiguous rows of the right type. */
static bool lies_plain(const Params *params, int first, Dtype compute) {
    if (device_kind(params->device) != DEVICE_CPU) return false;
    Dtype dtype = plain_type(&params->items[first], compute);
    const char *next = params->items[first].value.data;
    for (int i = first; i < params_group_end(params, first); i++) {
        const Param *p = &params->items[i];
        if (!p->present || p->value.dtype != dtype || p->value.data != next) return false;
        next += tensor_bytes(p->value);
    }
    return true;
}

static size_t group_bytes(const Params *params, int first, Dtype compute) {
    const Param *p = &params->items[first];
    return (size_t)(group_rows(params, first) * param_columns(p)) *
           dtype_size(plain_type(p, compute));
}

static size_t plain_bytes(const Params *params, Dtype compute) {
    size_t total = 0;
    for (int i = 0; i < params->count; i++)
        if (needs_rows(params, i) && !lies_plain(params, i, compute))
            total = params_aligned(total) + group_bytes(params, i, compute);
    return total;
}

static int copy_group(const Params *params, int first, char *to, Dtype dtype, Error *err) {
    for (int i = first; i < params_group_end(params, first); i++) {
        const Param *p = &params->items[i];
        TRY(upload_value(params->device, to, dtype, p, err));
        to += (size_t)param_elements(p) * dtype_size(dtype);
    }
    return 0;
}

static int place_frozen(Params *params, Error *err) {
    size_t total = plain_bytes(params, params->compute), used = 0;
    if (total) TRY(device_alloc(params->device, &params->plain, total, err));
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (!needs_rows(params, i)) continue;
        Dtype dtype = plain_type(p, params->compute);
        void *data = p->value.data;
        if (!lies_plain(params, i, params->compute)) {
            used = params_aligned(used);
            data = (char *)params->plain + used;
            TRY(copy_group(params, i, data, dtype, err));
            used += group_bytes(params, i, params->compute);
        }
        Tensor t = group_form(params, i, dtype);
        t.data = data;
        set_slots(p, t);
    }
    return 0;
}

/* ---- All parameters. ---- */

static int train_begin(Params *params, Dtype compute, Error *err) {
    if (params->vectors || params->flat || params->plain)
        return error_set(err, "parameters that are prepared already cannot be trained");
    if (compute != DTYPE_F32 && compute != DTYPE_BF16)
        return error_set(err, "training in %s: expected f32 or bf16", dtype_name(compute));
    if (compute == DTYPE_BF16 && !device_has_bf16(params->device))
        return error_set(err, "training in bf16, on a device without bf16 matmuls (%s)",
                         device_text(params->device));
    const char *missing = params_missing(params);
    if (missing) return error_set(err, "the parameter %s has no values", missing);
    TRY(check_groups(params, err));
    params->compute = compute;
    lay_out(params);
    return params_share_lay_out(params, err);
}

int params_train(Params *params, Dtype compute, Error *err) {
    TRY(train_begin(params, compute, err));
    if (params->flat) {
        TRY(take_tables(params, err));
        TRY(place_trainable(params, err));
    }
    TRY(params_prepare_vectors(params, true, err));
    TRY(place_frozen(params, err));
    forget_given(params);
    return 0;
}

int params_train_describe(Params *params, Dtype compute, Error *err) {
    TRY(train_begin(params, compute, err));
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->idle || !param_leads(params, i)) continue;
        Tensor t = group_form(params, i, p->trainable ? compute : plain_type(p, compute));
        if (p->trainable) t.grad = (void *)params; /* any pointer but NULL marks it trainable */
        const ParamsTable *table = params_table_of(params, i);
        if (table) t.parts = &table->parts;
        set_slots(p, t);
    }
    return 0;
}

static int check_part(const Param *p, int64_t first, int64_t count, Error *err) {
    if (first >= 0 && count >= 0 && first <= param_elements(p) - count) return 0;
    return error_set(err, "%s: values %lld to %lld of %lld", p->name, (long long)first,
                     (long long)(first + count), (long long)param_elements(p));
}

/* Masters that this rank may not have. */
static int fetch_divided(const Params *params, const Param *param, int64_t first, int64_t count,
                         void *host, Dtype dtype, Error *err) {
    const ParamsShare *s = &params->share;
    const int index = (int)(param - params->items);
    if (param->offset + first >= params->own_begin &&
        param->offset + first + count <= params->own_end)
        return download_as(params->device, host, dtype, params_updated(params, index, first, count),
                           err);
    first += param->offset;
    if (!s->fetch)
        return error_set(err, "rank %d of %d does not have these weights", s->rank, s->ranks);
    if (dtype == DTYPE_F32) return s->fetch(s->user, params, 0, first, count, host, err);
    float *values = malloc((size_t)count * sizeof *values);
    if (!values) return error_set(err, "out of memory: %lld values", (long long)count);
    int status = s->fetch(s->user, params, 0, first, count, values, err);
    if (status == 0) values_convert(host, dtype, values, DTYPE_F32, (size_t)count);
    free(values);
    return status;
}

int params_fetch_part(const Params *params, const Param *param, int64_t first, int64_t count,
                      void *host, Dtype dtype, Error *err) {
    TRY(check_part(param, first, count, err));
    if (!dtype_is_float(dtype))
        return error_set(err, "%s: requested as %s, expected f32, f16 or bf16", param->name,
                         dtype_name(dtype));
    const bool whole = param->role == PARAM_VECTOR && params_without_masters(params);
    if (param->offset >= 0 && !whole &&
        (params_masters_divided(params) || params_weights_divided(params)))
        return fetch_divided(params, param, first, count, host, dtype, err);
    if (param->offset >= 0)
        return download_as(params->device, host, dtype,
                           params_updated(params, (int)(param - params->items), first, count), err);
    if (param->present)
        tensor_values(host, dtype, param->value, first, count);
    else
        memset(host, 0, (size_t)count * dtype_size(dtype));
    return 0;
}

int params_fetch(const Params *params, const Param *param, void *host, Dtype dtype, Error *err) {
    return params_fetch_part(params, param, 0, param_elements(param), host, dtype, err);
}

int params_store(Params *params, const Param *param, const float *host, Error *err) {
    if (param->offset < 0)
        return error_set(err, "%s: is not being trained, its values stay as they are", param->name);
    int64_t n = param_elements(param);
    Tensor values = tensor_1d((float *)(uintptr_t)host, DTYPE_F32, n);
    TRY(place_values(params, (int)(param - params->items), values, err));
    return place_working(params, param, values, err);
}

int64_t params_trainable_count(const Params *params) {
    int64_t n = 0;
    for (int i = 0; i < params->count; i++)
        if (params->items[i].trainable) n += param_elements(&params->items[i]);
    return n;
}

size_t params_training_bytes(const Params *params, Dtype compute) {
    return params_flat_bytes(params, flat_values(params), compute) +
           params_vector_bytes(params, true) + plain_bytes(params, compute);
}
