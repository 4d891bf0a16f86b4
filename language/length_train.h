/* length_train.h - trains the length predictor on the hidden states of a frozen language model. */
#ifndef EASYFIRST_LANGUAGE_LENGTH_TRAIN_H
#define EASYFIRST_LANGUAGE_LENGTH_TRAIN_H

#include "language/length.h"
#include "language/xlmr_train.h"

/* Arena bytes that length_loss takes. */
size_t length_loss_bytes(const LengthPredictor *length, int tokens, int segments,
                         const TrainRun *run);

/* Cross-entropy of each prompt's length: hidden [T, D] c as length_forward takes it, the prompts
 * covering all its rows; classes [segments] (host, 0-based: class c means c + 1 tokens), losses
 * [segments] (host) each times `weight`. Gradients as in xlmr_loss; none for hidden. Dropout is
 * torch's TransformerEncoderLayer's: on the softmax, both parts, and the inner activation. The
 * arena is left unchanged. */
int length_loss(const LengthPredictor *length, Arena *arena, Tensor hidden, const int32_t *begin,
                int segments, const int32_t *classes, float weight, const TrainRun *run,
                float *losses, Error *err);

#endif
