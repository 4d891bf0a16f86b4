/* block_train.h - one block of a stack in training: what it keeps, its forward and its backward.
 * Private to kernels/; stack.h is the way in.
 *
 *   pre-LN                              post-LN
 *   h1 = LN1(x)                         n1 = x + out(att)
 *   att = attention(qkv = qkv(h1))      h2 = LN1(n1)
 *   n2 = x + out(att)
 *   h2 = LN2(n2)                        n2 = h2 + fc2(act)
 *   act = activation(pre = fc1(h2))     x' = LN2(n2), and h1' = x' in the compute type
 *   x' = n2 + fc2(act)
 */
#ifndef EASYFIRST_KERNELS_BLOCK_TRAIN_H
#define EASYFIRST_KERNELS_BLOCK_TRAIN_H

#include "kernels/stack.h"

/* T rows. Several names may stand for one tensor: in a pre-LN model n1 is x, in a post-LN model x
 * may be written over to become n1, and in f32 h1 may be x. */
typedef struct BlockTape {
    Tensor x;                 /* [T, D] f32, the block's input, where the block before wrote it */
    Tensor h1, h2;            /* [T, D] c, the inputs of qkv and of fc1 */
    Tensor qkv, att, lse;     /* [T, 3D] c, [T, D] c, [T, H] f32 */
    Tensor pre, act;          /* [T, F] c, before and after the activation */
    Tensor n1, n2;            /* [T, D] f32, the inputs of the two LayerNorms */
    Tensor stats1, stats2;    /* [T, 2] f32 */
    Tensor low[LORA_TARGETS]; /* [T, rank] c, (alpha / rank) x A^T */
} BlockTape;

/* What a forward needs for a moment. Inputs of matmuls whose weights are frozen have no use in the
 * backward; all blocks share the memory for them. */
typedef struct BlockScratch {
    Tensor h;    /* [T, D] c, h1 and h2 of a tape that does not keep them */
    Tensor act;  /* [T, F] c */
    Tensor temp; /* [T, D] c */
} BlockScratch;

/* A tensor to take from an arena: [rows, columns]. */
typedef struct Room {
    Tensor *t;
    Dtype dtype;
    int64_t columns;
} Room;

/* Takes them all, or fails and leaves the arena as it was. */
int rooms_take(const Room *rooms, int count, Arena *arena, int64_t rows, Error *err);
size_t rooms_bytes(const Room *rooms, int count, int64_t rows);

enum { BLOCK_ROOMS = 16 + LORA_TARGETS };

/* The one list of what a tape takes but for x, for taking it and for counting it: returns how many
 * rooms it wrote, at most BLOCK_ROOMS. `own` tells that x must stay as it is and that nobody has
 * written h1: the block is the first of its stack, or recomputed from x alone. */
int block_rooms(Room *rooms, BlockTape *tape, const Stack *stack, int i, bool own);

/* Likewise of what the forward of blocks [first, end) takes. */
int scratch_rooms(Room *rooms, BlockScratch *scratch, const Stack *stack, int first, int end);

/* Gives the tensors that are others' (see above) or the scratch's to a tape that has x and its
 * rooms; and takes the scratch's away again. */
void block_tape_link(BlockTape *tape, const Stack *stack, bool own, const BlockScratch *scratch);
void block_tape_unlink(BlockTape *tape, const BlockScratch *scratch);

/* x_out [T, D] f32 takes the block's output and h_out [T, D] c (post-LN only, may be left out) the
 * same in another type. Without x_out only the tape is filled. */
int block_train_forward(Device *device, const Stack *stack, int i, const BlockTape *tape,
                        Tensor temp, Tensor x_out, Tensor h_out, Error *err);

/* dx [T, D] f32: the gradient of the output in, that of the input out; see stack_backward for
 * `input`. The arena is left as it was. */
int block_train_backward(Device *device, const Stack *stack, int i, const BlockTape *tape,
                         Arena *arena, Tensor dx, bool input, Error *err);
size_t block_train_backward_bytes(const Stack *stack, int i, int64_t rows);

bool block_trainable(const Block *block);

#endif
