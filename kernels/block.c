#include "kernels/block.h"

#include "kernels/block_parts.h"
#include "kernels/names.h"

#include <math.h>
#include <stdlib.h>

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

int block_check(const BlockConfig *c, const char *what, Error *err) {
    const int key_heads = c->key_heads ? c->key_heads : c->heads;
    if (c->heads < 1 || c->width < 1 || c->ffn < 1 || (!c->head_width && c->width % c->heads))
        return error_set(err, "%s: width %d is not a multiple of its %d heads", what, c->width,
                         c->heads);
    if (key_heads < 1 || c->heads % key_heads)
        return error_set(err, "%s: %d heads do not divide into groups for %d heads of keys", what,
                         c->heads, key_heads);
    if (c->window < 0 || (c->window > 0 && c->global_every < 1))
        return error_set(err,
                         "%s: a window of %d with every %d. block global, expected 0 and more, "
                         "and 1 and more",
                         what, c->window, c->global_every);
    if (c->rotary && block_head_width(c) % 2)
        return error_set(err, "%s: heads of width %d, expected an even one for rotary positions",
                         what, block_head_width(c));
    return 0;
}

/* Several linear layers that read the same input and share their slots: first the matrices
 * [rows, columns], then the biases, where there are some. */
static int declare_stacked(Params *params, Tensor *w, Tensor *b, int count,
                           const char *const *names, const int64_t *rows, int64_t columns,
                           bool biased, bool idle, const char *prefix, Error *err) {
    for (int i = 0; i < count; i++) {
        ParamSpec spec = {.slot = w,
                          .role = PARAM_MATRIX,
                          .init = INIT_NORMAL,
                          .init_std = params_init_std(columns),
                          .ndim = 2,
                          .shape = {rows[i], columns},
                          .joined = i > 0,
                          .idle = idle};
        TRY(params_declare(params, &spec, err, "%s.%s.weight", prefix, names[i]));
    }
    for (int i = 0; i < count && biased; i++) {
        ParamSpec spec = {.slot = b,
                          .role = PARAM_VECTOR,
                          .ndim = 1,
                          .shape = {rows[i]},
                          .joined = i > 0,
                          .idle = idle};
        TRY(params_declare(params, &spec, err, "%s.%s.bias", prefix, names[i]));
    }
    return 0;
}

static int declare_norm(const BlockConfig *c, Tensor *w, Tensor *b, const char *name,
                        Params *params, bool idle, const char *prefix, Error *err) {
    if (!name) return 0;
    const bool biased = !c->rms_norm && !(c->unbiased & BLOCK_NORMS);
    return params_declare_norm(params, w, biased ? b : NULL, c->width, idle, err, "%s.%s.", prefix,
                               name);
}

int block_declare(Block *b, const BlockConfig *config, const BlockNames *names, Params *params,
                  bool idle, const char *prefix, Error *err) {
    const int64_t d = config->width, f = config->ffn, q = block_query_width(config),
                  kv = block_key_width(config);
    const bool qkv_b = !(config->unbiased & BLOCK_QKV), out_b = !(config->unbiased & BLOCK_OUT),
               ffn_b = !(config->unbiased & BLOCK_FFN);
    int first = params->count;
    *b = (Block){0};
    if (names->in_proj || names->qkv)
        TRY(params_declare_linear(
            params, &b->qkv_w, qkv_b ? &b->qkv_b : NULL, q + 2 * kv, d, idle, err, "%s.%s%s",
            prefix, names->in_proj ? names->in_proj : names->qkv, names->in_proj ? "_" : "."));
    else
        TRY(declare_stacked(params, &b->qkv_w, &b->qkv_b, 3,
                            (const char *[]){names->query, names->key, names->value},
                            (int64_t[]){q, kv, kv}, d, qkv_b, idle, prefix, err));
    TRY(params_declare_linear(params, &b->out_w, out_b ? &b->out_b : NULL, d, q, idle, err,
                              "%s.%s.", prefix, names->out));
    TRY(declare_norm(config, &b->norm1_w, &b->norm1_b, names->norm1, params, idle, prefix, err));
    const int fc1 = params->count;
    TRY(declare_stacked(params, &b->fc1_w, &b->fc1_b, config->gated && !config->joined ? 2 : 1,
                        (const char *[]){names->fc1, names->up},
                        (int64_t[]){config->joined ? 2 * f : f, f}, d, ffn_b, idle, prefix, err));
    TRY(params_declare_linear(params, &b->fc2_w, ffn_b ? &b->fc2_b : NULL, d, f, idle, err,
                              "%s.%s.", prefix, names->fc2));
    TRY(declare_norm(config, &b->norm2_w, &b->norm2_b, names->norm2, params, idle, prefix, err));
    params_mark_hidden(params, first);
    if (names->in_proj || names->qkv) params->items[first].hidden = 3; /* query, key and value */
    if (config->joined) params->items[fc1].hidden = 2;                 /* gate and up */
    return 0;
}

