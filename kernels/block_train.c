#include "kernels/block_train.h"

#include "kernels/block_parts.h"
#include "kernels/random.h"

/* ---- Which parameters have a gradient. ---- */

static bool lora_trainable(const Block *b, LoraTarget target) {
    return b->lora[target].a.grad || b->lora[target].b.grad;
}

static bool norm1_trainable(const Block *b) {
    return b->norm1_w.grad || b->norm1_b.grad;
}

static bool qkv_trainable(const Block *b) {
    return b->qkv_w.grad || b->qkv_b.grad || lora_trainable(b, LORA_QUERY) ||
           lora_trainable(b, LORA_KEY) || lora_trainable(b, LORA_VALUE);
}

bool block_trainable(const Block *b) {
    const Tensor *rest[] = {&b->out_w, &b->out_b, &b->fc1_w,   &b->fc1_b,
                            &b->fc2_w, &b->fc2_b, &b->norm2_w, &b->norm2_b};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        if (rest[i]->grad) return true;
    return norm1_trainable(b) || qkv_trainable(b) || lora_trainable(b, LORA_OUT) ||
           lora_trainable(b, LORA_FC1) || lora_trainable(b, LORA_UP) || lora_trainable(b, LORA_FC2);
}

/* ---- Memory. ---- */

int tensor_specs_take(const TensorSpec *specs, int count, Arena *arena, int64_t rows, Error *err) {
    const size_t before = arena->used;
    for (int i = 0; i < count; i++)
        if (arena_take(arena, specs[i].t, specs[i].dtype, rows, specs[i].columns, err) != 0) {
            arena_reset(arena, before);
            return -1;
        }
    return 0;
}

size_t tensor_specs_bytes(const TensorSpec *specs, int count, int64_t rows) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += arena_bytes(specs[i].dtype, rows, specs[i].columns);
    return bytes;
}

static bool keeps_h1(const Block *b) {
    return b->qkv_w.grad || b->lora[LORA_QUERY].a.grad || b->lora[LORA_KEY].a.grad ||
           b->lora[LORA_VALUE].a.grad;
}

static bool keeps_h2(const Block *b) {
    return b->fc1_w.grad || b->lora[LORA_FC1].a.grad || b->lora[LORA_UP].a.grad;
}

static bool keeps_act(const Block *b) {
    return b->fc2_w.grad || b->lora[LORA_FC2].a.grad;
}

/* The block's input is itself the matmul's input. */
static bool h1_is_x(const Stack *stack, bool own) {
    return own && !stack->config->pre_norm && stack->compute == DTYPE_F32;
}

int block_tape_specs(TensorSpec *specs, BlockTape *t, const Stack *stack, int i, bool own) {
    const BlockConfig *c = stack->config;
    const Block *b = &stack->blocks[i];
    const Dtype f32 = DTYPE_F32, narrow = stack->compute;
    const int64_t d = c->width;
    int n = 0;
    if (!c->pre_norm && own) specs[n++] = (TensorSpec){&t->n1, f32, d};
    specs[n++] = (TensorSpec){&t->stats1, f32, 2};
    if (keeps_h1(b) && !h1_is_x(stack, own)) specs[n++] = (TensorSpec){&t->h1, narrow, d};
    specs[n++] = (TensorSpec){&t->qkv, narrow, block_qkv_width(c)};
    specs[n++] = (TensorSpec){&t->att, narrow, block_query_width(c)};
    specs[n++] = (TensorSpec){&t->lse, f32, c->heads};
    specs[n++] = (TensorSpec){&t->n2, f32, d};
    specs[n++] = (TensorSpec){&t->stats2, f32, 2};
    if (keeps_h2(b)) specs[n++] = (TensorSpec){&t->h2, narrow, d};
    specs[n++] = (TensorSpec){&t->pre, narrow, block_pre_width(c)};
    if (keeps_act(b)) specs[n++] = (TensorSpec){&t->act, narrow, c->ffn};
    for (int target = 0; target < LORA_MATRICES; target++)
        if (lora_present(b, target))
            specs[n++] = (TensorSpec){&t->low[target], narrow, c->lora.rank};
    return n;
}

