/* Scales of quantized tensors. Next to a tensor NAME of I8 there is a tensor NAME_scale of F32, one
 * value for each index of the first dimension of NAME (kernels/int8.h). Once joined, the scales are
 * part of the tensor and no longer listed by themselves. */
#include "data/checkpoints/checkpoint_store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int name_compare(const void *a, const void *b) {
    const CheckpointTensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* *found is NULL if the tensor has no scales. */
static int scales_find(const CheckpointStore *store, const char *path, const char *name,
                       const CheckpointTensor **found, Error *err) {
    size_t size = strlen(name) + sizeof CHECKPOINT_SCALE;
    char *full = malloc(size);
    if (!full) return error_set(err, "%s: out of memory", path);
    snprintf(full, size, "%s" CHECKPOINT_SCALE, name);
    CheckpointTensor key = {.name = full};
    *found = bsearch(&key, store->tensors, store->tensor_count, sizeof key, name_compare);
    free(full);
    return 0;
}

static int scales_check(const char *path, const CheckpointTensor *t, const CheckpointTensor *s,
                        Error *err) {
    const Tensor *v = &t->value;
    char found[160], expected[160];
    if (v->ndim < 2)
        return error_set(err, "%s: %s is I8 with scales, but of %d dimensions, expected 2 or more",
                         path, t->name, v->ndim);
    if (s->value.dtype != DTYPE_F32 || s->value.ndim != 1 || s->value.shape[0] != v->shape[0]) {
        shape_text(found, sizeof found, s->value.ndim, s->value.shape);
        shape_text(expected, sizeof expected, 1, v->shape);
        return error_set(err, "%s: %s is %s %s, expected F32 %s for the rows of %s", path, s->name,
                         s->type_text, found, expected, t->name);
    }
    const float *scale = s->value.data;
    for (int64_t i = 0; i < v->shape[0]; i++)
        if (!isfinite(scale[i]) || scale[i] <= 0)
            return error_set(err, "%s: the scale of row %lld in %s is %g, expected above 0", path,
                             (long long)i, s->name, (double)scale[i]);
    return 0;
}

/* Gives each I8 tensor its scales, and marks them. One without scales is no weight: params_set
 * refuses it. */
static int scales_join(CheckpointStore *store, bool *joined, const char *path, Error *err) {
    for (size_t i = 0; i < store->tensor_count; i++) {
        CheckpointTensor *t = &store->tensors[i];
        const CheckpointTensor *s = NULL;
        if (t->value.dtype != DTYPE_I8) continue;
        TRY(scales_find(store, path, t->name, &s, err));
        if (!s) continue;
        TRY(scales_check(path, t, s, err));
        t->value.scale = s->value.data;
        joined[s - store->tensors] = true;
    }
    return 0;
}

int store_join_scales(CheckpointStore *store, const char *path, Error *err) {
    bool *joined = calloc(store->tensor_count + 1, sizeof *joined);
    if (!joined) return error_set(err, "%s: out of memory", path);
    int status = scales_join(store, joined, path, err);
    size_t kept = 0;
    for (size_t i = 0; i < store->tensor_count && status == 0; i++)
        if (!joined[i]) store->tensors[kept++] = store->tensors[i];
    if (status == 0) store->tensor_count = kept;
    free(joined);
    return status;
}
