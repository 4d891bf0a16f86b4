#include "language/xlmr_train.h"

#include <stdlib.h>

#include "language/train_checks.h"

int xlmr_declare_lora(Xlmr *m, Params *lora, Error *err) {
    const XlmrConfig *c = &m->config;
    for (int i = 0; i < c->layers; i++) {
        char prefix[XLMR_PREFIX_SIZE];
        const BlockNames *names = xlmr_block_names(c, i, prefix);
        TRY(block_declare_lora(&m->blocks[i], &c->block, names, lora, prefix, err));
    }
    return 0;
}

static size_t largest(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ---- The loss of rows. ---- */

size_t targets_loss_bytes(int count) {
    return arena_bytes(DTYPE_I32, 1, count) + 3 * arena_bytes(DTYPE_F32, 1, count);
}

int targets_loss(Arena *arena, const XlmrTargets *t, float *losses, Tensor dx, Tensor x, Tensor w,
                 Tensor b, bool backward, Error *err) {
    size_t mark = arena->used;
    Tensor target, weight, smoothing = TENSOR_NONE, loss;
    TRY(arena_upload(arena, &target, DTYPE_I32, t->count, t->ids, err));
    TRY(arena_upload(arena, &weight, DTYPE_F32, t->count, t->weights, err));
    if (t->smoothing_weights)
        TRY(arena_upload(arena, &smoothing, DTYPE_F32, t->count, t->smoothing_weights, err));
    TRY(arena_take(arena, &loss, DTYPE_F32, 1, t->count, err));
    loss = tensor_1d(loss.data, DTYPE_F32, t->count);
    TRY(vocab_cross_entropy(arena->device, loss, dx, backward ? tensor_grad(w) : TENSOR_NONE,
                            backward ? tensor_grad(b) : TENSOR_NONE, x, w, b, target, weight,
                            t->smoothing, smoothing, err)); /* [N] */
    TRY(device_download(arena->device, losses, loss.data, tensor_bytes(loss), err));
    arena_reset(arena, mark);
    return 0;
}

int xlmr_check_batch(const Xlmr *m, const XlmrBatch *b, Error *err) {
    return train_check_batch(b, m->config.vocab, m->config.positions, err);
}

/* ---- Forward and backward pass. ---- */

typedef struct Pass {
    const Xlmr *m;
    Arena *arena;
    const XlmrBatch *batch;
    const XlmrTargets *targets;
    const TrainRun *run;
    Tensor dimage;
    /* Which gradients are needed, from the bottom up; the backward pass goes down to the lowest. */
    bool embeddings, blocks, norm, dense, head;
    XlmrRows rows;
    Tensor sum, stats; /* [T, D], [T, 2] f32, post-LN: input of the embeddings' LayerNorm */
    Tensor x;          /* [T, D] f32, input of the first block */
    Stack stack;
    StackTape tape;
    Tensor dx; /* [T, D] f32, of the residual stream */
} Pass;

static bool has_grad(Tensor a, Tensor b) {
    return a.grad || b.grad;
}

/* Whether gradients go down to the first block's input; `image`: image tokens need gradients. */
static bool gradients_reach_input(const Xlmr *m, bool image) {
    Tensor w, b;
    const bool norm = xlmr_embedding_norm(m, &w, &b);
    return image || has_grad(m->words, m->positions) || m->types.grad || (norm && has_grad(w, b));
}

static void pass_plan(Pass *p) {
    const Xlmr *m = p->m;
    bool pre = m->config.block.pre_norm, norm = has_grad(m->norm_w, m->norm_b);
    p->embeddings = p->stack.input;
    p->blocks = p->embeddings || p->stack.lowest < m->config.layers;
    p->norm = p->blocks || (pre && norm);
    p->dense = p->norm || has_grad(m->head_w, m->head_b);
    p->head = p->dense || has_grad(m->head_norm_w, m->head_norm_b);
}

static Stack make_stack(const Xlmr *m, const AttentionPlan *plan, const TrainRun *run, bool image) {
    bool embeddings = gradients_reach_input(m, image);
    return (Stack){.config = &m->config.block,
                   .blocks = m->blocks,
                   .count = m->config.layers,
                   .compute = m->params->compute,
                   .spans = plan->spans,
                   .span_count = plan->span_count,
                   .dropout = {.attention = run->dropout,
                               .hidden = run->dropout,
                               .seed = run->seed,
                               .stream = run->stream},
                   .recompute = run->recompute,
                   .left = run->left,
                   .lowest = embeddings ? 0 : stack_lowest_trainable(m->blocks, m->config.layers),
                   .input = embeddings};
}

static int embed_forward(Pass *p, Error *err) {
    const Xlmr *m = p->m;
    Device *device = p->arena->device;
    int64_t n = p->batch->tokens, d = m->config.block.width;
    Tensor w, b;
    TRY(arena_take(p->arena, &p->x, DTYPE_F32, n, d, err));
    if (!xlmr_embedding_norm(m, &w, &b)) {
        TRY(xlmr_embed(m, p->arena, p->batch, p->x, &p->rows, err)); /* [T, D] */
    } else {
        TRY(arena_take(p->arena, &p->sum, DTYPE_F32, n, d, err));
        TRY(arena_take(p->arena, &p->stats, DTYPE_F32, n, 2, err));
        TRY(xlmr_embed(m, p->arena, p->batch, p->sum, &p->rows, err)); /* [T, D] */
        TRY(layernorm_forward(device, p->x, TENSOR_NONE, p->stats, p->sum, w, b,
                              m->config.block.eps, err)); /* [T, D] */
    }
    p->stack.rotary = xlmr_rotary(m, &p->rows, 0);
    p->stack.local_rotary = xlmr_rotary(m, &p->rows, 1);
    if (p->run->dropout == 0) return 0;
    return dropout_forward(device, p->x, p->x, train_embedding_dropout(p->run), false, err);
}

static int embed_backward(Pass *p, Error *err) {
    const Xlmr *m = p->m;
    Device *device = p->arena->device;
    Tensor dsum = p->dx, w, b;
    if (p->run->dropout > 0)
        TRY(dropout_forward(device, p->dx, p->dx, train_embedding_dropout(p->run), false, err));
    if (xlmr_embedding_norm(m, &w, &b)) {
        TRY(arena_take(p->arena, &dsum, DTYPE_F32, p->dx.shape[0], p->dx.shape[1], err));
        TRY(layernorm_backward(device, dsum, tensor_grad(w), tensor_grad(b), p->dx, p->sum, w,
                               p->stats, false, err)); /* [T, D] */
    }
    const struct {
        Tensor dtable, index;
    } tables[] = {{tensor_grad(m->words), p->rows.ids},
                  {p->batch->image_rows ? p->dimage : TENSOR_NONE, p->rows.image},
                  {tensor_grad(m->types), p->rows.types},
                  {tensor_grad(m->positions), p->rows.positions}};
    if (m->words.parts) TRY(parts_gather_backward(p->arena, m->words, dsum, p->batch->ids, err));
    for (int i = m->words.parts ? 1 : 0; i < 4; i++)
        if (tables[i].dtable.data)
            TRY(gather_backward(device, tables[i].dtable, dsum, tables[i].index, err));
    return 0;
}

/* The head over the target rows: N of them. */
typedef struct Head {
    Tensor index;         /* [N] */
    Tensor picked, stats; /* [N, D], [N, 2] f32, pre-LN: input of the last LayerNorm */
    Tensor hidden;        /* [N, D] c */
    Tensor dense, active; /* [N, D] f32, before and after the GELU */
    Tensor active_stats;  /* [N, 2] f32 */
    Tensor features;      /* [N, D] c */
    Tensor dfeatures;     /* [N, D] c */
} Head;

static size_t head_bytes(const Xlmr *m, int64_t n) {
    int64_t d = m->config.block.width;
    Dtype compute = m->params->compute;
    size_t c = arena_bytes(compute, n, d), f = arena_bytes(DTYPE_F32, n, d);
    size_t stats = arena_bytes(DTYPE_F32, n, 2), pre = m->config.block.pre_norm ? f : 0;
    size_t kept = arena_bytes(DTYPE_I32, 1, n) + (pre ? pre + stats : 0) + c + 2 * f + stats + c +
                  c; /* as in Head */
    size_t backward = 2 * f + (compute == DTYPE_F32 ? 0 : c) + pre;
    return kept + largest(targets_loss_bytes((int)n), backward);
}

static int head_forward(const Pass *p, Head *h, Error *err) {
    const Xlmr *m = p->m;
    Arena *arena = p->arena;
    Device *device = arena->device;
    Dtype compute = m->params->compute;
    int64_t n = p->targets->count, d = m->config.block.width;
    float eps = m->config.block.eps;
    TRY(arena_upload(arena, &h->index, DTYPE_I32, n, p->targets->rows, err));
    TRY(arena_take(arena, &h->hidden, compute, n, d, err));
    if (m->config.block.pre_norm) {
        TRY(arena_take(arena, &h->picked, DTYPE_F32, n, d, err));
        TRY(arena_take(arena, &h->stats, DTYPE_F32, n, 2, err));
        GatherTerm picked = {p->tape.x, h->index};
        TRY(gather_forward(device, h->picked, &picked, 1, err)); /* [N, D] */
        TRY(layernorm_forward(device, h->hidden, TENSOR_NONE, h->stats, h->picked, m->norm_w,
                              m->norm_b, eps, err)); /* [N, D] */
    } else {
        GatherTerm picked = {p->tape.h, h->index};
        TRY(gather_forward(device, h->hidden, &picked, 1, err)); /* [N, D] */
    }
    TRY(arena_take(arena, &h->dense, DTYPE_F32, n, d, err));
    TRY(arena_take(arena, &h->active, DTYPE_F32, n, d, err));
    TRY(arena_take(arena, &h->active_stats, DTYPE_F32, n, 2, err));
    TRY(arena_take(arena, &h->features, compute, n, d, err));
    TRY(linear_forward(device, h->dense, h->hidden, m->head_w, m->head_b, 0, false, err));
    TRY(activation_forward(device, h->active, h->dense, ACTIVATION_GELU, err)); /* [N, D] */
    return layernorm_forward(device, h->features, TENSOR_NONE, h->active_stats, h->active,
                             m->head_norm_w, m->head_norm_b, eps, err); /* [N, D] */
}

/* From dfeatures to the residual stream, where rows without a loss have gradient 0. */
static int head_backward(const Pass *p, const Head *h, Error *err) {
    const Xlmr *m = p->m;
    Arena *arena = p->arena;
    Device *device = arena->device;
    Dtype compute = m->params->compute;
    int64_t n = h->features.shape[0], d = h->features.shape[1];
    Tensor dactive = TENSOR_NONE, dhidden = TENSOR_NONE, dpicked;
    if (p->dense) TRY(arena_take(arena, &dactive, DTYPE_F32, n, d, err));
    TRY(layernorm_backward(device, dactive, tensor_grad(m->head_norm_w),
                           tensor_grad(m->head_norm_b), h->dfeatures, h->active, m->head_norm_w,
                           h->active_stats, false, err)); /* [N, D] */
    if (!p->dense) return 0;
    Tensor ddense = dactive;
    if (compute != DTYPE_F32) TRY(arena_take(arena, &ddense, compute, n, d, err));
    TRY(activation_backward(device, ddense, dactive, h->dense, ACTIVATION_GELU, err));
    if (p->norm) TRY(arena_take(arena, &dhidden, DTYPE_F32, n, d, err));
    TRY(linear_backward(device, dhidden, tensor_grad(m->head_w), tensor_grad(m->head_b), ddense,
                        h->hidden, m->head_w, false, err)); /* [N, D] */
    if (!p->norm) return 0;
    dpicked = dhidden;
    if (m->config.block.pre_norm) {
        dpicked = TENSOR_NONE;
        if (p->blocks) TRY(arena_take(arena, &dpicked, DTYPE_F32, n, d, err));
        TRY(layernorm_backward(device, dpicked, tensor_grad(m->norm_w), tensor_grad(m->norm_b),
                               dhidden, h->picked, m->norm_w, h->stats, false, err)); /* [N, D] */
    }
    if (!p->blocks) return 0;
    TRY(device_clear(device, p->dx.data, tensor_bytes(p->dx), err));
    return gather_backward(device, p->dx, dpicked, h->index, err); /* [T, D] */
}

static int head_pass(const Pass *p, float *losses, Error *err) {
    const Xlmr *m = p->m;
    size_t mark = p->arena->used;
    Head h = {0};
    TRY(head_forward(p, &h, err));
    if (p->head)
        TRY(arena_take(p->arena, &h.dfeatures, m->params->compute, h.features.shape[0],
                       h.features.shape[1], err));
    TRY(targets_loss(p->arena, p->targets, losses, h.dfeatures, h.features, m->vocab_w, m->vocab_b,
                     true, err));
    if (p->head) TRY(head_backward(p, &h, err));
    arena_reset(p->arena, mark);
    return 0;
}

static int pass_run(Pass *p, float *losses, Error *err) {
    Device *device = p->arena->device;
    TRY(embed_forward(p, err)); /* [T, D] */
    if (p->blocks) TRY(arena_take(p->arena, &p->dx, DTYPE_F32, p->x.shape[0], p->x.shape[1], err));
    TRY(stack_forward(device, &p->stack, &p->tape, p->arena, p->x, err));
    TRY(head_pass(p, losses, err));
    if (!p->blocks) return 0;
    TRY(stack_backward(device, &p->stack, &p->tape, p->arena, p->dx, err)); /* [T, D] */
    return p->embeddings ? embed_backward(p, err) : 0;
}

/* ---- The loss. ---- */

size_t xlmr_loss_bytes(const Xlmr *m, int tokens, int targets, const TrainRun *run, bool image) {
    const BlockConfig *block = &m->config.block;
    Tensor w, b;
    const bool norm = xlmr_embedding_norm(m, &w, &b);
    if (!run->backward) {
        const size_t head = xlmr_head_bytes(m, targets) + targets_loss_bytes(targets),
                     index = xlmr_rows_bytes(tokens) +
                             (m->words.parts ? parts_gather_bytes(tokens) : 0);
        return block_work_bytes(block, tokens, m->params->compute) +
               (block->rotary ? index + head : largest(index, head));
    }
    Stack stack = make_stack(m, &(AttentionPlan){0}, run, image);
    size_t rows = arena_bytes(DTYPE_F32, tokens, block->width);
    size_t sum = norm ? rows + arena_bytes(DTYPE_F32, tokens, 2) : 0;
    size_t above = largest(head_bytes(m, targets), stack_backward_bytes(&stack, tokens));
    size_t dx = stack.input || stack.lowest < stack.count ? rows : 0;
    return xlmr_rows_bytes(tokens) + rows + dx + sum + stack_tape_bytes(&stack, tokens) +
           largest(above, norm ? rows : 0);
}

static int loss_alone(const Xlmr *m, Arena *arena, const XlmrBatch *batch,
                      const XlmrTargets *targets, float *losses, Error *err) {
    Tensor hidden, features;
    TRY(xlmr_forward(m, arena, batch, &hidden, NULL, err));                          /* [T, D] */
    TRY(xlmr_head(m, arena, hidden, targets->rows, targets->count, &features, err)); /* [N, D] */
    return targets_loss(arena, targets, losses, TENSOR_NONE, features, m->vocab_w, m->vocab_b,
                        false, err);
}

int xlmr_loss(const Xlmr *m, Arena *arena, const XlmrBatch *batch, const XlmrTargets *targets,
              const TrainRun *run, float *losses, Tensor dimage_tokens, Error *err) {
    TRY(xlmr_check_batch(m, batch, err));
    TRY(train_check_targets(batch, targets, m->config.vocab, dimage_tokens, err));
    if (targets->count == 0) return 0;
    size_t mark = arena->used;
    AttentionSpan *local = NULL;
    int status;
    if (run->backward) {
        TRY(block_local_spans(&m->config.block, batch->plan.spans, batch->plan.span_count, &local,
                              err));
        Pass pass = {.m = m,
                     .arena = arena,
                     .batch = batch,
                     .targets = targets,
                     .run = run,
                     .dimage = dimage_tokens,
                     .stack = make_stack(m, &batch->plan, run, dimage_tokens.data)};
        pass.stack.local_spans = local;
        pass_plan(&pass);
        status = pass_run(&pass, losses, err);
        stack_tape_free(&pass.tape);
        free(local);
    } else {
        status = loss_alone(m, arena, batch, targets, losses, err);
    }
    arena_reset(arena, mark);
    return status;
}