void block_scale_init(const Block *b, Params *params, int layers) {
    float factor = 1 / sqrtf(2 * (float)layers);
    params_scale_init(params, &b->out_w, factor);
    params_scale_init(params, &b->fc2_w, factor);
}

int block_declare_lora(Block *b, const BlockConfig *config, const BlockNames *names, Params *lora,
                       const char *prefix, Error *err) {
    const int64_t d = config->width, f = config->ffn, rank = config->lora.rank,
                  q = block_query_width(config), kv = block_key_width(config);
    const struct {
        const char *name;
        int64_t rows, columns; /* of the frozen matrix */
    } targets[LORA_MATRICES] = {
        [LORA_QUERY] = {names->query, q, d},
        [LORA_KEY] = {names->key, kv, d},
        [LORA_VALUE] = {names->value, kv, d},
        [LORA_OUT] = {names->out, d, q},
        [LORA_FC1] = {names->fc1, config->joined ? 2 * f : f, d},
        [LORA_FC2] = {names->fc2, d, f},
        [LORA_UP] = {names->up, f, d},
    };
    unsigned chosen = config->lora.targets & ((1u << LORA_TARGETS) - 1);
    if (config->gated && !config->joined && (chosen >> LORA_FC1 & 1)) chosen |= 1u << LORA_UP;
    if (rank < 0 || !isfinite(config->lora.alpha))
        return error_set(err, "%s: LoRA of rank %lld with alpha %g, expected a rank from 1 on",
                         prefix, (long long)rank, (double)config->lora.alpha);
    for (int t = 0; rank > 0 && t < LORA_MATRICES; t++) {
        if (!(chosen >> t & 1)) continue;
        if (!targets[t].name)
            return error_set(err,
                             "%s: LoRA on \"%s\", but query, key and value are one matrix here "
                             "(%s): choose among out, fc1 and fc2",
                             prefix, lora_target_name((LoraTarget)t),
                             names->in_proj ? names->in_proj : names->qkv);
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
    return (float)(1 / sqrt((double)block_head_width(config)));
}

int block_norm(Device *device, const BlockConfig *c, Tensor y, Tensor copy, Tensor stats, Tensor x,
               Tensor w, Tensor b, Error *err) {
    if (w.ndim == 0) return convert_forward(device, y, x, err); /* a block without this norm */
    if (c->rms_norm) return rmsnorm_forward(device, y, copy, stats, x, w, c->eps, err);
    return layernorm_forward(device, y, copy, stats, x, w, b, c->eps, err);
}

int block_norm_backward(Device *device, const BlockConfig *c, Tensor dx, Tensor dw, Tensor db,
                        Tensor dy, Tensor x, Tensor w, Tensor stats, bool accumulate_dx,
                        Error *err) {
    if (w.ndim == 0)
        return dx.data ? dropout_forward(device, dx, dy, (Dropout){0}, accumulate_dx, err) : 0;
    if (c->rms_norm) return rmsnorm_backward(device, dx, dw, dy, x, w, stats, accumulate_dx, err);
    return layernorm_backward(device, dx, dw, db, dy, x, w, stats, accumulate_dx, err);
}

Tensor block_qkv_part(const BlockConfig *c, Tensor qkv, int part) {
    const int64_t q = block_query_width(c), kv = block_key_width(c);
    return part == 0 ? tensor_columns(qkv, 0, q) : tensor_columns(qkv, q + (part - 1) * kv, kv);
}

int block_rotate(Device *device, const BlockConfig *c, const Rotary *rotary, Tensor qkv, bool back,
                 Error *err) {
    if (!c->rotary) return 0;
    const Tensor turned = tensor_columns(qkv, 0, block_query_width(c) + block_key_width(c));
    return rotary_forward(device, turned, turned, rotary->table, rotary->index, back, err);
}

int block_local_spans(const BlockConfig *c, const AttentionSpan *spans, int count,
                      AttentionSpan **local, Error *err) {
    *local = NULL;
    if (c->window == 0) return 0;
    *local = malloc(((size_t)count + 1) * sizeof **local);
    if (!*local) return error_set(err, "out of memory for %d spans", count);
    for (int i = 0; i < count; i++) {
        (*local)[i] = spans[i];
        if (attention_keys(&spans[i]) > c->window + 1) (*local)[i].window = c->window;
    }
    return 0;
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
    TRY(arena_take(arena, &work->qkv, compute, rows, block_qkv_width(config), err));
    TRY(arena_take(arena, &work->att, compute, rows, block_query_width(config), err));
    TRY(arena_take(arena, &work->ffn, compute, rows, config->ffn, err));
    work->low = work->pre = TENSOR_NONE;
    if (config->gated)
        TRY(arena_take(arena, &work->pre, compute, rows, block_pre_width(config), err));
    if (config->lora.rank == 0) return 0;
    return arena_take(arena, &work->low, compute, rows, config->lora.rank, err);
}

size_t block_work_bytes(const BlockConfig *config, int64_t rows, Dtype compute) {
    int64_t d = config->width;
    size_t h = shares_stream(config, compute) ? 0 : arena_bytes(compute, rows, d);
    size_t pre = config->gated ? arena_bytes(compute, rows, block_pre_width(config)) : 0;
    return arena_bytes(DTYPE_F32, rows, d) + h +
           arena_bytes(compute, rows, block_qkv_width(config)) +
           arena_bytes(compute, rows, block_query_width(config)) +
           arena_bytes(compute, rows, config->ffn) + pre +
           arena_bytes(compute, rows, config->lora.rank);
}

int block_begin(Device *device, const BlockConfig *config, BlockWork *work, Error *err) {
    if (config->pre_norm || work->h.data == work->x.data) return 0;
    return convert_forward(device, work->h, work->x, err);
}

/* The norm where the model has it: before a part (into h), or after it (in place in x, and into
 * h). */
static int norm_before(Device *device, const BlockConfig *c, BlockWork *k, Tensor w, Tensor b,
                       Error *err) {
    if (!c->pre_norm) return 0;
    return block_norm(device, c, k->h, TENSOR_NONE, TENSOR_NONE, k->x, w, b, err);
}

static int norm_after(Device *device, const BlockConfig *c, BlockWork *k, Tensor w, Tensor b,
                      Error *err) {
    if (c->pre_norm) return 0;
    Tensor copy = k->h.data == k->x.data ? TENSOR_NONE : k->h;
    return block_norm(device, c, k->x, copy, TENSOR_NONE, k->x, w, b, err);
}

/* Query, key and value of the rows, side by side. */
static int qkv_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                       const Rotary *rotary, Error *err) {
    TRY(linear_forward(device, k->qkv, k->h, b->qkv_w, b->qkv_b, 0, false, err)); /* [T, 3D] */
    for (int i = 0; i < 3; i++)
        TRY(lora_add(device, c, b, LORA_QUERY + i, block_qkv_part(c, k->qkv, i), k->low, k->h,
                     err));
    return block_rotate(device, c, rotary, k->qkv, false, err);
}

