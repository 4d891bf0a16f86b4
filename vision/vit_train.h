/* vit_train.h - the vision tower in training (LLaVA's stages keep it frozen). CLIP has no dropout.
 */
#ifndef EASYFIRST_VISION_VIT_TRAIN_H
#define EASYFIRST_VISION_VIT_TRAIN_H

#include "kernels/stack.h"
#include "vision/vit_rows.h"

/* What a forward pass has kept; its tensors are in the arena. */
typedef struct VitTape {
    VitRows rows;
    Tensor flat;       /* [B * P, 3 * patch * patch] c, input of the patch embedding */
    Tensor sum, stats; /* [B * (1 + P), D], [.., 2] f32, input of the first LayerNorm */
    Tensor x;          /* [B * (1 + P), D] f32, input of the first block */
    Stack stack;
    StackTape tape;
} VitTape;

/* Arena bytes that the forward pass takes and that stay allocated until the backward pass is done,
 * and the most that either uses on top while it runs. As for a stack's tape, call these when the
 * slots are filled. */
size_t vit_tape_bytes(const Vit *vit, int images, bool recompute);
size_t vit_backward_bytes(const Vit *vit, int images, bool recompute);

/* vit_forward that keeps what the backward needs: in the arena, until the caller resets it, and on
 * the heap, until vit_tape_free (which is called after a failure, too). features [B * rows, D] f32
 * or c. */
int vit_train_forward(const Vit *vit, Arena *arena, Tensor features, Tensor pixels, bool recompute,
                      VitTape *tape, Error *err);

/* Adds to the gradients of the trainable parameters. dfeatures [B * rows, D] f32 or c. The arena is
 * left unchanged. */
int vit_train_backward(const Vit *vit, Arena *arena, const VitTape *tape, Tensor dfeatures,
                       Error *err);
void vit_tape_free(VitTape *tape);

#endif
