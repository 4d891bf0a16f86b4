#include "kernels/block.h"

#include <math.h>

/* Query, key and value under three names: three matrices that share a slot, then three vectors. */
static int declare_qkv(Block *block, int64_t width, const BlockNames *names, Params *params,
                       bool idle, const char *prefix, Error *err) {
    const char *part[3] = {names->query, names->key, names->value};
    for (int i = 0; i < 3; i++) {
        ParamSpec spec = {.slot = &block->qkv_w,
                          .role = PARAM_MATRIX,
                          .init = INIT_NORMAL,
                          .init_std = PARAMS_INIT_STD,
                          .ndim = 2,
                          .shape = {width, width},
                          .joined = i > 0,
                          .idle = idle};
        TRY(params_declare(params, &spec, err, "%s.%s.weight", prefix, part[i]));
    }
    for (int i = 0; i < 3; i++) {
        ParamSpec spec = {.slot = &block->qkv_b,
                          .role = PARAM_VECTOR,
                          .ndim = 1,
                          .shape = {width},
                          .joined = i > 0,
                          .idle = idle};
        TRY(params_declare(params, &spec, err, "%s.%s.bias", prefix, part[i]));
    }
    return 0;
}

int block_declare(Block *b, const BlockConfig *config, const BlockNames *names, Params *params,
                  bool idle, const char *prefix, Error *err) {
    int64_t d = config->width, f = config->ffn;
    *b = (Block){0};
    if (names->in_proj)
        TRY(params_declare_linear(params, &b->qkv_w, &b->qkv_b, 3 * d, d, idle, err, "%s.%s_",
                                  prefix, names->in_proj));
    else
        TRY(declare_qkv(b, d, names, params, idle, prefix, err));
    TRY(params_declare_linear(params, &b->out_w, &b->out_b, d, d, idle, err, "%s.%s.", prefix,
                              names->out));
    TRY(params_declare_norm(params, &b->norm1_w, &b->norm1_b, d, idle, err, "%s.%s.", prefix,
                            names->norm1));
    TRY(params_declare_linear(params, &b->fc1_w, &b->fc1_b, f, d, idle, err, "%s.%s.", prefix,
                              names->fc1));
    TRY(params_declare_linear(params, &b->fc2_w, &b->fc2_b, d, f, idle, err, "%s.%s.", prefix,
                              names->fc2));
    return params_declare_norm(params, &b->norm2_w, &b->norm2_b, d, idle, err, "%s.%s.", prefix,
                               names->norm2);
}

/* In a post-LN model in f32 the normalised stream is itself the next matmul's input. */
static bool shares_stream(const BlockConfig *config, Dtype compute) {
    return !config->pre_norm && compute == DTYPE_F32;
}

int block_work_take(BlockWork *work, const BlockConfig *config, Arena *arena, int64_t rows,
                    Dtype compute, Error *err) {
    int64_t d = config->width;
    TRY(arena_take(arena, &work->x, DTYPE_F32, rows, d, err));
    if (shares_stream(config, compute))
        work->h = work->x;
    else
        TRY(arena_take(arena, &work->h, compute, rows, d, err));
    TRY(arena_take(arena, &work->qkv, compute, rows, 3 * d, err));
    TRY(arena_take(arena, &work->att, compute, rows, d, err));
    return arena_take(arena, &work->ffn, compute, rows, config->ffn, err);
}

size_t block_work_bytes(const BlockConfig *config, int64_t rows, Dtype compute) {
    int64_t d = config->width;
    size_t h = shares_stream(config, compute) ? 0 : arena_bytes(compute, rows, d);
    return arena_bytes(DTYPE_F32, rows, d) + h + arena_bytes(compute, rows, 3 * d) +
           arena_bytes(compute, rows, d) + arena_bytes(compute, rows, config->ffn);
}

int block_begin(Device *device, const BlockConfig *config, BlockWork *work, Error *err) {
    if (config->pre_norm || work->h.data == work->x.data) return 0;
    return convert_forward(device, work->h, work->x, err);
}

/* LayerNorm where the model has it: in front of a part (into h), or after it (over x, and into h).
 */
static int norm_before(Device *device, const BlockConfig *c, BlockWork *k, Tensor w, Tensor b,
                       Error *err) {
    if (!c->pre_norm) return 0;
    return layernorm_forward(device, k->h, TENSOR_NONE, TENSOR_NONE, k->x, w, b, c->eps, err);
}

static int norm_after(Device *device, const BlockConfig *c, BlockWork *k, Tensor w, Tensor b,
                      Error *err) {
    if (c->pre_norm) return 0;
    Tensor copy = k->h.data == k->x.data ? TENSOR_NONE : k->h;
    return layernorm_forward(device, k->x, copy, TENSOR_NONE, k->x, w, b, c->eps, err);
}

int block_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                  const AttentionPlan *plan, int layer, Error *err) {
    int64_t d = c->width, rows = k->x.shape[0];
    float scale = (float)(1 / sqrt((double)(d / c->heads)));
    Tensor q = tensor_columns(k->qkv, 0, d);
    Tensor kv = tensor_columns(k->qkv, d, 2 * d);

    TRY(norm_before(device, c, k, b->norm1_w, b->norm1_b, err));                  /* [T, D] */
    TRY(linear_forward(device, k->qkv, k->h, b->qkv_w, b->qkv_b, 0, false, err)); /* [T, 3D] */
    if (plan->cache) {
        TRY(convert_forward(device,
                            tensor_rows(plan->cache->layers[layer], plan->cache_begin, rows), kv,
                            err)); /* [T, 2D] */
        kv = plan->cache->layers[layer];
    }
    TRY(attention_forward(device, k->att, TENSOR_NONE, q, tensor_columns(kv, 0, d),
                          tensor_columns(kv, d, d), c->heads, scale, plan->spans, plan->span_count,
                          NULL, err));                                           /* [T, D] */
    TRY(linear_forward(device, k->x, k->att, b->out_w, b->out_b, 0, true, err)); /* [T, D] */
    TRY(norm_after(device, c, k, b->norm1_w, b->norm1_b, err));                  /* [T, D] */

    TRY(norm_before(device, c, k, b->norm2_w, b->norm2_b, err)); /* [T, D] */
    TRY(linear_forward(device, k->ffn, k->h, b->fc1_w, b->fc1_b, c->activation, false,
                       err));                                                    /* F */
    TRY(linear_forward(device, k->x, k->ffn, b->fc2_w, b->fc2_b, 0, true, err)); /* [T, D] */
    return norm_after(device, c, k, b->norm2_w, b->norm2_b, err);                /* [T, D] */
}
