/* language_train.h - a language model of either kind in training: see xlmr_train.h, whose contracts
 * these have. The model must be present. */
#ifndef EASYFIRST_LANGUAGE_LANGUAGE_TRAIN_H
#define EASYFIRST_LANGUAGE_LANGUAGE_TRAIN_H

#include "language/language.h"
#include "language/xlmr_train.h"

int language_check_batch(const LanguageModel *model, const XlmrBatch *batch, Error *err);
int language_loss(const LanguageModel *model, Arena *arena, const XlmrBatch *batch,
                  const XlmrTargets *targets, const TrainRun *run, float *losses,
                  Tensor dimage_tokens, Error *err);
size_t language_loss_bytes(const LanguageModel *model, int tokens, int targets, const TrainRun *run,
                           bool image);

#endif
