/* stack.h - a stack of transformer blocks in training: forward with a tape, and backward.
 *
 * The forward pass keeps, for each block, the activations that its backward pass reads: the tape.
 * The backward pass goes from the last block to the first, adds to the gradients of the weights
 * that have some (Tensor.grad), and turns the gradient of the output into that of the input. With
 * activation checkpointing (`recompute`) the tape of a block is its input alone, and the backward
 * pass first runs the block's forward again: the same operations on the same values, so the
 * gradients have the same bits.
 *
 * Dropout is where the public models have it: on the softmax (`attention`), on what the attention
 * and feed-forward parts add to the residual stream (`hidden`), and, in torch's
 * TransformerEncoderLayer only, on the activation within the feed-forward part (`inner`). Its
 * random streams are random_stream(stream, block, place, 0), `block` counted within the stack,
 * `place` a StackPlace: with its own stream every step differs.
 *
 * LoRA (Hu et al., 2021) adds to a frozen matrix the product of two low-rank ones; see block.h.
 */
#ifndef EASYFIRST_KERNELS_STACK_H
#define EASYFIRST_KERNELS_STACK_H

#include "kernels/block.h"

typedef enum StackPlace {
    STACK_SOFTMAX,
    STACK_ATTENTION, /* what the attention part adds to the stream */
    STACK_INNER,
    STACK_FEED_FORWARD /* what the feed-forward part adds */
} StackPlace;

/* Probabilities, 0 <= p < 1. */
typedef struct StackDropout {
    float attention, hidden, inner;
    uint64_t seed, stream;
} StackDropout;

/* What is called when the backward pass has left a block: its gradients are complete for this pass
 * (comm/share.h). NULL: nothing. */
typedef struct BlockLeft {
    int (*call)(void *user, const void *block, Error *err);
    void *user;
} BlockLeft;

/* One run of a stack. */
typedef struct Stack {
    const BlockConfig *config;
    const Block *blocks; /* [count] */
    int count;
    Dtype compute;
    /* Key ranges are rows of the batch, each row is a query of one span; they must outlive the
     * backward pass. */
    const AttentionSpan *spans;
    int span_count;
    StackDropout dropout;
    bool recompute;
    /* The backward pass ends at block `lowest`, and nothing is kept of the blocks below: 0 for all,
     * the first trainable block for a stack whose lower blocks are frozen, `count` for none.
     * `input`: also compute the gradient of that block's input. */
    int lowest;
    bool input;
    Rotary rotary; /* with config->rotary */
    /* Of local blocks (block_local_spans), `i` counted within the stack; as long-lived as spans. */
    const AttentionSpan *local_spans;
    Rotary local_rotary;
    BlockLeft left;
} Stack;

/* What a forward pass has kept; its tensors are in the arena, or the x that was passed. */
typedef struct StackTape {
    struct BlockTape *blocks; /* [count], on the heap: stack_tape_free */
    int count;
    Tensor x; /* [T, D] f32: the residual stream after the last block */
    Tensor h; /* [T, D] c: the same in the compute type, in a post-LN model only (may be x) */
} StackTape;

/* Arena bytes for `rows` rows, exactly: the tape (allocated by stack_forward and kept by the caller
 * until the backward pass is done), and on top of it the most that stack_backward, and
 * stack_forward itself, use while they run. A tape is smaller where weights are frozen, since the
 * inputs of their matmuls are not needed: call these when the blocks' slots are filled. */
size_t stack_tape_bytes(const Stack *stack, int64_t rows);
size_t stack_backward_bytes(const Stack *stack, int64_t rows);

/* x [T, D] f32 is the first block's input. It is kept in the tape, and must be neither changed nor
 * freed before the backward pass; with lowest > 0 the residual stream through the blocks below
 * overwrites it. After a failure there is no tape, and the arena is unchanged. */
int stack_forward(Device *device, const Stack *stack, StackTape *tape, Arena *arena, Tensor x,
                  Error *err);

/* dx [T, D] f32: in, the gradient of tape->x; out, that of the input of block stack->lowest. If
 * stack->input is false that last part is not computed, and dx is undefined. The arena is left
 * unchanged. */
int stack_backward(Device *device, const Stack *stack, const StackTape *tape, Arena *arena,
                   Tensor dx, Error *err);

void stack_tape_free(StackTape *tape);

/* The first block that has a trainable weight; count if none has. */
int stack_lowest_trainable(const Block *blocks, int count);

#endif
