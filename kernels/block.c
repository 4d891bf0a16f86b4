#include "kernels/block.h"

#include "kernels/block_parts.h"
#include "kernels/names.h"

#include <math.h>

const char *const lora_target_names[] = {[LORA_QUERY] = "query",
                                         [LORA_KEY] = "key",
                                         [LORA_VALUE] = "value",
                                         [LORA_OUT] = "out",
                                         [LORA_FC1] = "fc1",
                                         [LORA_FC2] = "fc2",
                                         NULL};

const char *lora_target_name(LoraTarget target) {
    return names_get(lora_target_names, (int)target);
}

/* Query, key and value as three parameters: three matrices that share a slot, then three
 * vectors. */
static int declare_qkv(Block *block, int64_t width, const BlockNames *names, Params *params,
                       bool idle, const char *prefix, Error *err) {
    const char *part[3] = {names->query, names->key, names->value};
    for (int i = 0; i < 3; i++) {
        ParamSpec spec = {.slot = &block->qkv_w,
                          .role = PARAM_MATRIX,
                          .init = INIT_NORMAL,
                          .init_std = params_init_std(width),
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
    int first = params->count;
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
    TRY(params_declare_norm(params, &b->norm2_w, &b->norm2_b, d, idle, err, "%s.%s.", prefix,
                            names->norm2));
    params_mark_hidden(params, first);
    if (names->in_proj) params->items[first].hidden = 3; /* query, key and value */
    return 0;
}

void block_scale_init(const Block *b, Params *params, int layers) {
    float factor = 1 / sqrtf(2 * (float)layers);
    params_scale_init(params, &b->out_w, factor);
    params_scale_init(params, &b->fc2_w, factor);
}

int block_declare_lora(Block *b, const BlockConfig *config, const BlockNames *names, Params *lora,
                       const char *prefix, Error *err) {
    const int64_t d = config->width, f = config->ffn, rank = config->lora.rank;
    const struct {
        const char *name;
        int64_t rows, columns; /* of the frozen matrix */
    } targets[LORA_TARGETS] = {
        [LORA_QUERY] = {names->query, d, d}, [LORA_KEY] = {names->key, d, d},
        [LORA_VALUE] = {names->value, d, d}, [LORA_OUT] = {names->out, d, d},
        [LORA_FC1] = {names->fc1, f, d},     [LORA_FC2] = {names->fc2, d, f},
    };
    if (rank < 0 || !isfinite(config->lora.alpha))
        return error_set(err, "%s: LoRA of rank %lld with alpha %g, expected a rank from 1 on",
                         prefix, (long long)rank, (double)config->lora.alpha);
    for (int t = 0; rank > 0 && t < LORA_TARGETS; t++) {
        if (!(config->lora.targets >> t & 1)) continue;
        if (!targets[t].name)
            return error_set(err,
                             "%s: LoRA on \"%s\", but query, key and value are one matrix here "
                             "(%s): choose among out, fc1 and fc2",
                             prefix, lora_target_name((LoraTarget)t), names->in_proj);
        ParamSpec narrow = {.slot = &b->lora[t].a,
                            .role = PARAM_MATRIX,
                            .init = INIT_NORMAL,
                            .init_std = (float)(1 / sqrt(3 * (double)targets[t].columns)),
                            .ndim = 2,
                            .shape = {rank, targets[t].columns}};
        ParamSpec widen = {.slot = &b->lora[t].b,
                           .role = PARAM_MATRIX,
                           .init = INIT_ZERO,
                           .ndim = 2,
                           .shape = {targets[t].rows, rank}};
        TRY(params_declare(lora, &narrow, err, "base_model.model.%s.%s.lora_A.weight", prefix,
                           targets[t].name));
        TRY(params_declare(lora, &widen, err, "base_model.model.%s.%s.lora_B.weight", prefix,
                           targets[t].name));
    }
    return 0;
}

/* ---- LoRA. ---- */

int lora_narrow(Device *device, const BlockConfig *config, const Block *block, LoraTarget target,
                Tensor low, Tensor x, Error *err) {
    if (!lora_present(block, target)) return 0;
    TRY(linear_forward(device, low, x, block->lora[target].a, TENSOR_NONE, 0, false, err));
    return scale_forward(device, low, low, lora_scale(config), err); /* [T, rank] */
}

int lora_add(Device *device, const BlockConfig *config, const Block *block, LoraTarget target,
             Tensor y, Tensor low, Tensor x, Error *err) {
    if (!lora_present(block, target)) return 0;
    TRY(lora_narrow(device, config, block, target, low, x, err));
    return linear_forward(device, y, low, block->lora[target].b, TENSOR_NONE, 0, true, err);
}

/* ---- Inference. ---- */

float block_attention_scale(const BlockConfig *config) {
    return (float)(1 / sqrt((double)(config->width / config->heads)));
}

/* In a post-LN model in f32 the normalized stream is itself the next matmul's input. */
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
    TRY(arena_take(arena, &work->ffn, compute, rows, config->ffn, err));
    work->low = TENSOR_NONE;
    if (config->lora.rank == 0) return 0;
    return arena_take(arena, &work->low, compute, rows, config->lora.rank, err);
}

size_t block_work_bytes(const BlockConfig *config, int64_t rows, Dtype compute) {
    int64_t d = config->width;
    size_t h = shares_stream(config, compute) ? 0 : arena_bytes(compute, rows, d);
    return arena_bytes(DTYPE_F32, rows, d) + h + arena_bytes(compute, rows, 3 * d) +
           arena_bytes(compute, rows, d) + arena_bytes(compute, rows, config->ffn) +
           arena_bytes(compute, rows, config->lora.rank);
}

int block_begin(Device *device, const BlockConfig *config, BlockWork *work, Error *err) {
    if (config->pre_norm || work->h.data == work->x.data) return 0;
    return convert_forward(device, work->h, work->x, err);
}

/* LayerNorm where the model has it: before a part (into h), or after it (in place in x, and into
 * h). */
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

/* Query, key and value of the rows, side by side. */
static int qkv_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                       Error *err) {
    int64_t d = c->width;
    TRY(linear_forward(device, k->qkv, k->h, b->qkv_w, b->qkv_b, 0, false, err)); /* [T, 3D] */
    for (int i = 0; i < 3; i++)
        TRY(lora_add(device, c, b, LORA_QUERY + i, tensor_columns(k->qkv, i * d, d), k->low, k->h,
                     err));
    return 0;
}

