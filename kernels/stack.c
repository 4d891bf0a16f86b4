#include "kernels/stack.h"

#include "kernels/block_train.h"

#include <stdlib.h>

/* ---- Memory. ---- */

/* Whether a block's input must be kept unchanged: else the block adds to it in place (post-LN). */
static bool owns_input(const Stack *stack, int i) {
    return stack->recompute || i <= stack->lowest;
}

/* The tape of block i. The input of block `lowest` is the caller's x. */
static int tape_specs(TensorSpec *specs, BlockTape *tape, const Stack *stack, int i) {
    int n = 0;
    if (i < stack->lowest) return 0;
    if (i > stack->lowest) specs[n++] = (TensorSpec){&tape->x, DTYPE_F32, stack->config->width};
    if (!stack->recompute) n += block_tape_specs(specs + n, tape, stack, i, owns_input(stack, i));
    return n;
}

static int output_specs(TensorSpec *specs, StackTape *tape, const Stack *stack) {
    const BlockConfig *c = stack->config;
    int n = 0;
    if (stack->lowest < stack->count) specs[n++] = (TensorSpec){&tape->x, DTYPE_F32, c->width};
    if (!c->pre_norm && stack->compute != DTYPE_F32)
        specs[n++] = (TensorSpec){&tape->h, stack->compute, c->width};
    return n;
}

/* Whether a block's tape is temporary: below `lowest`, and with activation checkpointing always. */
static bool passing(const Stack *stack, int i) {
    return stack->recompute || i < stack->lowest;
}

static size_t scratch_bytes(const Stack *stack, int first, int end, int64_t rows) {
    TensorSpec specs[BLOCK_SPECS];
    BlockScratch scratch;
    return tensor_specs_bytes(specs, scratch_specs(specs, &scratch, stack, first, end), rows);
}

size_t stack_tape_bytes(const Stack *stack, int64_t rows) {
    TensorSpec specs[BLOCK_SPECS];
    BlockTape block;
    StackTape tape;
    size_t bytes = tensor_specs_bytes(specs, output_specs(specs, &tape, stack), rows);
    for (int i = 0; i < stack->count; i++)
        bytes += tensor_specs_bytes(specs, tape_specs(specs, &block, stack, i), rows);
    return bytes;
}

size_t stack_backward_bytes(const Stack *stack, int64_t rows) {
    TensorSpec specs[BLOCK_SPECS];
    BlockTape tape;
    size_t most = 0;
    if (!stack->recompute && stack->lowest < stack->count)
        most = scratch_bytes(stack, stack->lowest, stack->count, rows);
    for (int i = 0; i < stack->count; i++) {
        size_t bytes = i < stack->lowest ? 0 : block_train_backward_bytes(stack, i, rows);
        if (passing(stack, i)) {
            const size_t forward = scratch_bytes(stack, i, i + 1, rows);
            if (bytes < forward) bytes = forward;
            bytes +=
                tensor_specs_bytes(specs, block_tape_specs(specs, &tape, stack, i, true), rows);
        }
        if (most < bytes) most = bytes;
    }
    return most;
}

static int scratch_take(BlockScratch *scratch, const Stack *stack, int first, int end, Arena *arena,
                        int64_t rows, Error *err) {
    TensorSpec specs[BLOCK_SPECS];
    *scratch = (BlockScratch){0};
    return tensor_specs_take(specs, scratch_specs(specs, scratch, stack, first, end), arena, rows,
                             err);
}

static int tape_take(const Stack *stack, StackTape *tape, Arena *arena, Tensor x, Error *err) {
    TensorSpec specs[BLOCK_SPECS];
    const int64_t rows = x.shape[0];
    for (int i = 0; i < stack->count && i <= stack->lowest; i++) tape->blocks[i].x = x;
    for (int i = 0; i < stack->count; i++)
        TRY(tensor_specs_take(specs, tape_specs(specs, &tape->blocks[i], stack, i), arena, rows,
                              err));
    if (stack->lowest == stack->count) tape->x = x;
    TRY(tensor_specs_take(specs, output_specs(specs, tape, stack), arena, rows, err));
    if (!stack->config->pre_norm && stack->compute == DTYPE_F32) tape->h = tape->x;
    return 0;
}

/* ---- Forward. ---- */

static int check_stack(const Stack *stack, Tensor x, Error *err) {
    const StackDropout *d = &stack->dropout;
    const float p[] = {d->attention, d->hidden, d->inner};
    if (stack->count < 1) return error_set(err, "stack: %d blocks, expected some", stack->count);
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        if (!(p[i] >= 0 && p[i] < 1))
            return error_set(err, "stack: dropout is %g, expected 0 <= p < 1", (double)p[i]);
    if (!x.data || x.dtype != DTYPE_F32 || x.ndim != 2 || x.shape[1] != stack->config->width)
        return error_set(err, "stack: x is not a matrix [rows, %d] of f32", stack->config->width);
    if (stack->lowest < 0 || stack->lowest > stack->count)
        return error_set(err, "stack: lowest is block %d of %d", stack->lowest, stack->count);
    /* A row in no span would leave garbage on the tape. */
    int64_t queries = 0;
    for (int i = 0; i < stack->span_count; i++)
        queries += stack->spans[i].q_end - stack->spans[i].q_begin;
    if (queries != x.shape[0])
        return error_set(err, "stack: the spans have %lld queries for %lld rows, expected as many",
                         (long long)queries, (long long)x.shape[0]);
    return 0;
}

