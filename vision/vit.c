#include "vision/vit_rows.h"

#include <stdio.h>
#include <stdlib.h>

static const BlockNames clip_names = {.query = "self_attn.q_proj",
                                      .key = "self_attn.k_proj",
                                      .value = "self_attn.v_proj",
                                      .out = "self_attn.out_proj",
                                      .norm1 = "layer_norm1",
                                      .fc1 = "mlp.fc1",
                                      .fc2 = "mlp.fc2",
                                      .norm2 = "layer_norm2"};

/* The initial standard deviation of position embeddings. An untrained patch embedding gives values
 * of deviation 0.55 from normalized pixels (params_init_std times the square root of its columns);
 * with positions of 0.02, a tower trained from scratch would not learn where things are. */
#define POSITION_STD 0.4f

int vit_patches(const VitConfig *config) {
    int side = config->image_size / config->patch;
    return side * side;
}

int vit_feature_rows(const VitConfig *config) {
    return vit_patches(config) + (config->class_token ? 1 : 0);
}

static int vit_check(const VitConfig *c, Error *err) {
    if (c->patch < 1 || c->image_size < c->patch || c->image_size % c->patch)
        return error_set(err, "vision tower: image size %d is not a multiple of the patch size %d",
                         c->image_size, c->patch);
    if (c->patch > 1024 || c->image_size > 16384)
        return error_set(err, "vision tower: image size %d, patch size %d: at most 16384 and 1024",
                         c->image_size, c->patch);
    if (c->block.heads < 1 || c->block.width < 1 || c->block.width % c->block.heads)
        return error_set(err, "vision tower: width %d is not a multiple of its %d heads",
                         c->block.width, c->block.heads);
    if (c->layers < 1 || c->feature_layer > c->layers || c->feature_layer < -c->layers - 1)
        return error_set(err, "vision tower: feature layer %d of %d layers", c->feature_layer,
                         c->layers);
    return 0;
}

static int declare_embeddings(Vit *vit, Params *params, Error *err) {
    const VitConfig *c = &vit->config;
    int64_t d = c->block.width;
    ParamSpec class_token = {.slot = &vit->class_embedding,
                             .role = PARAM_TABLE,
                             .init = INIT_NORMAL,
                             .init_std = params_init_std(d),
                             .ndim = 1, /* as in public files */
                             .shape = {d}};
    TRY(params_declare(params, &class_token, err, "vision_model.embeddings.class_embedding"));
    ParamSpec patches = {.slot = &vit->patch_w,
                         .role = PARAM_MATRIX,
                         .init = INIT_NORMAL,
                         .init_std = params_init_std(3 * c->patch * c->patch),
                         .ndim = 4,
                         .shape = {d, 3, c->patch, c->patch}};
    TRY(params_declare(params, &patches, err, "vision_model.embeddings.patch_embedding.weight"));
    ParamSpec positions = {.slot = &vit->positions,
                           .role = PARAM_TABLE,
                           .init = INIT_NORMAL,
                           .init_std = POSITION_STD,
                           .ndim = 2,
                           .shape = {vit_patches(c) + 1, d}};
    return params_declare(params, &positions, err,
                          "vision_model.embeddings.position_embedding.weight");
}

int vit_declare(Vit *vit, const VitConfig *config, Params *params, Error *err) {
    TRY(vit_check(config, err));
    *vit = (Vit){.config = *config, .params = params};
    vit->depth = config->feature_layer < 0 ? config->layers + 1 + config->feature_layer
                                           : config->feature_layer;
    vit->blocks = calloc((size_t)config->layers, sizeof *vit->blocks);
    if (!vit->blocks) return error_set(err, "out of memory for %d layers", config->layers);
    TRY(declare_embeddings(vit, params, err));
    int64_t d = config->block.width;
    TRY(params_declare_norm(params, &vit->pre_norm_w, &vit->pre_norm_b, d, false, err,
                            "vision_model.pre_layrnorm."));
    for (int i = 0; i < config->layers; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "vision_model.encoder.layers.%d", i);
        TRY(block_declare(&vit->blocks[i], &config->block, &clip_names, params, i >= vit->depth,
                          prefix, err));
        block_scale_init(&vit->blocks[i], params, config->layers);
    }
    return params_declare_norm(params, &vit->post_norm_w, &vit->post_norm_b, d, true, err,
                               "vision_model.post_layernorm.");
}

void vit_free(Vit *vit) {
    free(vit->blocks);
    *vit = (Vit){0};
}

size_t vit_work_bytes(const Vit *vit, int images) {
    const VitConfig *c = &vit->config;
    int64_t patches = (int64_t)images * vit_patches(c), rows = patches + images;
    Dtype compute = vit->params->compute;
    return arena_bytes(compute, patches, 3 * c->patch * c->patch) +
           arena_bytes(DTYPE_F32, patches, c->block.width) +
           block_work_bytes(&c->block, rows, compute) + vit_rows_bytes(vit, images);
}

