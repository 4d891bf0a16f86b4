/* trainer.h - the training loop of all stages. */
#ifndef EASYFIRST_APPS_TRAIN_TRAINER_H
#define EASYFIRST_APPS_TRAIN_TRAINER_H

#include "apps/train/loader.h"
#include "apps/train/checkpoint.h"
#include "apps/train/ranks.h"
#include "apps/train/report.h"

/* Runs a stage to its end, from the start or from its last checkpoint: opens the model and the
 * data, trains, validates, saves. Reports go to standard error and into the run's folder. SIGHUP,
 * SIGINT, SIGTERM and SIGUSR1 end it after the current step, with a checkpoint: it then returns
 * TRAINER_STOPPED with a message. */
enum { TRAINER_STOPPED = 3 };
int trainer_run(TrainSettings *settings, Ranks *ranks, Error *err);

/* ---- The pieces, for tests. ---- */

/* How examples of a stage are made and packed for an open model. */
ExampleConfig trainer_examples(const TrainModel *model, const TrainSettings *settings);
PackingConfig trainer_packing(const TrainModel *model, const TrainSettings *settings);

/* The type of the features that are kept. */
Dtype trainer_kept_dtype(const TrainModel *model, const TrainSettings *settings);

/* The steps of the run and their learning rates. */
int trainer_schedule(Schedule *schedule, const TrainSettings *settings, const Dataset *data,
                     const BatchConfig *batches, Error *err);

/* Writes RUN/settings.json. */
int trainer_save_settings(const RunFolder *run, const TrainSettings *settings, Error *err);

/* A run that ends (`done`: as planned) without any update, or in the middle of a streak of skipped
 * ones, has failed. `made`: updates of this process; `last`: the last checkpoint, or NULL. */
int trainer_check_end(const TrainState *state, bool done, int64_t made, int streak,
                      const char *last, Error *err);

/* Text of decoded answers for the first units of a dataset beside what they should be, on `out`. */
int trainer_show_answers(const TrainModel *model, const LoaderConfig *config, int count, FILE *out,
                         Error *err);

/* Decoded answers for `count` units of a dataset, evenly spread, and what they should be. Those whose
 * record or image can no longer be read are left out. On failure *answers is empty. */
typedef struct TrainAnswers {
    char **answers, **targets; /* [count] */
    int count;
} TrainAnswers;
int trainer_answers(const TrainModel *model, const LoaderConfig *config, int count,
                    TrainAnswers *answers, Error *err);
void train_answers_free(TrainAnswers *answers);

#endif