int scratch_specs(TensorSpec *specs, BlockScratch *s, const Stack *stack, int first, int end) {
    const BlockConfig *c = stack->config;
    bool h = false, act = false;
    for (const Block *b = stack->blocks + first; b < stack->blocks + end; b++) {
        h |= !keeps_h1(b) || !keeps_h2(b);
        act |= !keeps_act(b);
    }
    int n = 0;
    if (h) specs[n++] = (TensorSpec){&s->h, stack->compute, c->width};
    if (act) specs[n++] = (TensorSpec){&s->act, stack->compute, c->ffn};
    /* For the input of dropout, or an output that is not used. */
    if (stack->dropout.hidden > 0 || (stack->recompute && !c->pre_norm))
        specs[n++] = (TensorSpec){&s->temp, stack->compute, c->width};
    return n;
}

void block_tape_link(BlockTape *t, const Stack *stack, bool own, const BlockScratch *scratch) {
    if (!t->n1.data) t->n1 = t->x;
    if (!t->h1.data) t->h1 = h1_is_x(stack, own) ? t->x : scratch->h;
    if (!t->h2.data) t->h2 = scratch->h;
    if (!t->act.data) t->act = scratch->act;
}

void block_tape_unlink(BlockTape *t, const BlockScratch *scratch) {
    if (t->h1.data == scratch->h.data) t->h1 = TENSOR_NONE;
    if (t->h2.data == scratch->h.data) t->h2 = TENSOR_NONE;
    if (t->act.data == scratch->act.data) t->act = TENSOR_NONE;
}

/* ---- Forward. ---- */

/* A block in a forward or backward pass. */
typedef struct Run {
    Device *device;
    const Stack *stack;
    const BlockConfig *config;
    const Block *block;
    const BlockTape *tape;
    int i;
} Run;

static Run run_of(Device *device, const Stack *stack, int i, const BlockTape *tape) {
    return (Run){device, stack, stack->config, &stack->blocks[i], tape, i};
}

static Dropout dropout_at(const Run *r, float p, StackPlace place) {
    const StackDropout *d = &r->stack->dropout;
    return (Dropout){p, d->seed, random_stream(d->stream, (uint64_t)r->i, place, 0)};
}

static int lora_at(const Run *r, LoraTarget target, Tensor y, Tensor x, Error *err) {
    return lora_add(r->device, r->config, r->block, target, y, r->tape->low[target], x, err);
}

static const AttentionSpan *spans_of(const Run *r) {
    return block_is_local(r->config, r->i) ? r->stack->local_spans : r->stack->spans;
}

static const Rotary *rotary_of(const Run *r) {
    return block_is_local(r->config, r->i) ? &r->stack->local_rotary : &r->stack->rotary;
}

static int attend(const Run *r, Error *err) {
    const Block *b = r->block;
    const BlockTape *t = r->tape;
    const BlockConfig *c = r->config;
    const Tensor q = block_qkv_part(c, t->qkv, 0), k = block_qkv_part(c, t->qkv, 1),
                 v = block_qkv_part(c, t->qkv, 2);
    const Dropout drop = dropout_at(r, r->stack->dropout.attention, STACK_SOFTMAX);
    TRY(linear_forward(r->device, t->qkv, t->h1, b->qkv_w, b->qkv_b, 0, false, err)); /* [T, 3D] */
    TRY(lora_at(r, LORA_QUERY, q, t->h1, err));
    TRY(lora_at(r, LORA_KEY, k, t->h1, err));
    TRY(lora_at(r, LORA_VALUE, v, t->h1, err));
    TRY(block_rotate(r->device, c, rotary_of(r), t->qkv, false, err));
    return attention_forward(r->device, t->att, t->lse, q, k, v, r->config->heads,
                             block_attention_scale(r->config), spans_of(r), r->stack->span_count,
                             &drop, err); /* [T, D] */
}

/* fc1, activation and the dropout after it. */
static int activate(const Run *r, Error *err) {
    const Block *b = r->block;
    const BlockTape *t = r->tape;
    const float p = r->stack->dropout.inner;
    TRY(linear_forward(r->device, t->pre, t->h2, b->fc1_w, b->fc1_b, 0, false, err)); /* [T, F] */
    TRY(lora_at(r, LORA_FC1, block_pre_part(r->config, t->pre, LORA_FC1), t->h2, err));
    if (r->config->gated) {
        TRY(lora_at(r, LORA_UP, block_pre_part(r->config, t->pre, LORA_UP), t->h2, err));
        TRY(gated_forward(r->device, t->act, t->pre, r->config->activation, err)); /* [T, F] */
    } else {
        TRY(activation_forward(r->device, t->act, t->pre, r->config->activation, err));
    }
    if (!(p > 0)) return 0;
    return dropout_forward(r->device, t->act, t->act, dropout_at(r, p, STACK_INNER), false, err);
}

