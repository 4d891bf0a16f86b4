#include "language/length_train.h"

#include <stdlib.h>

#include "kernels/random.h"

/* The stack of one block. Its random stream differs from the language model's: both may run in one
 * step. */
static Stack make_stack(const LengthPredictor *m, const AttentionSpan *spans, int segments,
                        const TrainRun *run) {
    return (Stack){.config = &m->config,
                   .blocks = &m->block,
                   .count = 1,
                   .compute = m->params->compute,
                   .spans = spans,
                   .span_count = segments,
                   .dropout = {.attention = run->dropout,
                               .hidden = run->dropout,
                               .inner = run->dropout,
                               .seed = run->seed,
                               .stream = random_stream(run->stream, 0, 0, 2)},
                   .recompute = run->recompute,
                   .lowest = stack_lowest_trainable(&m->block, 1)};
}

size_t length_loss_bytes(const LengthPredictor *m, int tokens, int segments, const TrainRun *run) {
    Dtype compute = m->params->compute;
    if (!run->backward)
        return length_work_bytes(m, tokens, segments) + targets_loss_bytes(segments);
    Stack stack = make_stack(m, NULL, segments, run);
    size_t rows = arena_bytes(DTYPE_F32, tokens, m->config.width);
    size_t head = arena_bytes(compute, segments, m->config.width) +
                  arena_bytes(DTYPE_F32, segments, m->config.ffn) +
                  2 * arena_bytes(compute, segments, m->config.ffn);
    size_t loss = targets_loss_bytes(segments);
    size_t dmean = arena_bytes(DTYPE_F32, segments, m->config.width);
    size_t above = head + (loss > dmean ? loss : dmean),
           below = stack_backward_bytes(&stack, tokens);
    return 2 * rows + stack_tape_bytes(&stack, tokens) + (above > below ? above : below);
}

static bool has_grad(Tensor a, Tensor b) {
    return a.grad || b.grad;
}

/* The mean of each prompt and the layers after it: forward, loss and backward to the rows, dx [T,
 * D]. */
static int head_pass(const LengthPredictor *m, Arena *arena, Tensor x, Tensor dx, bool blocks,
                     const int32_t *begin, const XlmrTargets *targets, float *losses, Error *err) {
    Device *device = arena->device;
    Dtype compute = m->params->compute;
    int64_t n = targets->count, d = m->config.width, f = m->config.ffn;
    size_t mark = arena->used;
    Tensor mean, dense, active, dactive = TENSOR_NONE, dmean = TENSOR_NONE;
    TRY(arena_take(arena, &mean, compute, n, d, err));
    TRY(arena_take(arena, &dense, DTYPE_F32, n, f, err));
    TRY(arena_take(arena, &active, compute, n, f, err));
    TRY(segment_mean_forward(device, mean, x, begin, (int)n, err));                    /* [S, D] */
    TRY(linear_forward(device, dense, mean, m->hidden_w, m->hidden_b, 0, false, err)); /* [S, F] */
    TRY(activation_forward(device, active, dense, ACTIVATION_TANH, err));
    bool wanted = blocks || has_grad(m->hidden_w, m->hidden_b);
    if (wanted) TRY(arena_take(arena, &dactive, compute, n, f, err));
    TRY(targets_loss(arena, targets, losses, dactive, active, m->class_w, m->class_b, true, err));
    if (wanted) {
        TRY(activation_backward(device, dactive, dactive, dense, ACTIVATION_TANH, err));
        if (blocks) TRY(arena_take(arena, &dmean, DTYPE_F32, n, d, err));
        TRY(linear_backward(device, dmean, tensor_grad(m->hidden_w), tensor_grad(m->hidden_b),
                            dactive, mean, m->hidden_w, false, err)); /* [S, D] */
    }
    if (blocks) TRY(segment_mean_backward(device, dx, dmean, begin, (int)n, err)); /* [T, D] */
    arena_reset(arena, mark);
    return 0;
}

static int pass_run(const LengthPredictor *m, Arena *arena, const Stack *stack, StackTape *tape,
                    Tensor hidden, const int32_t *begin, const XlmrTargets *targets, float *losses,
                    Error *err) {
    Device *device = arena->device;
    int64_t rows = hidden.shape[0], d = m->config.width;
    bool blocks = stack->lowest == 0;
    Tensor x, dx = TENSOR_NONE;
    TRY(arena_take(arena, &x, DTYPE_F32, rows, d, err));
    TRY(convert_forward(device, x, hidden, err)); /* [T, D] */
    TRY(stack_forward(device, stack, tape, arena, x, err));
    if (blocks) TRY(arena_take(arena, &dx, DTYPE_F32, rows, d, err));
    TRY(head_pass(m, arena, tape->x, dx, blocks, begin, targets, losses, err));
    return blocks ? stack_backward(device, stack, tape, arena, dx, err) : 0;
}

static int loss_alone(const LengthPredictor *m, Arena *arena, Tensor hidden, const int32_t *begin,
                      const XlmrTargets *targets, float *losses, Error *err) {
    Tensor features;
    TRY(length_features(m, arena, &features, hidden, begin, targets->count, err)); /* [S, F] */
    return targets_loss(arena, targets, losses, TENSOR_NONE, features, m->class_w, m->class_b,
                        false, err);
}

static int check_prompts(const LengthPredictor *m, int64_t rows, const int32_t *begin, int segments,
                         const int32_t *classes, Error *err) {
    if (begin[0] != 0 || begin[segments] != rows)
        return error_set(err, "length predictor: prompts are rows %d to %d, expected all %lld",
                         begin[0], begin[segments], (long long)rows);
    for (int s = 0; s < segments; s++) {
        if (begin[s] >= begin[s + 1])
            return error_set(err, "length predictor: prompt %d has no rows", s);
        if (classes[s] < 0 || classes[s] >= m->classes)
            return error_set(err, "length predictor: prompt %d has class %d, expected 0 to %d", s,
                             classes[s], m->classes - 1);
    }
    return 0;
}

int length_loss(const LengthPredictor *m, Arena *arena, Tensor hidden, const int32_t *begin,
                int segments, const int32_t *classes, float weight, const TrainRun *run,
                float *losses, Error *err) {
    if (segments < 1) return 0;
    TRY(check_prompts(m, hidden.shape[0], begin, segments, classes, err));
    float *weights = malloc((size_t)segments * sizeof *weights);
    AttentionSpan *spans = length_spans(begin, segments);
    size_t mark = arena->used;
    int status;
    if (!weights || !spans) {
        status = error_set(err, "out of memory for %d prompts", segments);
    } else {
        for (int s = 0; s < segments; s++) weights[s] = weight;
        XlmrTargets targets = {.count = segments, .ids = classes, .weights = weights};
        StackTape tape = {0};
        Stack stack = make_stack(m, spans, segments, run);
        status = run->backward
                     ? pass_run(m, arena, &stack, &tape, hidden, begin, &targets, losses, err)
                     : loss_alone(m, arena, hidden, begin, &targets, losses, err);
        stack_tape_free(&tape);
    }
    free(weights), free(spans);
    arena_reset(arena, mark);
    return status;
}