static int gated_fc1_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                             Error *err) {
    TRY(linear_forward(device, k->pre, k->h, b->fc1_w, b->fc1_b, 0, false, err)); /* [T, 2F] */
    for (int t = LORA_FC1; t <= LORA_UP; t += LORA_UP - LORA_FC1)
        TRY(lora_add(device, c, b, t, block_pre_part(c, k->pre, t), k->low, k->h, err));
    return gated_forward(device, k->ffn, k->pre, c->activation, err); /* [T, F] */
}

/* The activation is fused into the matmul, unless LoRA is added before it. */
static int fc1_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                       Error *err) {
    if (c->gated) return gated_fc1_forward(device, c, b, k, err);
    if (!lora_present(b, LORA_FC1))
        return linear_forward(device, k->ffn, k->h, b->fc1_w, b->fc1_b, c->activation, false, err);
    TRY(linear_forward(device, k->ffn, k->h, b->fc1_w, b->fc1_b, 0, false, err));
    TRY(lora_add(device, c, b, LORA_FC1, k->ffn, k->low, k->h, err));
    return activation_forward(device, k->ffn, k->ffn, c->activation, err); /* [T, F] */
}

static int block_forward(Device *device, const BlockConfig *c, const Block *b, BlockWork *k,
                         const AttentionPlan *plan, int layer, Error *err) {
    const int64_t rows = k->x.shape[0], query = block_query_width(c), key = block_key_width(c);
    const bool local = block_is_local(c, layer);
    Tensor q = tensor_columns(k->qkv, 0, query);
    Tensor kv = tensor_columns(k->qkv, query, 2 * key);

    TRY(block_enter(b, err));
    TRY(norm_before(device, c, k, b->norm1_w, b->norm1_b, err)); /* [T, D] */
    TRY(qkv_forward(device, c, b, k, local ? &plan->local_rotary : &plan->rotary,
                    err)); /* [T, 3D] */
    if (plan->cache) {
        TRY(convert_forward(device,
                            tensor_rows(plan->cache->layers[layer], plan->cache_begin, rows), kv,
                            err)); /* [T, 2D] */
        kv = plan->cache->layers[layer];
    }
    if (plan->hook)
        TRY(plan->hook->call(plan->hook->user, layer, q, tensor_columns(kv, 0, key), err));
    TRY(attention_forward(device, k->att, TENSOR_NONE, q, tensor_columns(kv, 0, key),
                          tensor_columns(kv, key, key), c->heads, block_attention_scale(c),
                          local ? plan->local_spans : plan->spans, plan->span_count, NULL,
                          err));                                                 /* [T, D] */
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
    int first, end;
    BlockWork *work;
    const AttentionPlan *plan;
} BlocksRun;