/* Where block i writes its output: into the input of the next. In a post-LN model also into the
 * input of its matmuls, unless that block computes it itself. */
static void outputs_of(const Stack *stack, const StackTape *tape, int i, Tensor *x, Tensor *h) {
    const bool last = i + 1 == stack->count;
    *x = last ? tape->x : tape->blocks[i + 1].x;
    *h = TENSOR_NONE;
    if (stack->config->pre_norm) return;
    if (last && tape->h.data != tape->x.data) *h = tape->h;
    if (!last && !owns_input(stack, i + 1)) *h = tape->blocks[i + 1].h1;
}

/* Blocks [first, count), at least one, whose tapes are kept. */
static int forward_kept(Device *device, const Stack *stack, int first, StackTape *tape,
                        Arena *arena, int64_t rows, Error *err) {
    BlockScratch scratch;
    Tensor x, h;
    TRY(scratch_take(&scratch, stack, first, stack->count, arena, rows, err));
    for (int i = first; i < stack->count; i++)
        block_tape_link(&tape->blocks[i], stack, owns_input(stack, i), &scratch);
    for (int i = first; i < stack->count; i++) {
        outputs_of(stack, tape, i, &x, &h);
        TRY(block_train_forward(device, stack, i, &tape->blocks[i], scratch.temp, x, h, err));
    }
    for (int i = first; i < stack->count; i++) block_tape_unlink(&tape->blocks[i], &scratch);
    return 0;
}

/* Runs a block again from its input, for a temporary tape; the arena keeps the tape, not the
 * scratch. */
static int forward_again(Device *device, const Stack *stack, int i, BlockTape *tape, Arena *arena,
                         Tensor x, Tensor h, Error *err) {
    TensorSpec specs[BLOCK_SPECS];
    const int64_t count = tape->x.shape[0];
    TRY(tensor_specs_take(specs, block_tape_specs(specs, tape, stack, i, true), arena, count, err));
    const size_t kept = arena->used;
    BlockScratch scratch;
    TRY(scratch_take(&scratch, stack, i, i + 1, arena, count, err));
    block_tape_link(tape, stack, true, &scratch);
    TRY(block_train_forward(device, stack, i, tape, scratch.temp, x, h, err));
    block_tape_unlink(tape, &scratch);
    arena_reset(arena, kept);
    return 0;
}

static int forward_all(Device *device, const Stack *stack, StackTape *tape, Arena *arena,
                       int64_t rows, Error *err) {
    const size_t used = arena->used;
    Tensor x, h;
    int i = 0;
    for (; i < stack->count && passing(stack, i); i++) {
        BlockTape gone = tape->blocks[i];
        outputs_of(stack, tape, i, &x, &h);
        TRY(forward_again(device, stack, i, &gone, arena, x, h, err));
        arena_reset(arena, used);
    }
    return i < stack->count ? forward_kept(device, stack, i, tape, arena, rows, err) : 0;
}

int stack_forward(Device *device, const Stack *stack, StackTape *tape, Arena *arena, Tensor x,
                  Error *err) {
    *tape = (StackTape){0};
    TRY(check_stack(stack, x, err));
    const size_t before = arena->used;
    tape->blocks = calloc((size_t)stack->count, sizeof *tape->blocks);
    if (!tape->blocks) return error_set(err, "out of memory: a tape of %d blocks", stack->count);
    tape->count = stack->count;
    int status = tape_take(stack, tape, arena, x, err);
    const size_t kept = arena->used;
    if (status == 0) status = forward_all(device, stack, tape, arena, x.shape[0], err);
    arena_reset(arena, status == 0 ? kept : before);
    if (status != 0) stack_tape_free(tape);
    return status;
}

/* ---- Backward. ---- */

static int block_backward(Device *device, const Stack *stack, int i, const StackTape *tape,
                          Arena *arena, Tensor dx, bool input, Error *err) {
    BlockTape block = tape->blocks[i];
    if (stack->recompute)
        TRY(forward_again(device, stack, i, &block, arena, TENSOR_NONE, TENSOR_NONE, err));
    return block_train_backward(device, stack, i, &block, arena, dx, input, err);
}

int stack_backward(Device *device, const Stack *stack, const StackTape *tape, Arena *arena,
                   Tensor dx, Error *err) {
    if (tape->count != stack->count || !tape->blocks)
        return error_set(err, "stack: a tape of %d blocks for a stack of %d", tape->count,
                         stack->count);
    if (!dx.data || dx.dtype != DTYPE_F32 || !tensor_same_shape(dx, tape->x))
        return error_set(err, "stack: dx is not a matrix [%lld, %lld] of f32",
                         (long long)tape->x.shape[0], (long long)tape->x.shape[1]);
    const size_t before = arena->used;
    int status = 0;
    for (int i = stack->count - 1; status == 0 && i >= stack->lowest; i--) {
        const bool input = stack->input || i > stack->lowest;
        status = block_backward(device, stack, i, tape, arena, dx, input, err);
        arena_reset(arena, before);
        if (status == 0 && stack->left.call)
            status = stack->left.call(stack->left.user, &stack->blocks[i], err);
    }
    return status;
}

void stack_tape_free(StackTape *tape) {
    free(tape->blocks);
    *tape = (StackTape){0};
}

int stack_lowest_trainable(const Block *blocks, int count) {
    int i = 0;
    while (i < count && !block_trainable(&blocks[i])) i++;
    return i;
}
