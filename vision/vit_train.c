#include "vision/vit_train.h"

static bool embeddings_trainable(const Vit *vit) {
    return vit->class_embedding.grad || vit->positions.grad || vit->patch_w.grad ||
           vit->pre_norm_w.grad || vit->pre_norm_b.grad;
}

static Stack make_stack(const Vit *vit, const AttentionSpan *spans, int images, bool recompute) {
    bool embeddings = embeddings_trainable(vit);
    return (Stack){.config = &vit->config.block,
                   .blocks = vit->blocks,
                   .count = vit->depth,
                   .compute = vit->params->compute,
                   .spans = spans,
                   .span_count = images,
                   .recompute = recompute,
                   .lowest = embeddings ? 0 : stack_lowest_trainable(vit->blocks, vit->depth),
                   .input = embeddings};
}

size_t vit_tape_bytes(const Vit *vit, int images, bool recompute) {
    const VitConfig *c = &vit->config;
    int64_t patches = (int64_t)images * vit_patches(c), rows = patches + images;
    Stack stack = make_stack(vit, NULL, images, recompute);
    /* The patches' embeddings are needed only before the tape grows. */
    size_t tape = stack_tape_bytes(&stack, rows);
    size_t embedded = arena_bytes(DTYPE_F32, patches, c->block.width);
    return vit_rows_bytes(vit, images) +
           arena_bytes(vit->params->compute, patches, 3 * c->patch * c->patch) +
           2 * arena_bytes(DTYPE_F32, rows, c->block.width) + arena_bytes(DTYPE_F32, rows, 2) +
           (tape > embedded ? tape : embedded);
}

size_t vit_backward_bytes(const Vit *vit, int images, bool recompute) {
    const VitConfig *c = &vit->config;
    Dtype compute = vit->params->compute;
    int64_t patches = (int64_t)images * vit_patches(c), rows = patches + images;
    Stack stack = make_stack(vit, NULL, images, recompute);
    size_t dx = arena_bytes(DTYPE_F32, rows, c->block.width);
    size_t blocks = stack_backward_bytes(&stack, rows);
    size_t bottom = dx + arena_bytes(DTYPE_F32, patches, c->block.width) +
                    (compute == DTYPE_F32 ? 0 : arena_bytes(compute, patches, c->block.width));
    return dx + (blocks > bottom ? blocks : bottom);
}

int vit_train_forward(const Vit *vit, Arena *arena, Tensor features, Tensor pixels, bool recompute,
                      VitTape *tape, Error *err) {
    const VitConfig *c = &vit->config;
    Device *device = arena->device;
    *tape = (VitTape){0};
    TRY(vit_check_pixels(c, pixels, err));
    int images = (int)pixels.shape[0], patches = images * vit_patches(c);
    int64_t rows = patches + images, d = c->block.width;
    TRY(vit_rows_open(vit, arena, images, &tape->rows, err));
    TRY(arena_take(arena, &tape->flat, vit->params->compute, patches, 3 * c->patch * c->patch,
                   err));
    TRY(arena_take(arena, &tape->sum, DTYPE_F32, rows, d, err));
    TRY(arena_take(arena, &tape->x, DTYPE_F32, rows, d, err));
    TRY(arena_take(arena, &tape->stats, DTYPE_F32, rows, 2, err));
    size_t mark = arena->used;
    Tensor embedded;
    TRY(arena_take(arena, &embedded, DTYPE_F32, patches, d, err));
    TRY(vit_embed(vit, device, &tape->rows, pixels, tape->flat, embedded, tape->sum, err));
    arena_reset(arena, mark);
    TRY(layernorm_forward(device, tape->x, TENSOR_NONE, tape->stats, tape->sum, vit->pre_norm_w,
                          vit->pre_norm_b, c->block.eps, err)); /* [B*(1+P), D] */
    tape->stack = make_stack(vit, tape->rows.spans, images, recompute);
    if (vit->depth > 0)
        TRY(stack_forward(device, &tape->stack, &tape->tape, arena, tape->x, err));
    else
        tape->tape.x = tape->x;
    GatherTerm picked = {tape->tape.x, tape->rows.feature_index};
    return gather_forward(device, features, &picked, 1, err); /* [B*F, D] */
}

/* From the gradient of the first block's input down to the embeddings. */
static int embed_backward(const Vit *vit, Arena *arena, const VitTape *tape, Tensor dx,
                          Error *err) {
    Device *device = arena->device;
    Tensor dsum, dembedded, dpatch;
    TRY(arena_take(arena, &dsum, DTYPE_F32, dx.shape[0], dx.shape[1], err));
    TRY(layernorm_backward(device, dsum, tensor_grad(vit->pre_norm_w), tensor_grad(vit->pre_norm_b),
                           dx, tape->sum, vit->pre_norm_w, tape->stats, false,
                           err)); /* [B*(1+P), D] */
    if (vit->class_embedding.grad)
        TRY(gather_backward(device, tensor_grad(vit->class_embedding), dsum, tape->rows.class_index,
                            err));
    if (vit->positions.grad)
        TRY(gather_backward(device, tensor_grad(vit->positions), dsum, tape->rows.position_index,
                            err));
    if (!vit->patch_w.grad) return 0;
    TRY(arena_take(arena, &dembedded, DTYPE_F32, tape->flat.shape[0], dx.shape[1], err));
    TRY(device_clear(device, dembedded.data, tensor_bytes(dembedded), err));
    TRY(gather_backward(device, dembedded, dsum, tape->rows.patch_index, err)); /* [B*P, D] */
    dpatch = dembedded;
    if (tape->flat.dtype != DTYPE_F32) {
        TRY(arena_take(arena, &dpatch, tape->flat.dtype, dpatch.shape[0], dpatch.shape[1], err));
        TRY(convert_forward(device, dpatch, dembedded, err));
    }
    return linear_backward(device, TENSOR_NONE, tensor_grad(vit->patch_w), TENSOR_NONE, dpatch,
                           tape->flat, vit->patch_w, false, err);
}

int vit_train_backward(const Vit *vit, Arena *arena, const VitTape *tape, Tensor dfeatures,
                       Error *err) {
    Device *device = arena->device;
    bool embeddings = embeddings_trainable(vit);
    if (!embeddings && tape->stack.lowest == vit->depth) return 0;
    size_t mark = arena->used;
    Tensor dx;
    TRY(arena_take(arena, &dx, DTYPE_F32, tape->x.shape[0], tape->x.shape[1], err));
    TRY(device_clear(device, dx.data, tensor_bytes(dx), err));
    TRY(gather_backward(device, dx, dfeatures, tape->rows.feature_index, err)); /* [B*(1+P), D] */
    if (vit->depth > 0) TRY(stack_backward(device, &tape->stack, &tape->tape, arena, dx, err));
    if (embeddings) TRY(embed_backward(vit, arena, tape, dx, err));
    arena_reset(arena, mark);
    return 0;
}

void vit_tape_free(VitTape *tape) {
    vit_rows_close(&tape->rows);
    stack_tape_free(&tape->tape);
}
