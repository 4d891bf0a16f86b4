/* xlmr_train.h - XLM-R in training: loss on picked rows, and the gradients of everything
 * trainable. */
#ifndef EASYFIRST_LANGUAGE_XLMR_TRAIN_H
#define EASYFIRST_LANGUAGE_XLMR_TRAIN_H

#include "kernels/stack.h"
#include "language/xlmr.h"

/* Declares LoRA matrices for all blocks, as model->config.block.lora says, in a table of their own.
 * After xlmr_declare. */
int xlmr_declare_lora(Xlmr *xlmr, Params *lora, Error *err);

/* How a training pass is run. */
typedef struct TrainRun {
    float dropout;         /* on embeddings, on the softmax and on both parts of a block */
    uint64_t seed, stream; /* of the dropout; another stream in every pass */
    bool recompute;        /* keep block inputs only */
    bool backward;         /* false: the loss alone, without dropout, gradients and tape; the
                              parameters may then be those of params_prepare, too */
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
 * have a loss; `image`: with dimage_tokens. A pass that gradients do not take further down than the
 * head needs a little less. Ask when params_train or params_prepare has filled the slots. */
size_t xlmr_loss_bytes(const Xlmr *xlmr, int tokens, int targets, const TrainRun *run, bool image);

/* losses [count] (host) of the rows; with run->backward the gradients of sum(losses) are added to
 * those of the trainable parameters (params_train) and, where dimage_tokens is present, to it: [R,
 * D] f32 on the device, as batch->image_tokens (several rows of the batch may read one of these).
 * Weights must be plain for what gradients have to pass (params_train); the lowest blocks and the
 * embeddings are not walked if nothing below needs a gradient. The batch has no cache. Ids, rows
 * and positions that the model does not have are refused. The arena is left as it was. */
int xlmr_loss(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, const XlmrTargets *targets,
              const TrainRun *run, float *losses, Tensor dimage_tokens, Error *err);

/* Refuses ids, positions and image rows that the model or the batch does not have. */
int xlmr_check_batch(const Xlmr *xlmr, const XlmrBatch *batch, Error *err);

/* ---- Shared with the length predictor. ---- */

/* vocab_cross_entropy of x's rows with the targets' ids, weights and smoothing (their `rows` are
 * not looked at): losses [count] to the host, dx and the gradients of w and b as there, the latter
 * two where `backward` is set and they have some. The arena is left as it was. */
int targets_loss(Arena *arena, const XlmrTargets *targets, float *losses, Tensor dx, Tensor x,
                 Tensor w, Tensor b, bool backward, Error *err);
size_t targets_loss_bytes(int count);

#endif
