#include "kernels/block.h"

#include <math.h>

/* A weight and its bias, the usual pair. */
static int declare_pair(Params *params, Tensor *w, Tensor *b, int64_t rows, int64_t columns,
                        float std, bool joined, bool idle, const char *prefix, const char *name,
                        const char *dot, Error *err) {
    ParamSpec weight = {.slot = w,
                        .role = PARAM_MATRIX,
                        .init = INIT_NORMAL,
                        .init_std = std,
                        .ndim = 2,
                        .shape = {rows, columns},
                        .joined = joined,
                        .idle = idle};
    TRY(params_declare(params, &weight, err, "%s.%s%sweight", prefix, name, dot));
    ParamSpec bias = {.slot = b, .role = PARAM_VECTOR, .ndim = 1, .shape = {rows}, .idle = idle};
    return params_declare(params, &bias, err, "%s.%s%sbias", prefix, name, dot);
}

static int declare_norm(Params *params, Tensor *w, Tensor *b, int64_t width, bool idle,
                        const char *prefix, const char *name, Error *err) {
    ParamSpec spec = {.slot = w,
                      .role = PARAM_VECTOR,
                      .init = INIT_ONE,
                      .ndim = 1,
                      .shape = {width},
                      .idle = idle};
    TRY(params_declare(params, &spec, err, "%s.%s.weight", prefix, name));
    spec.slot = b, spec.init = INIT_ZERO;
    return params_declare(params, &spec, err, "%s.%s.bias", prefix, name);
}

/* Query, key and value under three names: three matrices that share a slot, then three vectors. */
static int declare_qkv(Block *block, int64_t width, float std, const BlockNames *names,
                       Params *params, bool idle, const char *prefix, Error *err) {
    const char *part[3] = {names->query, names->key, names->value};
    for (int i = 0; i < 3; i++) {
        ParamSpec spec = {.slot = &block->qkv_w,
                          .role = PARAM_MATRIX,
                          .init = INIT_NORMAL,
                          .init_std = std,
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

int block_declare(Block *block, const BlockConfig *config, const BlockNames *names, Params *params,
                  bool idle, const char *prefix, Error *err) {
    int64_t d = config->width, f = config->ffn;
    float std = 0.02f; /* BERT's and CLIP's own order of magnitude */
    *block = (Block){0};
    if (names->in_proj)
        TRY(declare_pair(params, &block->qkv_w, &block->qkv_b, 3 * d, d, std, false, idle, prefix,
                         names->in_proj, "_", err));
    else
        TRY(declare_qkv(block, d, std, names, params, idle, prefix, err));
    TRY(declare_pair(params, &block->out_w, &block->out_b, d, d, std, false, idle, prefix,
                     names->out, ".", err));
    TRY(declare_norm(params, &block->norm1_w, &block->norm1_b, d, idle, prefix, names->norm1, err));
    TRY(declare_pair(params, &block->fc1_w, &block->fc1_b, f, d, std, false, idle, prefix,
                     names->fc1, ".", err));
    TRY(declare_pair(params, &block->fc2_w, &block->fc2_b, d, f, std, false, idle, prefix,
                     names->fc2, ".", err));
    return declare_norm(params, &block->norm2_w, &block->norm2_b, d, idle, prefix, names->norm2,
                        err);
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
