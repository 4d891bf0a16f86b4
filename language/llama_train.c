#include "language/llama_train.h"

#include "language/train_checks.h"

int llama_declare_lora(Llama *m, Params *lora, Error *err) {
    const LlamaConfig *c = &m->config;
    for (int i = 0; i < c->layers; i++) {
        char prefix[LLAMA_PREFIX_SIZE];
        const BlockNames *names = llama_block_names(c, i, prefix);
        TRY(block_declare_lora(&m->blocks[i], &c->block, names, lora, prefix, err));
    }
    return 0;
}

static size_t largest(size_t a, size_t b) {
    return a > b ? a : b;
}

int llama_check_batch(const Llama *m, const XlmrBatch *b, Error *err) {
    return train_check_batch(b, m->config.vocab, m->config.positions, err);
}

/* ---- Forward and backward pass. ---- */

typedef struct Pass {
    const Llama *m;
    Arena *arena;
    const XlmrBatch *batch;
    const XlmrTargets *targets;
    const TrainRun *run;
    Tensor dimage;
    bool blocks, norm; /* gradients go through the blocks; through the final norm or into it */
    XlmrRows rows;
    Tensor x; /* [T, D] f32, input of the first block */
    Stack stack;
    StackTape tape;
    Tensor dx; /* [T, D] f32, of the residual stream */
} Pass;

static Stack make_stack(const Llama *m, const AttentionPlan *plan, const TrainRun *run,
                        bool image) {
    const bool input = image || m->words.grad;
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
                   .lowest = input ? 0 : stack_lowest_trainable(m->blocks, m->config.layers),
                   .input = input};
}

static int embed_forward(Pass *p, Error *err) {
    const Llama *m = p->m;
    TRY(arena_take(p->arena, &p->x, DTYPE_F32, p->batch->tokens, m->config.block.width, err));
    TRY(llama_embed(m, p->arena, p->batch, p->x, &p->rows, err)); /* [T, D] */
    p->stack.rotary = (Rotary){m->turns, p->rows.positions};
    if (p->run->dropout == 0) return 0;
    return dropout_forward(p->arena->device, p->x, p->x, train_embedding_dropout(p->run), false,
                           err);
}

static int embed_backward(Pass *p, Error *err) {
    Device *device = p->arena->device;
    const Tensor dwords = tensor_grad(p->m->words);
    if (p->run->dropout > 0)
        TRY(dropout_forward(device, p->dx, p->dx, train_embedding_dropout(p->run), false, err));
    if (p->m->words.parts)
        TRY(parts_gather_backward(p->arena, p->m->words, p->dx, p->batch->ids, err));
    else if (dwords.data)
        TRY(gather_backward(device, dwords, p->dx, p->rows.ids, err));
    if (!p->dimage.data || !p->batch->image_rows) return 0;
    return gather_backward(device, p->dimage, p->dx, p->rows.image, err);
}

/* The head over the target rows: N of them. */
typedef struct Head {
    Tensor index;         /* [N] */
    Tensor picked, stats; /* [N, D], [N, 2] f32, input of the final norm */
    Tensor hidden;        /* [N, D] c */
    Tensor dhidden;       /* [N, D] c */
    Tensor dpicked;       /* [N, D] f32 */
} Head;

static size_t head_bytes(const Llama *m, int64_t n) {
    const int64_t d = m->config.block.width;
    return arena_bytes(DTYPE_I32, 1, n) + 2 * arena_bytes(DTYPE_F32, n, d) +
           arena_bytes(DTYPE_F32, n, 2) + 2 * arena_bytes(m->params->compute, n, d) +
           targets_loss_bytes((int)n);
}

static int head_forward(const Pass *p, Head *h, Error *err) {
    const Llama *m = p->m;
    Arena *arena = p->arena;
    const int64_t n = p->targets->count, d = m->config.block.width;
    const Dtype compute = m->params->compute;
    TRY(arena_upload(arena, &h->index, DTYPE_I32, n, p->targets->rows, err));
    TRY(arena_take(arena, &h->picked, DTYPE_F32, n, d, err));
    TRY(arena_take(arena, &h->stats, DTYPE_F32, n, 2, err));
    TRY(arena_take(arena, &h->hidden, compute, n, d, err));
    if (p->norm) TRY(arena_take(arena, &h->dhidden, compute, n, d, err));
    if (p->blocks) TRY(arena_take(arena, &h->dpicked, DTYPE_F32, n, d, err));
    const GatherTerm picked = {p->tape.x, h->index};
    TRY(gather_forward(arena->device, h->picked, &picked, 1, err)); /* [N, D] */
    return rmsnorm_forward(arena->device, h->hidden, TENSOR_NONE, h->stats, h->picked, m->norm_w,
                           m->config.block.eps, err); /* [N, D] */
}

