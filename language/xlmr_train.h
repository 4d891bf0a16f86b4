/* xlmr_train.h - XLM-R in training: loss on selected rows, and the gradients of all trainable
 * parameters. */
#ifndef EASYFIRST_LANGUAGE_XLMR_TRAIN_H
#define EASYFIRST_LANGUAGE_XLMR_TRAIN_H

#include "kernels/stack.h"
#include "language/xlmr.h"

/* Declares LoRA matrices for all blocks, as xlmr->config.block.lora says, in a separate table.
 * After xlmr_declare. */
int xlmr_declare_lora(Xlmr *xlmr, Params *lora, Error *err);

/* Settings of a forward and backward pass. */
typedef struct TrainRun {
    float dropout;         /* on embeddings, on the softmax and on both parts of a block */
    uint64_t seed, stream; /* of the dropout; a different stream in every micro-batch */
    bool recompute;        /* activation checkpointing: keep block inputs only */
    bool backward;         /* false: the loss only, without dropout, gradients and tape; the
                              parameters may then also be prepared by params_prepare */
    BlockLeft left;        /* stack.h */
} TrainRun;

/* The rows that have a loss; see vocab_cross_entropy. All on the host. */
typedef struct XlmrTargets {
    int count;
    const int32_t *rows;                      /* [count], rows of the batch */
    const int32_t *ids;                       /* [count] */
    const float *weights, *smoothing_weights; /* [count]; the second NULL without smoothing */
    float smoothing;
} XlmrTargets;

/* Arena bytes that xlmr_loss takes for batches of at most `tokens` rows, of which at most `targets`
 * have a loss; `image`: with dimage_tokens. If gradients go no further down than the head, it takes
 * a little less. Call it after params_train or params_prepare has filled the slots. */
size_t xlmr_loss_bytes(const Xlmr *xlmr, int tokens, int targets, const TrainRun *run, bool image);

/* losses [count] (host) of the rows; with run->backward the gradients of sum(losses) are added to
 * those of the trainable parameters (params_train) and, if dimage_tokens is present, to it: [R, D]
 * f32 on the device, as batch->image_tokens (several rows of the batch may read one of these).
 * Weights that gradients pass through must be plain (params_train); the backward pass skips the
 * lowest blocks and the embeddings if nothing there needs a gradient. The batch has no cache. Ids,
 * rows and positions that the model does not have are refused. The arena is left unchanged. */
int xlmr_loss(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, const XlmrTargets *targets,
              const TrainRun *run, float *losses, Tensor dimage_tokens, Error *err);

/* Refuses ids, positions and image rows that the model or the batch does not have. */
int xlmr_check_batch(const Xlmr *xlmr, const XlmrBatch *batch, Error *err);

/* ---- Shared with the length predictor. ---- */

/* vocab_cross_entropy of x's rows with the targets' ids, weights and smoothing (their `rows` are
 * ignored): losses [count] to the host, dx and the gradients of w and b as there, the latter two if
 * `backward` is set and they have some. The arena is left unchanged. */
int targets_loss(Arena *arena, const XlmrTargets *targets, float *losses, Tensor dx, Tensor x,
                 Tensor w, Tensor b, bool backward, Error *err);
size_t targets_loss_bytes(int count);

#endif
