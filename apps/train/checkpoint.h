/* checkpoint.h - checkpoints of a training run: model folders with the state of the trainer
 * beside.
 *
 *   RUN/settings.json                 what the run was told
 *   RUN/metrics.jsonl, RUN/loss.svg   how it went
 *   RUN/checkpoint-00000500/          a model folder like any other, and in it
 *       training/state.json           step, place in the data, counts, what the data were
 *       training/language.safetensors masters and moments of a trained part (projector, ...)
 *       segment.safetensors, .json    of the stage `segment`: its layer, the names of the classes
 *   RUN/model/                        the last checkpoint's model without training/
 *
 * A checkpoint is written under another name, synced and renamed: one that has its name is whole.
 */
#ifndef EASYFIRST_APPS_TRAIN_CHECKPOINT_H
#define EASYFIRST_APPS_TRAIN_CHECKPOINT_H

#include "apps/train/model.h"

/* Where a run stands: everything beside the tables of numbers. */
typedef struct TrainState {
    int64_t step;         /* updates done */
    int64_t epoch, index; /* place of the next step in the data */
    int64_t skipped;      /* updates left out */
    int64_t sequences, tokens;
    double seconds;
    double open_loss, open_norm; /* sums over the updates since the last logged point, */
    int64_t open_steps;          /* so many, for a run that ends between two points */
    int64_t bad_samples;         /* pictures that could not be decoded so far */
    uint64_t fingerprint;        /* of the data */
    Dtype compute[4];            /* of vision, projector, language, length */
} TrainState;

/* The folder of the highest step in RUN, and its state; *found is false if there is none. Leftovers
 * of an interrupted write are not looked at. */
int train_checkpoint_find(const char *run, char *folder, size_t size, TrainState *state,
                          bool *found, Error *err);

/* Reads the tables of numbers of `folder` into a prepared model. The state of another model is
 * refused. */
int train_checkpoint_read(TrainModel *model, const char *folder, Error *err);

/* Writes RUN/checkpoint-<step>; on success removes older ones beyond `keep`. On failure (a full
 * disk, say) nothing of it stays, and the older ones are as they were. */
int train_checkpoint_write(const TrainModel *model, const TrainSettings *settings,
                           const TrainState *state, Error *err);

/* RUN/model: the newest checkpoint as a plain model folder, in place of an older one. */
int train_checkpoint_publish(const TrainSettings *settings, Error *err);

#endif