/* From dhidden to the residual stream, where rows without a loss have gradient 0. */
static int head_backward(const Pass *p, const Head *h, Error *err) {
    const Llama *m = p->m;
    Device *device = p->arena->device;
    TRY(rmsnorm_backward(device, h->dpicked, tensor_grad(m->norm_w), h->dhidden, h->picked,
                         m->norm_w, h->stats, false, err)); /* [N, D] */
    if (!p->blocks) return 0;
    TRY(device_clear(device, p->dx.data, tensor_bytes(p->dx), err));
    return gather_backward(device, p->dx, h->dpicked, h->index, err); /* [T, D] */
}

static int head_pass(const Pass *p, float *losses, Error *err) {
    const Llama *m = p->m;
    const size_t mark = p->arena->used;
    Head h = {0};
    TRY(head_forward(p, &h, err));
    TRY(targets_loss(p->arena, p->targets, losses, h.dhidden, h.hidden, m->vocab_w, TENSOR_NONE,
                     true, err));
    if (p->norm) TRY(head_backward(p, &h, err));
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
    return p->stack.input ? embed_backward(p, err) : 0;
}

/* ---- The loss. ---- */

size_t llama_loss_bytes(const Llama *m, int tokens, int targets, const TrainRun *run, bool image) {
    const BlockConfig *block = &m->config.block;
    if (!run->backward)
        return llama_work_bytes(m, tokens) + llama_head_bytes(m, targets) +
               targets_loss_bytes(targets) + (m->words.parts ? parts_gather_bytes(tokens) : 0);
    const Stack stack = make_stack(m, &(AttentionPlan){0}, run, image);
    const size_t rows = arena_bytes(DTYPE_F32, tokens, block->width);
    const size_t dx = stack.input || stack.lowest < stack.count ? rows : 0;
    return llama_rows_bytes(tokens) + rows + dx + stack_tape_bytes(&stack, tokens) +
           largest(head_bytes(m, targets), stack_backward_bytes(&stack, tokens));
}

static int loss_alone(const Llama *m, Arena *arena, const XlmrBatch *batch,
                      const XlmrTargets *targets, float *losses, Error *err) {
    Tensor hidden, features;
    TRY(llama_forward(m, arena, batch, &hidden, NULL, err));                          /* [T, D] */
    TRY(llama_head(m, arena, hidden, targets->rows, targets->count, &features, err)); /* [N, D] */
    return targets_loss(arena, targets, losses, TENSOR_NONE, features, m->vocab_w, TENSOR_NONE,
                        false, err);
}

static int loss_with_gradients(const Llama *m, Arena *arena, const XlmrBatch *batch,
                               const XlmrTargets *targets, const TrainRun *run, float *losses,
                               Tensor dimage, Error *err) {
    Pass pass = {.m = m,
                 .arena = arena,
                 .batch = batch,
                 .targets = targets,
                 .run = run,
                 .dimage = dimage,
                 .stack = make_stack(m, &batch->plan, run, dimage.data)};
    pass.blocks = pass.stack.input || pass.stack.lowest < pass.stack.count;
    pass.norm = pass.blocks || m->norm_w.grad;
    const int status = pass_run(&pass, losses, err);
    stack_tape_free(&pass.tape);
    return status;
}

int llama_loss(const Llama *m, Arena *arena, const XlmrBatch *batch, const XlmrTargets *targets,
               const TrainRun *run, float *losses, Tensor dimage_tokens, Error *err) {
    TRY(llama_check_batch(m, batch, err));
    TRY(train_check_targets(batch, targets, m->config.vocab, dimage_tokens, err));
    if (targets->count == 0) return 0;
    const size_t mark = arena->used;
    const int status = run->backward ? loss_with_gradients(m, arena, batch, targets, run, losses,
                                                           dimage_tokens, err)
                                     : loss_alone(m, arena, batch, targets, losses, err);
    arena_reset(arena, mark);
    return status;
}