/* stream += dropout(x w^T + b + LoRA): fused into the matmul without dropout. */
static int part_add(const Run *r, Tensor stream, Tensor x, Tensor w, Tensor b, LoraTarget target,
                    StackPlace place, Tensor temp, Error *err) {
    const float p = r->stack->dropout.hidden;
    const bool drop = p > 0;
    const Tensor y = drop ? temp : stream;
    TRY(linear_forward(r->device, y, x, w, b, 0, !drop, err)); /* [T, D] */
    TRY(lora_at(r, target, y, x, err));
    if (!drop) return 0;
    return dropout_forward(r->device, stream, temp, dropout_at(r, p, place), true, err);
}

int block_train_forward(Device *device, const Stack *stack, int i, const BlockTape *t, Tensor temp,
                        Tensor x_out, Tensor h_out, Error *err) {
    const Run r = run_of(device, stack, i, t);
    const BlockConfig *c = r.config;
    const Block *b = r.block;
    const bool pre = c->pre_norm;
    const Tensor none = TENSOR_NONE, stream = pre ? t->n2 : t->n1; /* after the attention */

    TRY(block_enter(b, err));
    if (pre)
        TRY(block_norm(device, c, t->h1, none, t->stats1, t->x, b->norm1_w, b->norm1_b, err));
    else if (t->n1.data != t->x.data && t->h1.data != t->x.data)
        TRY(convert_forward(device, t->h1, t->x, err)); /* not written yet */
    TRY(attend(&r, err));
    if (stream.data != t->x.data) TRY(convert_forward(device, stream, t->x, err));
    TRY(part_add(&r, stream, t->att, b->out_w, b->out_b, LORA_OUT, STACK_ATTENTION, temp, err));

    if (pre)
        TRY(block_norm(device, c, t->h2, none, t->stats2, t->n2, b->norm2_w, b->norm2_b, err));
    else
        TRY(block_norm(device, c, t->n2, t->h2, t->stats1, t->n1, b->norm1_w, b->norm1_b, err));
    TRY(activate(&r, err));
    if (pre && !x_out.data) /* the tape is complete without it */
        return lora_narrow(device, c, b, LORA_FC2, t->low[LORA_FC2], t->act, err);
    if (pre) TRY(convert_forward(device, x_out, t->n2, err));
    TRY(part_add(&r, pre ? x_out : t->n2, t->act, b->fc2_w, b->fc2_b, LORA_FC2, STACK_FEED_FORWARD,
                 temp, err));
    if (pre) return 0;
    return block_norm(device, c, x_out.data ? x_out : temp, h_out, t->stats2, t->n2, b->norm2_w,
                      b->norm2_b, err);
}

/* ---- Backward. ---- */

/* Gradients flowing back through a block. */
typedef struct Flow {
    Tensor dx;   /* [T, D] f32, of the residual stream */
    Tensor part; /* [T, D] c, of what a part added to it, or of a LayerNorm's output */
    Tensor low;  /* [T, rank] c */
    Tensor act;  /* [T, F] c, of fc2's input, then fc1's output; freed before those below are
                    used: */
    Tensor att;  /* [T, D] c, of out's input */
    Tensor qkv;  /* [T, 3D] c */
    Tensor kv;   /* [T, 2D] f32; absent where qkv is f32 itself */
    Tensor pre;  /* [T, 2F] c, gated: of fc1's output; with act */
} Flow;

/* Its tensors: those of both parts, and those of either part, which share memory. */
typedef struct FlowSpecs {
    TensorSpec both[2], feed_forward[2], attention[3];
    int both_count, feed_forward_count, attention_count;
} FlowSpecs;

static FlowSpecs flow_specs(Flow *f, const Stack *stack, int i) {
    const BlockConfig *c = stack->config;
    const Dtype narrow = stack->compute;
    const int64_t d = c->width;
    FlowSpecs r = {
        .feed_forward = {{&f->act, narrow, c->ffn}, {&f->pre, narrow, block_pre_width(c)}},
        .feed_forward_count = c->gated ? 2 : 1,
        .attention = {{&f->att, narrow, block_query_width(c)},
                      {&f->qkv, narrow, block_qkv_width(c)}},
        .attention_count = 2};
    /* Else the stream's gradient is also the part's. */
    if (c->pre_norm || narrow != DTYPE_F32 || stack->dropout.hidden > 0)
        r.both[r.both_count++] = (TensorSpec){&f->part, narrow, d};
    bool lora = false;
    for (int t = 0; t < LORA_MATRICES; t++) lora |= lora_present(&stack->blocks[i], t);
    if (lora) r.both[r.both_count++] = (TensorSpec){&f->low, narrow, c->lora.rank};
    if (narrow != DTYPE_F32)
        r.attention[r.attention_count++] = (TensorSpec){&f->kv, DTYPE_F32, 2 * block_key_width(c)};
    return r;
}

