#include "projector/projector.h"

#include <stdio.h>

const char *projector_kind_name(ProjectorKind kind) {
    return kind == PROJECTOR_LINEAR ? "linear" : "mlp2x_gelu";
}

static int declare_linear(Params *params, Tensor *w, Tensor *b, int64_t rows, int64_t columns,
                          const char *name, Error *err) {
    ParamSpec weight = {.slot = w,
                        .role = PARAM_MATRIX,
                        .init = INIT_NORMAL,
                        .init_std = 0.02f,
                        .ndim = 2,
                        .shape = {rows, columns}};
    TRY(params_declare(params, &weight, err, "model.mm_projector.%sweight", name));
    ParamSpec bias = {.slot = b, .role = PARAM_VECTOR, .ndim = 1, .shape = {rows}};
    return params_declare(params, &bias, err, "model.mm_projector.%sbias", name);
}

int projector_declare(Projector *p, ProjectorKind kind, int in, int out, Params *params,
                      Error *err) {
    *p = (Projector){.kind = kind, .in = in, .out = out, .params = params};
    bool two = kind == PROJECTOR_MLP2X_GELU;
    TRY(declare_linear(params, &p->w1, &p->b1, out, in, two ? "0." : "", err));
    return two ? declare_linear(params, &p->w2, &p->b2, out, out, "2.", err) : 0;
}

size_t projector_work_bytes(const Projector *p, int64_t rows) {
    return p->kind == PROJECTOR_LINEAR ? 0 : arena_bytes(p->params->compute, rows, p->out);
}

int projector_forward(const Projector *p, Arena *arena, Tensor tokens, Tensor features,
                      Error *err) {
    Device *device = arena->device;
    if (p->kind == PROJECTOR_LINEAR)
        return linear_forward(device, tokens, features, p->w1, p->b1, 0, false, err); /* [R, out] */
    size_t mark = arena->used;
    Tensor hidden;
    TRY(arena_take(arena, &hidden, p->params->compute, features.shape[0], p->out, err));
    TRY(linear_forward(device, hidden, features, p->w1, p->b1, ACTIVATION_GELU, false, err));
    TRY(linear_forward(device, tokens, hidden, p->w2, p->b2, 0, false, err)); /* [R, out] */
    arena_reset(arena, mark);
    return 0;
}