/* The activation is fused into the matmul, unless LoRA is added before it. */
static int fc1_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                       Error *err) {
    if (!lora_present(b, LORA_FC1))
        return linear_forward(device, k->ffn, k->h, b->fc1_w, b->fc1_b, c->activation, false, err);
    TRY(linear_forward(device, k->ffn, k->h, b->fc1_w, b->fc1_b, 0, false, err));
    TRY(lora_add(device, c, b, LORA_FC1, k->ffn, k->low, k->h, err));
    return activation_forward(device, k->ffn, k->ffn, c->activation, err); /* [T, F] */
}

static int block_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                         const AttentionPlan *plan, int layer, Error *err) {
    int64_t d = c->width, rows = k->x.shape[0];
    Tensor q = tensor_columns(k->qkv, 0, d);
    Tensor kv = tensor_columns(k->qkv, d, 2 * d);

    TRY(norm_before(device, c, k, b->norm1_w, b->norm1_b, err)); /* [T, D] */
    TRY(qkv_forward(device, c, b, k, err));                      /* [T, 3D] */
    if (plan->cache) {
        TRY(convert_forward(device,
                            tensor_rows(plan->cache->layers[layer], plan->cache_begin, rows), kv,
                            err)); /* [T, 2D] */
        kv = plan->cache->layers[layer];
    }
    if (plan->hook)
        TRY(plan->hook->call(plan->hook->user, layer, q, tensor_columns(kv, 0, d), err));
    TRY(attention_forward(device, k->att, TENSOR_NONE, q, tensor_columns(kv, 0, d),
                          tensor_columns(kv, d, d), c->heads, block_attention_scale(c), plan->spans,
                          plan->span_count, NULL, err));                         /* [T, D] */
    TRY(linear_forward(device, k->x, k->att, b->out_w, b->out_b, 0, true, err)); /* [T, D] */
    TRY(lora_add(device, c, b, LORA_OUT, k->x, k->low, k->att, err));
    TRY(norm_after(device, c, k, b->norm1_w, b->norm1_b, err)); /* [T, D] */

    TRY(norm_before(device, c, k, b->norm2_w, b->norm2_b, err));                 /* [T, D] */
    TRY(fc1_forward(device, c, b, k, err));                                      /* [T, F] */
    TRY(linear_forward(device, k->x, k->ffn, b->fc2_w, b->fc2_b, 0, true, err)); /* [T, D] */
    TRY(lora_add(device, c, b, LORA_FC2, k->x, k->low, k->ffn, err));
    return norm_after(device, c, k, b->norm2_w, b->norm2_b, err); /* [T, D] */
}