size_t block_train_backward_bytes(const Stack *stack, int i, int64_t rows) {
    Flow flow;
    const FlowSpecs r = flow_specs(&flow, stack, i);
    const size_t one = tensor_specs_bytes(r.feed_forward, r.feed_forward_count, rows),
                 other = tensor_specs_bytes(r.attention, r.attention_count, rows);
    return tensor_specs_bytes(r.both, r.both_count, rows) + (one > other ? one : other);
}

/* Of y = x w^T + b + LoRA: the gradients of the trainable weights, and dx (unless TENSOR_NONE). */
static int matmul_backward(const Run *r, Tensor dx, bool accumulate, Tensor dy, Tensor x, Tensor w,
                           Tensor b, Error *err) {
    if (!dx.data && !w.grad && !b.grad) return 0;
    return linear_backward(r->device, dx, tensor_grad(w), tensor_grad(b), dy, x, w, accumulate,
                           err);
}

/* dB += dy^T low; of low: (alpha / rank) dy B; dA += that^T x, dx += that A. */
static int lora_backward(const Run *r, const Flow *f, LoraTarget target, Tensor dx, Tensor dy,
                         Tensor x, Error *err) {
    if (!lora_present(r->block, target)) return 0;
    const Tensor a = r->block->lora[target].a, b = r->block->lora[target].b, none = TENSOR_NONE;
    const Tensor dlow = dx.data || a.grad ? f->low : none;
    TRY(matmul_backward(r, dlow, false, dy, r->tape->low[target], b, none, err));
    if (!dlow.data) return 0;
    TRY(scale_forward(r->device, dlow, dlow, lora_scale(r->config), err));
    return matmul_backward(r, dx, true, dlow, x, a, none, err);
}

/* The gradient of what a part added to the stream, before its dropout. */
static int part_of(const Run *r, Flow *f, Tensor *part, StackPlace place, Error *err) {
    const float p = r->stack->dropout.hidden;
    const bool same = !(p > 0) && r->stack->compute == DTYPE_F32;
    *part = same ? f->dx : f->part;
    if (same) return 0;
    return dropout_forward(r->device, f->part, f->dx, dropout_at(r, p, place), false, err);
}

/* Through a LayerNorm after the part (post-LN): in place. */
static int norm_behind(const Run *r, Flow *f, Tensor n, Tensor w, Tensor b, Tensor stats,
                       Error *err) {
    return block_norm_backward(r->device, r->config, f->dx, tensor_grad(w), tensor_grad(b), f->dx,
                               n, w, stats, false, err);
}

/* Through one before it (pre-LN): added to the residual branch's gradient. */
static int norm_before(const Run *r, Flow *f, bool input, Tensor n, Tensor w, Tensor b,
                       Tensor stats, Error *err) {
    return block_norm_backward(r->device, r->config, input ? f->dx : TENSOR_NONE, tensor_grad(w),
                               tensor_grad(b), f->part, n, w, stats, true, err);
}

static int feed_forward_backward(const Run *r, Flow *f, Error *err) {
    const Block *b = r->block;
    const BlockTape *t = r->tape;
    const bool pre = r->config->pre_norm;
    const float p = r->stack->dropout.inner;
    Tensor part;
    if (!pre) TRY(norm_behind(r, f, t->n2, b->norm2_w, b->norm2_b, t->stats2, err));
    TRY(part_of(r, f, &part, STACK_FEED_FORWARD, err));
    TRY(matmul_backward(r, f->act, false, part, t->act, b->fc2_w, b->fc2_b, err)); /* [T, F] */
    TRY(lora_backward(r, f, LORA_FC2, f->act, part, t->act, err));
    if (p > 0)
        TRY(dropout_forward(r->device, f->act, f->act, dropout_at(r, p, STACK_INNER), false, err));
    const bool gated = r->config->gated;
    const Tensor dpre = gated ? f->pre : f->act; /* [T, 2F] or [T, F] */
    if (gated)
        TRY(gated_backward(r->device, dpre, f->act, t->pre, r->config->activation, err));
    else
        TRY(activation_backward(r->device, dpre, f->act, t->pre, r->config->activation, err));
    const Tensor dh = pre ? f->part : f->dx; /* a post-LN model adds to the residual branch's
                                                gradient */
    TRY(matmul_backward(r, dh, !pre, dpre, t->h2, b->fc1_w, b->fc1_b, err)); /* [T, D] */
    TRY(lora_backward(r, f, LORA_FC1, dh, block_pre_part(r->config, dpre, LORA_FC1), t->h2, err));
    if (gated)
        TRY(lora_backward(r, f, LORA_UP, dh, block_pre_part(r->config, dpre, LORA_UP), t->h2, err));
    if (!pre) return 0;
    return norm_before(r, f, true, t->n2, b->norm2_w, b->norm2_b, t->stats2, err);
}

