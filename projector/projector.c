#include "projector/projector.h"

const char *projector_kind_name(ProjectorKind kind) {
    return kind == PROJECTOR_LINEAR ? "linear" : "mlp2x_gelu";
}

int projector_declare(Projector *p, ProjectorKind kind, int in, int out, Params *params,
                      Error *err) {
    *p = (Projector){.kind = kind, .in = in, .out = out, .params = params};
    bool two = kind == PROJECTOR_MLP2X_GELU;
    TRY(params_declare_linear(params, &p->w1, &p->b1, out, in, false, err, "model.mm_projector.%s",
                              two ? "0." : ""));
    if (!two) return 0;
    return params_declare_linear(params, &p->w2, &p->b2, out, out, false, err,
                                 "model.mm_projector.2.");
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