static int run_blocks(void *work, Error *err) {
    BlocksRun *r = work;
    for (int i = r->first; i < r->end; i++)
        TRY(block_forward(r->device, r->config, &r->blocks[i], r->work, r->plan, i, err));
    return 0;
}

static ReplayKey blocks_key(const BlocksRun *r) {
    const BlockConfig *c = r->config;
    const AttentionPlan *plan = r->plan;
    const BlockWork *k = r->work;
    ReplayKey key = replay_key();
    const int64_t numbers[] = {
        c->width,          c->heads,    c->ffn,         c->pre_norm,      c->activation,
        c->lora.rank,      r->first,    r->end,         plan->span_count, plan->cache != NULL,
        plan->cache_begin, c->rms_norm, c->gated,       c->rotary,        c->key_heads,
        c->head_width,     c->window,   c->global_every};
    const float factors[] = {c->eps, c->lora.alpha};
    replay_key_add(&key, numbers, sizeof numbers);
    replay_key_add(&key, factors, sizeof factors);
    replay_key_add(&key, plan->spans, (size_t)plan->span_count * sizeof *plan->spans);
    if (c->window > 0)
        replay_key_add(&key, plan->local_spans, (size_t)plan->span_count * sizeof *plan->spans);
    const Tensor rooms[] = {k->x,
                            k->h,
                            k->qkv,
                            k->att,
                            k->ffn,
                            k->low,
                            k->pre,
                            plan->rotary.table,
                            plan->rotary.index,
                            plan->local_rotary.table,
                            plan->local_rotary.index};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) replay_key_add_tensor(&key, rooms[i]);
    for (int i = r->first; i < r->end; i++) {
        const Block *b = &r->blocks[i];
        const Tensor weights[] = {b->qkv_w, b->qkv_b, b->out_w, b->out_b, b->norm1_w, b->norm1_b,
                                  b->fc1_w, b->fc1_b, b->fc2_w, b->fc2_b, b->norm2_w, b->norm2_b};
        for (size_t j = 0; j < sizeof weights / sizeof *weights; j++)
            replay_key_add_tensor(&key, weights[j]);
        for (int t = 0; c->lora.rank > 0 && t < LORA_MATRICES; t++) {
            replay_key_add_tensor(&key, b->lora[t].a);
            replay_key_add_tensor(&key, b->lora[t].b);
        }
        if (plan->cache) replay_key_add_tensor(&key, plan->cache->layers[i]);
    }
    return key;
}

/* Blocks that are elsewhere; a post-LN model's next operation reads h. */
static int run_rest(const BlocksRun *r, Error *err) {
    const BlocksHere *here = r->plan->here;
    if (!here || !here->rest) return 0;
    TRY(here->rest(here->user, r->work, r->plan, err));
    return block_begin(r->device, r->config, r->work, err);
}

int blocks_forward(Device *device, const BlockConfig *config, const Block *blocks, int count,
                   BlockWork *work, const AttentionPlan *plan, const LayerHook *hook, Error *err) {
    const BlocksHere *here = plan->here;
    BlocksRun run = {device, config, blocks, here ? here->begin : 0, here ? here->end : count,
                     work,   plan};
    TRY(device_cancelled(device, err));
    const bool enter = count && blocks[0].enter;
    if (!hook && !plan->hook && !enter && run.first < run.end && device_replays(device)) {
        TRY(device_replay(device, blocks_key(&run), run_blocks, &run, err));
        return run_rest(&run, err);
    }
    if (hook) hook->call(hook->user, run.first, work->x);
    for (int i = run.first; i < run.end; i++) {
        TRY(device_cancelled(device, err));
        TRY(block_forward(device, config, &blocks[i], work, plan, i, err));
        if (hook) hook->call(hook->user, i + 1, work->x);
    }
    return run_rest(&run, err);
}
