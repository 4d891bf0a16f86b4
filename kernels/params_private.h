/* params_private.h - shared by params.c (the table, for inference) and params_train.c. */
#ifndef EASYFIRST_KERNELS_PARAMS_PRIVATE_H
#define EASYFIRST_KERNELS_PARAMS_PRIVATE_H

#include "kernels/params.h"

enum { PARAMS_ALIGNMENT = 256 };

static inline size_t params_aligned(size_t bytes) {
    return (bytes + PARAMS_ALIGNMENT - 1) / PARAMS_ALIGNMENT * PARAMS_ALIGNMENT;
}

static inline int64_t param_elements(const Param *p) {
    int64_t n = 1;
    for (int i = 0; i < p->ndim; i++) n *= p->shape[i];
    return n;
}

/* The parameter as operations' matrix: rows, and all other dimensions as columns. A table of one
 * dimension is one row (CLIP's class embedding). */
static inline int64_t param_rows(const Param *p) {
    bool one = p->role == PARAM_VECTOR || (p->role == PARAM_TABLE && p->ndim == 1);
    return one ? 1 : p->shape[0];
}

static inline int64_t param_columns(const Param *p) {
    return param_elements(p) / (param_rows(p) ? param_rows(p) : 1);
}

/* Whether the parameter is the first of its group; one that is not joined is a group by itself. */
static inline bool param_leads(const Params *params, int i) {
    return params->items[i].join < 0 || params->items[i].join == i;
}

/* Index after the last member of the group that starts at `first`. */
static inline int params_group_end(const Params *params, int first) {
    int end = first + 1;
    while (end < params->count && params->items[end].join == first) end++;
    return end;
}

/* Values of the flat tables are aligned to so many. */
enum { PARAMS_ALIGNED_VALUES = PARAMS_ALIGNMENT / sizeof(float) };

static inline int64_t params_round_up(int64_t n) {
    return (n + PARAMS_ALIGNED_VALUES - 1) / PARAMS_ALIGNED_VALUES * PARAMS_ALIGNED_VALUES;
}

/* Once the offsets are there: what of the flat tables is this rank's, and where gradients and
 * vectors are. */
int params_share_lay_out(Params *params, Error *err);

/* Whether there are no masters. */
static inline bool params_without_masters(const Params *params) {
    return params->masterless && params->compute != DTYPE_F32;
}

/* Whether this rank has its own values' weights only, but for what is gathered. */
static inline bool params_weights_divided(const Params *params) {
    return params_divided(params) && params->share.level >= 3;
}

/* Whether this rank has its own values' masters only. */
static inline bool params_masters_divided(const Params *params) {
    if (params_weights_divided(params)) return !params_without_masters(params);
    return params_divided(params) && params->compute != DTYPE_F32 && !params->masterless;
}

/* The table of parameter `i`, which comes in parts; NULL: it does not. */
const ParamsTable *params_table_of(const Params *params, int i);

/* The place of a trainable vector in own_vectors. */
int64_t params_vector_place(const Params *params, int i);

/* Bytes of masters, working copies and gradients. */
size_t params_flat_bytes(const Params *params, int64_t flat, Dtype compute);

/* Fills params->vectors on the device with the vectors as f32, a group's members contiguous, and
 * their slots; with `frozen` only those that are not trained. */
int params_prepare_vectors(Params *params, bool frozen, Error *err);

/* The bytes of params->vectors. */
size_t params_vector_bytes(const Params *params, bool frozen);

#endif
