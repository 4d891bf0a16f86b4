#include "data/checkpoints/optimizer_files.h"

#include <stdlib.h>
#include <string.h>

#include "data/checkpoints/checkpoint.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"
#include "kernels/tensor.h"

enum { KINDS = 5 }; /* tensors of a parameter, at most */

/* What a file has of one table. */
typedef struct Listed {
    const OptimizerPart *part;
    CheckpointEntry *entries; /* names owned; without data */
    int *index;               /* of the parameters */
    int *piece;               /* a MomentPiece; 0: masters */
    size_t count;
} Listed;

static int add(Listed *l, int index, const char *suffix, Tensor form, int piece, Error *err) {
    char *name = path_format(err, "%s%s", l->part->params->items[index].name, suffix);
    if (!name) return -1;
    form.data = NULL;
    l->entries[l->count] = (CheckpointEntry){name, form};
    l->index[l->count] = index;
    l->piece[l->count++] = piece;
    return 0;
}

static int add_param(Listed *l, int index, Error *err) {
    const OptimizerPart *part = l->part;
    const Param *p = &part->params->items[index];
    const Tensor whole = tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape);
    TRY(add(l, index, "", whole, 0, err));
    if (!moments_narrow(p)) {
        TRY(add(l, index, ".m", whole, MOMENT_M, err));
        return add(l, index, ".v", whole, MOMENT_V, err);
    }
    const Tensor bytes = tensor_nd(NULL, DTYPE_U8, p->ndim, p->shape);
    const Tensor scales =
        tensor_1d(NULL, DTYPE_F32, moments_piece_values(MOMENT_M_SCALE, tensor_count(whole)));
    TRY(add(l, index, ".m", bytes, MOMENT_M8, err));
    TRY(add(l, index, ".v", bytes, MOMENT_V8, err));
    TRY(add(l, index, ".m.scale", scales, MOMENT_M_SCALE, err));
    return add(l, index, ".v.scale", scales, MOMENT_V_SCALE, err);
}

static void listed_free(Listed *l) {
    for (size_t i = 0; i < l->count; i++) free((char *)(uintptr_t)l->entries[i].name);
    free(l->entries), free(l->index), free(l->piece);
}

static int list(Listed *l, const OptimizerPart *part, const char *path, Error *err) {
    const Params *params = part->params;
    const size_t most = (size_t)params->count * KINDS + 1;
    *l = (Listed){.part = part};
    l->entries = calloc(most, sizeof *l->entries);
    l->index = calloc(most, sizeof *l->index);
    l->piece = calloc(most, sizeof *l->piece);
    int status = l->entries && l->index && l->piece ? 0 : error_set(err, "%s: out of memory", path);
    for (int i = 0; i < params->count && status == 0; i++)
        if (params->items[i].offset >= 0) status = add_param(l, i, err);
    if (status) listed_free(l);
    return status;
}

static int fetch(void *user, size_t entry, int64_t first, int64_t count, void *bytes, Error *err) {
    const Listed *l = user;
    const Params *params = l->part->params;
    const int index = l->index[entry];
    if (!l->piece[entry])
        return params_fetch_part(params, &params->items[index], first, count, bytes, DTYPE_F32,
                                 err);
    return moments_fetch(&l->part->moments, params, index, (MomentPiece)l->piece[entry], first,
                         count, bytes, err);
}

int optimizer_part_write(const OptimizerPart *part, const char *path, Error *err) {
    Listed l;
    if (!part->narrow) return training_state_write(part->params, part->m, part->v, path, err);
    TRY(list(&l, part, path, err));
    int status = checkpoint_write_stream(path, l.entries, l.count, fetch, &l, err);
    listed_free(&l);
    return status;
}

/* Checked completely before anything is changed. */
static int check(const Listed *l, const Checkpoint *c, Error *err) {
    for (size_t i = 0; i < l->count; i++) {
        const CheckpointEntry *want = &l->entries[i];
        const CheckpointTensor *t = checkpoint_find(c, want->name);
        if (t && t->value.dtype == want->value.dtype && tensor_same_shape(t->value, want->value))
            continue;
        char found[128] = "nothing", expected[128];
        if (t) shape_text(found, sizeof found, t->value.ndim, t->value.shape);
        shape_text(expected, sizeof expected, want->value.ndim, want->value.shape);
        return error_set(err,
                         "%s: the state of another training run: of %s it has %s %s, expected %s "
                         "%s",
                         c->path, want->name, t ? t->type_text : "", found,
                         dtype_name(want->value.dtype), expected);
    }
    if (c->count == l->count) return 0;
    return error_set(err, "%s: the state of another training run: it has %zu tensors, expected %zu",
                     c->path, c->count, l->count);
}

static int load(const Listed *l, OptimizerPart *part, const Checkpoint *c, Error *err) {
    for (size_t i = 0; i < l->count; i++) {
        const Tensor value = checkpoint_find(c, l->entries[i].name)->value;
        const int index = l->index[i];
        if (l->piece[i])
            TRY(moments_store(&part->moments, part->params, index, (MomentPiece)l->piece[i],
                              value.data, err));
        else
            TRY(params_store(part->params, &part->params->items[index], value.data, err));
        checkpoint_release_pages(c, value.data, tensor_bytes(value));
    }
    return 0;
}

int optimizer_part_read(OptimizerPart *part, const char *path, Error *err) {
    Listed l;
    Checkpoint c;
    if (!part->narrow) return training_state_read(part->params, part->m, part->v, path, err);
    TRY(list(&l, part, path, err));
    int status = checkpoint_open(&c, path, NULL, err);
    if (status == 0) {
        status = check(&l, &c, err);
        if (status == 0) status = load(&l, part, &c, err);
        checkpoint_close(&c);
    }
    listed_free(&l);
    return status;
}
