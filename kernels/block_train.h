/* block_train.h - one block of a stack in training: its tape, forward and backward pass. Private to
 * kernels/; the interface is stack.h.
 *
 *   pre-LN                              post-LN
 *   h1 = LN1(x)                         n1 = x + out(att)
 *   att = attention(qkv = qkv(h1))      h2 = LN1(n1)
 *   n2 = x + out(att)
 *   h2 = LN2(n2)                        n2 = h2 + fc2(act)
 *   act = activation(pre = fc1(h2))     x' = LN2(n2), and h1' = x' in the compute type
 *   x' = n2 + fc2(act)
 *
 * With rotary positions the q and k of qkv are turned. In a gated block pre is gate and up.
 */
#ifndef EASYFIRST_KERNELS_BLOCK_TRAIN_H
#define EASYFIRST_KERNELS_BLOCK_TRAIN_H

#include "kernels/stack.h"

/* T rows. Names may alias: in a pre-LN model n1 is x, in a post-LN model x may be overwritten to
 * become n1, and in f32 h1 may be x. */
typedef struct BlockTape {
    Tensor x;              /* [T, D] f32, the block's input, where the previous block wrote it */
    Tensor h1, h2;         /* [T, D] c, the inputs of qkv and of fc1 */
    Tensor qkv, att, lse;  /* [T, 3D] c, [T, D] c, [T, H] f32 */
    Tensor pre, act;       /* [T, F] c (gated: pre [T, 2F]), before and after the activation */
    Tensor n1, n2;         /* [T, D] f32, the inputs of the two LayerNorms */
    Tensor stats1, stats2; /* [T, 2] f32 */
    Tensor low[LORA_MATRICES]; /* [T, rank] c, (alpha / rank) x A^T */
} BlockTape;

/* Temporaries of the forward pass. The backward pass does not need the inputs of matmuls whose
 * weights are frozen; all blocks share the memory for them. */
typedef struct BlockScratch {
    Tensor h;    /* [T, D] c, h1 and h2 of a tape that does not keep them */
    Tensor act;  /* [T, F] c */
    Tensor temp; /* [T, D] c */
} BlockScratch;

/* A tensor to take from an arena: [rows, columns]. */
typedef struct TensorSpec {
    Tensor *t;
    Dtype dtype;
    int64_t columns;
} TensorSpec;

/* Takes them all, or fails and leaves the arena unchanged. */
int tensor_specs_take(const TensorSpec *specs, int count, Arena *arena, int64_t rows, Error *err);
size_t tensor_specs_bytes(const TensorSpec *specs, int count, int64_t rows);

enum { BLOCK_SPECS = 16 + LORA_MATRICES };

/* The one list of a tape's tensors except x, for allocating and for counting: returns how many
 * specs it wrote, at most BLOCK_SPECS. `own`: x must not be overwritten and h1 is not written yet,
 * because the block is the first of its stack or recomputed from x alone. */
int block_tape_specs(TensorSpec *specs, BlockTape *tape, const Stack *stack, int i, bool own);

/* The same for the temporaries of the forward pass of blocks [first, end). */
int scratch_specs(TensorSpec *specs, BlockScratch *scratch, const Stack *stack, int first, int end);

/* link sets the tape's aliases (see above) and its tensors in the scratch, once x and its own
 * tensors are set; unlink clears those in the scratch. */
void block_tape_link(BlockTape *tape, const Stack *stack, bool own, const BlockScratch *scratch);
void block_tape_unlink(BlockTape *tape, const BlockScratch *scratch);

/* x_out [T, D] f32 receives the block's output and h_out [T, D] c (post-LN only, optional) the same
 * in the compute type. Without x_out only the tape is filled. */
int block_train_forward(Device *device, const Stack *stack, int i, const BlockTape *tape,
                        Tensor temp, Tensor x_out, Tensor h_out, Error *err);

/* dx [T, D] f32: in, the gradient of the output; out, that of the input; see stack_backward for
 * `input`. The arena is left unchanged. */
int block_train_backward(Device *device, const Stack *stack, int i, const BlockTape *tape,
                         Arena *arena, Tensor dx, bool input, Error *err);
size_t block_train_backward_bytes(const Stack *stack, int i, int64_t rows);

bool block_trainable(const Block *block);

#endif