int vit_rows_open(const Vit *vit, Arena *arena, int images, VitRows *rows, Error *err) {
    int patches = vit_patches(&vit->config), tokens = patches + 1, n = images * tokens;
    int skip = vit->config.class_token ? 0 : 1, features = images * (tokens - skip);
    int32_t *index = malloc(4 * (size_t)n * sizeof *index);
    *rows = (VitRows){.spans = malloc((size_t)images * sizeof *rows->spans)};
    if (!index || !rows->spans) {
        free(index);
        return error_set(err, "out of memory for the rows of %d images", images);
    }
    int32_t *class_token = index, *patch = index + n, *position = patch + n,
            *feature = position + n;
    for (int p = 0, f = 0; p < images; p++) {
        rows->spans[p] =
            (AttentionSpan){p * tokens, (p + 1) * tokens, 1, {{p * tokens, (p + 1) * tokens}}};
        for (int i = 0; i < tokens; i++) {
            int row = p * tokens + i;
            class_token[row] = i == 0 ? 0 : -1;
            patch[row] = i == 0 ? -1 : p * patches + i - 1;
            position[row] = i;
            if (i >= skip) feature[f++] = row;
        }
    }
    int status = arena_upload(arena, &rows->class_index, DTYPE_I32, n, class_token, err) ||
                 arena_upload(arena, &rows->patch_index, DTYPE_I32, n, patch, err) ||
                 arena_upload(arena, &rows->position_index, DTYPE_I32, n, position, err) ||
                 arena_upload(arena, &rows->feature_index, DTYPE_I32, features, feature, err);
    free(index);
    return status ? -1 : 0;
}

void vit_rows_close(VitRows *rows) {
    free(rows->spans);
    *rows = (VitRows){0};
}

size_t vit_rows_bytes(const Vit *vit, int images) {
    int64_t rows = (int64_t)images * (vit_patches(&vit->config) + 1);
    int64_t features = (int64_t)images * vit_feature_rows(&vit->config);
    return 3 * arena_bytes(DTYPE_I32, 1, rows) + arena_bytes(DTYPE_I32, 1, features);
}

int vit_check_pixels(const VitConfig *c, Tensor pixels, Error *err) {
    if (pixels.ndim == 4 && pixels.shape[1] == 3 && pixels.shape[2] == c->image_size &&
        pixels.shape[3] == c->image_size)
        return 0;
    return error_set(err, "vision tower: pixels must be [B, 3, %d, %d]", c->image_size,
                     c->image_size);
}

int vit_embed(const Vit *vit, Device *device, const VitRows *rows, Tensor pixels, Tensor flat,
              Tensor embedded, Tensor x, Error *err) {
    const VitConfig *c = &vit->config;
    Tensor planes =
        tensor_2d(pixels.data, DTYPE_F32, pixels.shape[0], 3 * c->image_size * c->image_size);
    TRY(patches_forward(device, flat, planes, 3, c->image_size, c->patch, err)); /* [B*P, 588] */
    TRY(linear_forward(device, embedded, flat, vit->patch_w, TENSOR_NONE, 0, false,
                       err)); /* [B*P, D] */
    GatherTerm terms[] = {{vit->class_embedding, rows->class_index},
                          {embedded, rows->patch_index},
                          {vit->positions, rows->position_index}};
    return gather_forward(device, x, terms, 3, err); /* [B*(1+P), D] */
}

static int vit_run(const Vit *vit, Arena *arena, Tensor features, Tensor pixels, VitRows *rows,
                   const LayerHook *hook, Error *err) {
    const VitConfig *c = &vit->config;
    Device *device = arena->device;
    Dtype compute = vit->params->compute;
    int images = (int)pixels.shape[0], patches = images * vit_patches(c);
    Tensor flat, embedded;
    BlockWork work;
    TRY(arena_take(arena, &flat, compute, patches, 3 * c->patch * c->patch, err));
    TRY(arena_take(arena, &embedded, DTYPE_F32, patches, c->block.width, err));
    TRY(block_work_take(&work, &c->block, arena, patches + images, compute, err));
    TRY(vit_rows_open(vit, arena, images, rows, err));
    TRY(vit_embed(vit, device, rows, pixels, flat, embedded, work.x, err));
    TRY(layernorm_forward(device, work.x, TENSOR_NONE, TENSOR_NONE, work.x, vit->pre_norm_w,
                          vit->pre_norm_b, c->block.eps, err)); /* [B*(1+P), D] */
    TRY(block_begin(device, &c->block, &work, err));
    AttentionPlan plan = {.spans = rows->spans, .span_count = images};
    TRY(blocks_forward(device, &c->block, vit->blocks, vit->depth, &work, &plan, hook, err));
    GatherTerm picked = {work.x, rows->feature_index};
    return gather_forward(device, features, &picked, 1, err); /* [B*F, D] */
}

int vit_forward(const Vit *vit, Arena *arena, Tensor features, Tensor pixels, const LayerHook *hook,
                Error *err) {
    TRY(vit_check_pixels(&vit->config, pixels, err));
    size_t mark = arena->used;
    VitRows rows = {0};
    int status = vit_run(vit, arena, features, pixels, &rows, hook, err);
    vit_rows_close(&rows);
    arena_reset(arena, mark);
    return status;
}
