#include "projector/projector.h"

#include <stdlib.h>

#include "kernels/names.h"

const char *const projector_kind_names[] = {
    [PROJECTOR_LINEAR] = "linear", [PROJECTOR_MLP2X_GELU] = "mlp2x_gelu", NULL};

const char *projector_kind_name(ProjectorKind kind) {
    return names_get(projector_kind_names, kind);
}

int projector_declare(Projector *p, ProjectorKind kind, int in, int out, int rows, Params *params,
                      Error *err) {
    *p = (Projector){.kind = kind, .in = in, .out = out, .rows = rows, .params = params};
    bool two = kind == PROJECTOR_MLP2X_GELU;
    int first = params->count;
    TRY(params_declare_linear(params, &p->w1, &p->b1, out, in, false, err, "model.mm_projector.%s",
                              two ? "0." : ""));
    if (two)
        TRY(params_declare_linear(params, &p->w2, &p->b2, out, out, false, err,
                                  "model.mm_projector.2."));
    params_mark_hidden(params, first);
    if (!rows) return 0;
    const ParamSpec positions = {.slot = &p->positions,
                                 .role = PARAM_TABLE,
                                 .init = INIT_ZERO,
                                 .ndim = 2,
                                 .shape = {rows, out}};
    return params_declare(params, &positions, err, "model.mm_projector.position_embedding.weight");
}

/* ---- Positions. ---- */

static size_t positions_bytes(const Projector *p, int64_t rows) {
    return p->rows ? arena_bytes(DTYPE_I32, 1, rows) : 0;
}

/* The position of each of `count` rows of whole images, in the arena. */
static int positions_index(const Projector *p, Arena *arena, int64_t count, Tensor *index,
                           Error *err) {
    int32_t *host = malloc((size_t)count * sizeof *host + 1);
    if (!host) return error_set(err, "out of memory for %lld rows", (long long)count);
    for (int64_t r = 0; r < count; r++) host[r] = (int32_t)(r % p->rows);
    int status = arena_upload(arena, index, DTYPE_I32, count, host, err);
    free(host);
    return status;
}

/* Fills the tokens with the positions, for the last layer to add to; *add: whether there are any. */
static int positions_forward(const Projector *p, Arena *arena, Tensor tokens, bool *add,
                             Error *err) {
    *add = p->rows > 0;
    if (!*add) return 0;
    size_t mark = arena->used;
    Tensor index = {0};
    TRY(positions_index(p, arena, tokens.shape[0], &index, err));
    const GatherTerm term = {p->positions, index};
    int status = gather_forward(arena->device, tokens, &term, 1, err);
    arena_reset(arena, mark);
    return status;
}

static int positions_backward(const Projector *p, Arena *arena, Tensor dtokens, Error *err) {
    Tensor index = {0};
    if (!p->rows || !p->positions.grad) return 0;
    size_t mark = arena->used;
    TRY(positions_index(p, arena, dtokens.shape[0], &index, err));
    int status = gather_backward(arena->device, tensor_grad(p->positions), dtokens, index, err);
    arena_reset(arena, mark);
    return status;
}

/* ---- Forward. ---- */

size_t projector_work_bytes(const Projector *p, int64_t rows) {
    size_t hidden = p->kind == PROJECTOR_LINEAR ? 0 : arena_bytes(p->params->compute, rows, p->out);
    return hidden + positions_bytes(p, rows);
}

int projector_forward(const Projector *p, Arena *arena, Tensor tokens, Tensor features,
                      Error *err) {
    Device *device = arena->device;
    bool add;
    TRY(positions_forward(p, arena, tokens, &add, err));
    if (p->kind == PROJECTOR_LINEAR)
        return linear_forward(device, tokens, features, p->w1, p->b1, 0, add, err); /* [R, out] */
    size_t mark = arena->used;
    Tensor hidden;
    TRY(arena_take(arena, &hidden, p->params->compute, features.shape[0], p->out, err));
    TRY(linear_forward(device, hidden, features, p->w1, p->b1, ACTIVATION_GELU, false, err));
    TRY(linear_forward(device, tokens, hidden, p->w2, p->b2, 0, add, err)); /* [R, out] */
    arena_reset(arena, mark);
    return 0;
}