/* From att to qkv. dk and dv are sums over spans, and over heads that share keys: in f32, and from
 * zero. */
static int attend_backward(const Run *r, const Flow *f, Error *err) {
    const BlockTape *t = r->tape;
    const BlockConfig *c = r->config;
    const int64_t query = block_query_width(c), key = block_key_width(c);
    const Dropout drop = dropout_at(r, r->stack->dropout.attention, STACK_SOFTMAX);
    const Tensor dkv = f->kv.data ? f->kv : tensor_columns(f->qkv, query, 2 * key);
    const Tensor cleared = f->kv.data ? f->kv : f->qkv;
    TRY(device_clear(r->device, cleared.data, tensor_bytes(cleared), err));
    TRY(attention_backward(r->device, block_qkv_part(c, f->qkv, 0), tensor_columns(dkv, 0, key),
                           tensor_columns(dkv, key, key), f->att, t->att, t->lse,
                           block_qkv_part(c, t->qkv, 0), block_qkv_part(c, t->qkv, 1),
                           block_qkv_part(c, t->qkv, 2), c->heads, block_attention_scale(c),
                           spans_of(r), r->stack->span_count, &drop, err));
    if (f->kv.data)
        TRY(convert_forward(r->device, tensor_columns(f->qkv, query, 2 * key), f->kv, err));
    return block_rotate(r->device, c, rotary_of(r), f->qkv, true, err);
}

static int attention_part_backward(const Run *r, Flow *f, bool input, Error *err) {
    const Block *b = r->block;
    const BlockTape *t = r->tape;
    const bool pre = r->config->pre_norm;
    const Tensor none = TENSOR_NONE;
    const bool norm = pre && (input || norm1_trainable(b)); /* LN1 is before this part */
    const bool deep = norm || input || qkv_trainable(b);
    Tensor part;
    if (!pre) TRY(norm_behind(r, f, t->n1, b->norm1_w, b->norm1_b, t->stats1, err));
    TRY(part_of(r, f, &part, STACK_ATTENTION, err));
    const Tensor datt = deep ? f->att : none;
    TRY(matmul_backward(r, datt, false, part, t->att, b->out_w, b->out_b, err)); /* [T, D] */
    TRY(lora_backward(r, f, LORA_OUT, datt, part, t->att, err));
    if (!deep) return 0;
    TRY(attend_backward(r, f, err)); /* [T, 3D] */
    Tensor dh = none;
    if (pre && norm) dh = f->part;
    if (!pre && input) dh = f->dx;
    TRY(matmul_backward(r, dh, !pre, f->qkv, t->h1, b->qkv_w, b->qkv_b, err)); /* [T, D] */
    for (int i = 0; i < 3; i++)
        TRY(lora_backward(r, f, LORA_QUERY + i, dh, block_qkv_part(r->config, f->qkv, i), t->h1,
                          err));
    if (!norm) return 0;
    return norm_before(r, f, input, t->n1, b->norm1_w, b->norm1_b, t->stats1, err);
}

int block_train_backward(Device *device, const Stack *stack, int i, const BlockTape *t,
                         Arena *arena, Tensor dx, bool input, Error *err) {
    const Run r = run_of(device, stack, i, t);
    const int64_t rows = dx.shape[0];
    const size_t begin = arena->used;
    Flow flow = {.dx = dx};
    TRY(block_enter(r.block, err));
    const FlowSpecs specs = flow_specs(&flow, stack, i);
    int status = tensor_specs_take(specs.both, specs.both_count, arena, rows, err);
    const size_t both = arena->used;
    if (status == 0)
        status = tensor_specs_take(specs.feed_forward, specs.feed_forward_count, arena, rows, err);
    if (status == 0) status = feed_forward_backward(&r, &flow, err);
    arena_reset(arena, both);
    if (status == 0)
        status = tensor_specs_take(specs.attention, specs.attention_count, arena, rows, err);
    if (status == 0) status = attention_part_backward(&r, &flow, input, err);
    arena_reset(arena, begin);
    return status;
}
