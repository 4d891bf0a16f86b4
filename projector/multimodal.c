#include "projector/multimodal.h"

#include <stdlib.h>

enum { IMAGES_AT_ONCE = 8 };

int multimodal_check_mask(const Multimodal *m, Error *err) {
    if (tokenizer_mask_id(m->tokenizer) >= 0 || m->attention == ATTENTION_CAUSAL) return 0;
    return error_set(err,
                     "this model's tokenizer has no mask token: it is an autoregressive model, "
                     "which cannot denoise; use one that was adapted to diffusion (LLaDA, "
                     "Dream)");
}

int multimodal_image_rows(const Multimodal *model) {
    return model->tower ? tower_feature_rows(model->tower) : 0;
}

static int encode_batch(const Multimodal *m, Arena *arena, const Image *images, int count,
                        Tensor tokens, Error *err) {
    int side = tower_image_size(m->tower);
    int64_t rows = (int64_t)count * multimodal_image_rows(m), plane = 3 * (int64_t)side * side;
    float *host = malloc((size_t)(count * plane) * sizeof *host);
    if (!host) return error_set(err, "out of memory for %d images", count);
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = preprocess_image(host + i * plane, &images[i], &m->preprocess, err);
    Tensor flat, features;
    if (status == 0) status = arena_upload(arena, &flat, DTYPE_F32, count * plane, host, err);
    free(host);
    if (status) return -1;
    Tensor pixels = tensor_nd(flat.data, DTYPE_F32, 4, (int64_t[]){count, 3, side, side});
    TRY(arena_take(arena, &features, m->projector->params->compute, rows, tower_width(m->tower),
                   err));
    TRY(tower_forward(m->tower, arena, features, pixels, err));           /* [B*P, Dv] */
    return projector_forward(m->projector, arena, tokens, features, err); /* [B*P, D] */
}

int multimodal_encode(const Multimodal *m, const Image *images, int count, Tensor *tokens,
                      Error *err) {
    *tokens = TENSOR_NONE;
    if (!m->tower || !m->projector)
        return error_set_code(err, ERROR_MISSING_PART,
                              "this model cannot see: it has no %s; use a model folder with one",
                              m->tower ? "projector" : "vision tower");
    int at_once = count < IMAGES_AT_ONCE ? count : IMAGES_AT_ONCE;
    int64_t rows = multimodal_image_rows(m), side = tower_image_size(m->tower);
    *tokens = tensor_2d(NULL, DTYPE_F32, count * rows, m->projector->out);
    TRY(device_alloc(m->device, &tokens->data, tensor_bytes(*tokens), err));
    Arena arena = {0};
    int status = arena_open(
        &arena, m->device,
        tower_work_bytes(m->tower, at_once) + arena_bytes(DTYPE_F32, 1, at_once * 3 * side * side) +
            arena_bytes(m->projector->params->compute, at_once * rows, tower_width(m->tower)) +
            projector_work_bytes(m->projector, at_once * rows),
        err);
    for (int i = 0; i < count && status == 0; i += at_once) {
        int n = count - i < at_once ? count - i : at_once;
        status =
            encode_batch(m, &arena, images + i, n, tensor_rows(*tokens, i * rows, n * rows), err);
        arena_reset(&arena, 0);
    }
    arena_close(&arena);
    if (status) {
        device_free(m->device, tokens->data);
        *tokens = TENSOR_NONE;
    }
    return status;
}
