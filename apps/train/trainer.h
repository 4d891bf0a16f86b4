/* trainer.h - the loop that all stages of training share. */
#ifndef EASYFIRST_APPS_TRAIN_TRAINER_H
#define EASYFIRST_APPS_TRAIN_TRAINER_H

#include "apps/train/loader.h"
#include "apps/train/checkpoint.h"
#include "apps/train/report.h"

/* Runs a stage from its settings to the end, or from its last checkpoint on: opens the model and
 * the data, trains, validates, saves. What it tells goes to standard error and into the run's
 * folder. SIGHUP, SIGINT, SIGTERM and SIGUSR1 end it after the step under way, with a checkpoint:
 * the value is then TRAINER_STOPPED, and *err says so. */
enum { TRAINER_STOPPED = 3 };
int trainer_run(TrainSettings *settings, Error *err);

/* ---- The pieces, for tests. ---- */

/* How examples of a stage are made and packed for an open model. */
ExampleConfig trainer_examples(const TrainModel *model, const TrainSettings *settings);
PackingConfig trainer_packing(const TrainModel *model, const TrainSettings *settings);

/* Text of decoded answers for the first units of a dataset beside what they should be, on `out`. */
int trainer_show_answers(const TrainModel *model, const LoaderConfig *config, int count, FILE *out,
                         Error *err);

#endif