/* The blocks of a forward pass, as work for device_replay. */
typedef struct BlocksRun {
    Device *device;
    const BlockConfig *config;
    const Block *blocks;
    int count;
    BlockWork *work;
    const AttentionPlan *plan;
} BlocksRun;

static int run_blocks(void *work, Error *err) {
    BlocksRun *r = work;
    for (int i = 0; i < r->count; i++)
        TRY(block_forward(r->device, r->config, &r->blocks[i], r->work, r->plan, i, err));
    return 0;
}

static ReplayKey blocks_key(const BlocksRun *r) {
    const BlockConfig *c = r->config;
    const AttentionPlan *plan = r->plan;
    const BlockWork *k = r->work;
    ReplayKey key = replay_key();
    const int64_t numbers[] = {
        c->width,     c->heads, c->ffn,           c->pre_norm,         c->activation,
        c->lora.rank, r->count, plan->span_count, plan->cache != NULL, plan->cache_begin};
    const float factors[] = {c->eps, c->lora.alpha};
    replay_key_add(&key, numbers, sizeof numbers);
    replay_key_add(&key, factors, sizeof factors);
    replay_key_add(&key, plan->spans, (size_t)plan->span_count * sizeof *plan->spans);
    const Tensor rooms[] = {k->x, k->h, k->qkv, k->att, k->ffn, k->low};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) replay_key_add_tensor(&key, rooms[i]);
    for (int i = 0; i < r->count; i++) {
        const Block *b = &r->blocks[i];
        const Tensor weights[] = {b->qkv_w, b->qkv_b, b->out_w, b->out_b, b->norm1_w, b->norm1_b,
                                  b->fc1_w, b->fc1_b, b->fc2_w, b->fc2_b, b->norm2_w, b->norm2_b};
        for (size_t j = 0; j < sizeof weights / sizeof *weights; j++)
            replay_key_add_tensor(&key, weights[j]);
        for (int t = 0; c->lora.rank > 0 && t < LORA_TARGETS; t++) {
            replay_key_add_tensor(&key, b->lora[t].a);
            replay_key_add_tensor(&key, b->lora[t].b);
        }
        if (plan->cache) replay_key_add_tensor(&key, plan->cache->layers[i]);
    }
    return key;
}

int blocks_forward(Device *device, const BlockConfig *config, const Block *blocks, int count,
                   BlockWork *work, const AttentionPlan *plan, const LayerHook *hook, Error *err) {
    BlocksRun run = {device, config, blocks, count, work, plan};
    TRY(device_cancelled(device, err));
    if (!hook && !plan->hook && device_replays(device))
        return device_replay(device, blocks_key(&run), run_blocks, &run, err);
    if (hook) hook->call(hook->user, 0, work->x);
    for (int i = 0; i < count; i++) {
        TRY(device_cancelled(device, err));
        TRY(block_forward(device, config, &blocks[i], work, plan, i, err));
        if (hook) hook->call(hook->user, i + 1, work->x);
    }
    return 0;
}
