#include "projector/train.h"

static bool trainable(const Params *params) {
    return params && params->flat > 0;
}

/* How far down the backward pass goes. */
typedef struct Depth {
    bool vision;    /* gradients reach the vision tower */
    bool projector; /* ... or at least the projector, so the image tokens have gradients */
} Depth;

static Depth pass_depth(const TrainContext *context, bool prompts, const TrainRun *run) {
    const Multimodal *m = &context->model;
    if (prompts || !run->backward || !m->tower || !m->projector) return (Depth){false, false};
    Depth depth = {.vision = trainable(tower_params(m->tower))};
    depth.projector = depth.vision || trainable(m->projector->params);
    return depth;
}

static size_t largest(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ---- Images: down to image tokens, and back. ---- */

typedef struct VisionPath {
    Depth depth;
    Tensor pixels;   /* [B, 3, S, S] */
    Tensor features; /* [R, Dv] c */
    Tensor tokens;   /* [R, D] f32 */
    Tensor hidden;   /* within the projector */
    Tensor dtokens;  /* [R, D] f32; no tensor if not needed */
    VitTape tape;
} VisionPath;

static size_t pixels_bytes(const Tower *tower, int images) {
    int64_t side = tower_image_size(tower);
    return arena_bytes(DTYPE_F32, 1, images * 3 * side * side);
}

/* Of features that are kept: as read and written, and as computed. */
static size_t kept_bytes(Dtype dtype, int64_t rows, int64_t width) {
    if (dtype == DTYPE_NONE) return 0;
    return arena_bytes(dtype, rows, width) + arena_bytes(DTYPE_F32, rows, width);
}

/* Arena bytes kept while the language model runs; *work is what other phases need in addition. */
static size_t vision_bytes(const Multimodal *m, int images, Depth depth, bool recompute,
                           Dtype feature_dtype, size_t *above) {
    *above = 0;
    if (images == 0 || !m->tower || !m->projector) return 0;
    int64_t rows = (int64_t)images * multimodal_image_rows(m), width = tower_width(m->tower);
    size_t tokens = arena_bytes(DTYPE_F32, rows, m->projector->out);
    size_t kept = arena_bytes(m->projector->params->compute, rows, width) + tokens;
    size_t pixels = pixels_bytes(m->tower, images);
    *above = projector_work_bytes(m->projector, rows);
    if (!depth.vision)
        *above = largest(*above, pixels + tower_work_bytes(m->tower, images) +
                                     kept_bytes(feature_dtype, rows, width));
    if (!depth.projector) return kept;
    size_t back = projector_backward_bytes(m->projector, rows);
    if (depth.vision) {
        kept += pixels + vit_tape_bytes(m->tower->vit, images, recompute);
        back = arena_bytes(DTYPE_F32, rows, width) +
               largest(back, vit_backward_bytes(m->tower->vit, images, recompute));
    }
    size_t train = projector_tape_bytes(m->projector, rows) + tokens;
    /* The frozen tower has finished before the projector's tape is allocated. */
    *above = largest(*above > train ? *above - train : 0, back);
    return kept + train;
}

static int upload_pixels(VisionPath *s, const Multimodal *m, Arena *arena, const TrainBatch *batch,
                         int images, Error *err) {
    int64_t side = tower_image_size(m->tower), n = images * 3 * side * side;
    Tensor flat;
    TRY(arena_upload(arena, &flat, DTYPE_F32, n, batch->pixels, err));
    s->pixels = tensor_nd(flat.data, DTYPE_F32, 4, (int64_t[]){images, 3, side, side});
    return 0;
}

/* Rows [first, first + count) of the batch's features on their way to the device, or from it. */
static int features_move(const TrainBatch *batch, Tensor device_rows, Device *device, bool up,
                         int64_t first, int64_t count, Error *err) {
    Tensor at = tensor_rows(device_rows, first, count);
    char *host = (char *)batch->features +
                 (size_t)first * (size_t)at.shape[1] * dtype_size(batch->feature_dtype);
    return up ? device_upload(device, at.data, host, tensor_bytes(at), err)
              : device_download(device, host, at.data, tensor_bytes(at), err);
}

/* Features that are known go up; the others are computed, rounded as the known ones were, and come
 * down: so a loss does not depend on which were known. */
static int kept_features(VisionPath *s, const Multimodal *m, Arena *arena, const TrainBatch *batch,
                         Error *err) {
    const int64_t each = multimodal_image_rows(m), rows = s->features.shape[0];
    Device *device = arena->device;
    Tensor kept, computed;
    int unknown = 0;
    for (int i = 0; i < batch->images; i++) unknown += !batch->known[i];
    TRY(arena_take(arena, &kept, batch->feature_dtype, rows, tower_width(m->tower), err));
    if (unknown) {
        TRY(arena_take(arena, &computed, s->features.dtype, unknown * each, tower_width(m->tower),
                       err));
        TRY(upload_pixels(s, m, arena, batch, unknown, err));
        TRY(tower_forward(m->tower, arena, computed, s->pixels, err));
    }
    for (int i = 0, at = 0; i < batch->images; i++) {
        if (!batch->known[i])
            TRY(convert_forward(device, tensor_rows(kept, i * each, each),
                                tensor_rows(computed, at++ * each, each), err));
        TRY(features_move(batch, kept, device, batch->known[i], i * each, each, err));
    }
    return convert_forward(device, s->features, kept, err);
}

static int vision_forward(VisionPath *s, const Multimodal *m, Arena *arena, const TrainBatch *batch,
                          const TrainRun *run, Error *err) {
    const Projector *p = m->projector;
    int64_t rows = (int64_t)batch->images * multimodal_image_rows(m);
    TRY(arena_take(arena, &s->features, p->params->compute, rows, tower_width(m->tower), err));
    TRY(arena_take(arena, &s->tokens, DTYPE_F32, rows, p->out, err));
    size_t mark = arena->used;
    if (!batch->known)
        TRY(upload_pixels(s, m, arena, batch, batch->images, err)); /* [B, 3, S, S] */
    if (batch->known) {
        TRY(kept_features(s, m, arena, batch, err)); /* [R, Dv] */
        arena_reset(arena, mark);
    } else if (s->depth.vision) {
        TRY(vit_train_forward(m->tower->vit, arena, s->features, s->pixels, run->recompute,
                              &s->tape, err)); /* [R, Dv] */
        s->tape.stack.left = run->left;
    } else {
        TRY(tower_forward(m->tower, arena, s->features, s->pixels, err)); /* [R, Dv] */
        arena_reset(arena, mark);
    }
    if (!s->depth.projector) return projector_forward(p, arena, s->tokens, s->features, err);
    TRY(projector_train_forward(p, arena, s->tokens, s->features, &s->hidden, err)); /* [R, D] */
    TRY(arena_take(arena, &s->dtokens, DTYPE_F32, rows, p->out, err));
    return device_clear(arena->device, s->dtokens.data, tensor_bytes(s->dtokens), err);
}

static int vision_backward(VisionPath *s, const Multimodal *m, Arena *arena, Error *err) {
    Tensor dfeatures = TENSOR_NONE;
    if (s->depth.vision)
        TRY(arena_take(arena, &dfeatures, DTYPE_F32, s->features.shape[0], s->features.shape[1],
                       err));
    TRY(projector_train_backward(m->projector, arena, dfeatures, s->dtokens, s->features, s->hidden,
                                 err)); /* [R, Dv] */
    if (!s->depth.vision) return 0;
    return vit_train_backward(m->tower->vit, arena, &s->tape, dfeatures, err);
}

/* ---- One pass. ---- */

size_t train_bytes(const TrainContext *context, const TrainSizes *sizes, const TrainRun *run) {
    const Multimodal *m = &context->model;
    size_t bytes = 0, above;
    if (sizes->prompts > 0 && m->length) {
        Depth depth = pass_depth(context, true, run);
        size_t kept =
            vision_bytes(m, sizes->images, depth, run->recompute, context->feature_dtype, &above);
        size_t text = language_work_bytes(&m->language, sizes->tokens) +
                      length_loss_bytes(m->length, sizes->tokens, sizes->prompts, run);
        bytes = kept + largest(above, text);
    }
    if (sizes->targets > 0) {
        Depth depth = pass_depth(context, false, run);
        size_t kept =
            vision_bytes(m, sizes->images, depth, run->recompute, context->feature_dtype, &above);
        size_t text =
            language_loss_bytes(&m->language, sizes->tokens, sizes->targets, run, depth.projector);
        bytes = largest(bytes, kept + largest(above, text));
    }
    return bytes;
}

static int check_batch(const Multimodal *m, const TrainBatch *b, Error *err) {
    if (!language_present(&m->language))
        return error_set(err, "training: the model has no language part");
    if (b->images > 0 && !(m->tower && m->projector))
        return error_set(err, "training: a batch with images, but the model has no %s",
                         m->tower ? "projector" : "vision tower");
    if (b->known && trainable(tower_params(m->tower)))
        return error_set(err, "training: features cannot be kept of a tower that is trained");
    if (b->images > 0 && !(b->pixels && b->image_rows))
        return error_set(err, "training: a batch of %d images without %s", b->images,
                         b->pixels ? "rows for them" : "pixels");
    if (b->prompts > 0 && !m->length)
        return error_set(err,
                         "training: a batch of lengths, but the model has no length predictor");
    return 0;
}

static int prompts_pass(const Multimodal *m, Arena *arena, const XlmrBatch *rows,
                        const TrainBatch *batch, const TrainRun *run, float *losses, Error *err) {
    Tensor hidden;
    TRY(language_check_batch(&m->language, rows, err));
    TRY(language_forward(&m->language, arena, rows, &hidden, NULL, err)); /* [T, D] */
    return length_loss(m->length, arena, hidden, batch->prompt_begin, batch->prompts,
                       batch->classes, batch->prompt_weight, run, losses, err);
}

static int pass_run(const Multimodal *m, Arena *arena, const TrainBatch *batch, const TrainRun *run,
                    VisionPath *vision, float *losses, Error *err) {
    if (batch->images > 0) TRY(vision_forward(vision, m, arena, batch, run, err)); /* [R, D] */
    XlmrBatch rows = {.tokens = batch->tokens,
                      .ids = batch->ids,
                      .image_rows = batch->images > 0 ? batch->image_rows : NULL,
                      .positions = batch->positions,
                      .image_tokens = vision->tokens,
                      .plan = {.spans = batch->spans, .span_count = batch->span_count}};
    if (batch->prompts > 0) return prompts_pass(m, arena, &rows, batch, run, losses, err);
    XlmrTargets targets = {.count = batch->targets,
                           .rows = batch->rows,
                           .ids = batch->target_ids,
                           .weights = batch->weights,
                           .smoothing_weights = batch->smoothing_weights,
                           .smoothing = batch->smoothing};
    TRY(language_loss(&m->language, arena, &rows, &targets, run, losses, vision->dtokens, err));
    return vision->dtokens.data ? vision_backward(vision, m, arena, err) : 0;
}

int train_micro_batch(const TrainContext *context, Arena *arena, const TrainBatch *batch,
                      const TrainRun *run, float *losses, Error *err) {
    const Multimodal *m = &context->model;
    TRY(check_batch(m, batch, err));
    if (batch->tokens == 0 || (batch->targets == 0 && batch->prompts == 0)) return 0;
    size_t mark = arena->used;
    VisionPath vision = {.depth = pass_depth(context, batch->prompts > 0, run)};
    int status = pass_run(m, arena, batch, run, &vision, losses, err);
    vit_tape_free(&vision.tape);
    arena_reset(arena, mark);
    return status;
}