/* ---- Training. ---- */

size_t projector_tape_bytes(const Projector *p, int64_t rows) {
    return p->kind == PROJECTOR_LINEAR ? 0 : arena_bytes(DTYPE_F32, rows, p->out);
}

size_t projector_backward_bytes(const Projector *p, int64_t rows) {
    size_t c = arena_bytes(p->params->compute, rows, p->out);
    size_t converted = p->params->compute == DTYPE_F32 ? 0 : c;
    converted += positions_bytes(p, rows);
    if (p->kind == PROJECTOR_LINEAR) return converted;
    return converted + c + arena_bytes(DTYPE_F32, rows, p->out);
}

int projector_train_forward(const Projector *p, Arena *arena, Tensor tokens, Tensor features,
                            Tensor *hidden, Error *err) {
    Device *device = arena->device;
    *hidden = TENSOR_NONE;
    if (p->kind == PROJECTOR_LINEAR) return projector_forward(p, arena, tokens, features, err);
    int64_t rows = features.shape[0];
    bool add;
    TRY(arena_take(arena, hidden, DTYPE_F32, rows, p->out, err));
    TRY(positions_forward(p, arena, tokens, &add, err));
    size_t mark = arena->used;
    Tensor active;
    TRY(arena_take(arena, &active, p->params->compute, rows, p->out, err));
    TRY(linear_forward(device, *hidden, features, p->w1, p->b1, 0, false, err)); /* [R, out] */
    TRY(activation_forward(device, active, *hidden, ACTIVATION_GELU, err));
    TRY(linear_forward(device, tokens, active, p->w2, p->b2, 0, add, err)); /* [R, out] */
    arena_reset(arena, mark);
    return 0;
}

/* The second layer and the GELU: *dy becomes the gradient of the first layer's output. */
static int second_backward(const Projector *p, Arena *arena, Tensor *dy, Tensor hidden,
                           Error *err) {
    Device *device = arena->device;
    Tensor active, dactive;
    TRY(arena_take(arena, &active, p->params->compute, hidden.shape[0], p->out, err));
    TRY(arena_take(arena, &dactive, DTYPE_F32, hidden.shape[0], p->out, err));
    TRY(activation_forward(device, active, hidden, ACTIVATION_GELU, err)); /* again */
    TRY(linear_backward(device, dactive, tensor_grad(p->w2), tensor_grad(p->b2), *dy, active, p->w2,
                        false, err)); /* [R, out] */
    *dy = active;                     /* no longer needed */
    return activation_backward(device, *dy, dactive, hidden, ACTIVATION_GELU, err);
}

int projector_train_backward(const Projector *p, Arena *arena, Tensor dfeatures, Tensor dtokens,
                             Tensor features, Tensor hidden, Error *err) {
    Device *device = arena->device;
    Dtype compute = p->params->compute;
    size_t mark = arena->used;
    TRY(positions_backward(p, arena, dtokens, err));
    Tensor dy = dtokens;
    if (compute != DTYPE_F32) {
        TRY(arena_take(arena, &dy, compute, dtokens.shape[0], p->out, err));
        TRY(convert_forward(device, dy, dtokens, err));
    }
    if (p->kind == PROJECTOR_MLP2X_GELU) TRY(second_backward(p, arena, &dy, hidden, err));
    TRY(linear_backward(device, dfeatures, tensor_grad(p->w1), tensor_grad(p->b1), dy, features,
                        p->w1, false, err)); /* [R, in] */
    arena_reset(arena, mark);
    return 0;
}
