/* best.h - the best model of a run by a score of its held-out data, RUN/best: a model folder like
 * any other, with best.json, which says whose it is and why: {"run", "step", "by", "score"}. */
#ifndef EASYFIRST_APPS_TRAIN_BEST_H
#define EASYFIRST_APPS_TRAIN_BEST_H

#include "apps/train/checkpoint.h"
#include "apps/train/trainer.h"

enum { BEST_ANSWERS = 100 }; /* that are decoded, unless --valid-answers says otherwise */

/* The score of some answers, in percent: BLEU, chrF, Rouge-L, ... Not for BEST_NONE and
 * BEST_LOSS. NaN: there are none. */
int train_best_score(TrainBest by, const TrainAnswers *answers, double *score, Error *err);

/* Checks that RUN/best, if there is one, is this run's. */
int train_best_check(const RunFolder *run, Error *err);

/* Writes the model, whose state has best_step and best_score, to RUN/best, in place of an older one:
 * whichever is there is complete. */
int train_best_write(TrainCheckpoints *checkpoints, const TrainModel *model,
                     const TrainSettings *settings, const TrainState *state, Error *err);

#endif
