/* train_checks.h - what training passes of all language models have in common: checks of their
 * input, and the dropout of embeddings. */
#ifndef EASYFIRST_LANGUAGE_TRAIN_CHECKS_H
#define EASYFIRST_LANGUAGE_TRAIN_CHECKS_H

#include "language/xlmr_train.h"

/* Refuses a cache, and ids, positions (from 0) and image rows that a model of so many, or the
 * batch, does not have. */
int train_check_batch(const XlmrBatch *batch, int vocab, int positions, Error *err);

/* The same of the rows with a loss and of the image tokens' gradient, which may be TENSOR_NONE. */
int train_check_targets(const XlmrBatch *batch, const XlmrTargets *targets, int vocab,
                        Tensor dimage_tokens, Error *err);

/* With a random stream that no block uses. */
Dropout train_embedding_dropout(const TrainRun *run);

#endif
