/* checkpoint.h - checkpoints of a training run: model folders with the state of the trainer
 * beside.
 *
 *   RUN/settings.json                 what the run was told
 *   RUN/metrics.jsonl, RUN/loss.svg   how it went
 *   RUN/checkpoint-00000500/          a model folder like any other, and in it
 *       training/state.json           step, place in the data, counts, what the data were, whose
 *                                     it is, and the SHA-256 of every file and of itself
 *       training/language.safetensors masters and moments of a trained part (projector, ...)
 *       segment.safetensors, .json    of the stage `segment`: its layer, the names of the classes
 *   RUN/checkpoint-00000500.damaged/  one that was found to be damaged: set aside, never used
 *   RUN/model/                        the last checkpoint's model without training/
 *
 * A checkpoint is written in the run's work folder (run_folder.h), synced and renamed: one that has
 * its name is complete.
 */
#ifndef EASYFIRST_APPS_TRAIN_CHECKPOINT_H
#define EASYFIRST_APPS_TRAIN_CHECKPOINT_H

#include "projector/train_model.h"
#include "apps/train/run_folder.h"

/* Where a run stands: everything beside the tables of numbers. */
typedef struct TrainState {
    int64_t step;         /* updates done */
    int64_t epoch, index; /* place of the next step in the data */
    int64_t skipped;      /* updates left out */
    int64_t sequences, tokens;
    double seconds;
    double open_loss, open_norm; /* sums over the updates since the last logged point, */
    int64_t open_steps;          /* so many, for a run that ends between two points */
    int64_t bad_samples;         /* records with an image that could not be decoded, each once */
    json_t *data;                /* what the data are: [{"path", "print"}] */
    Dtype compute[4];            /* of vision, projector, language, length */
} TrainState;

/* A line for the user: of something wrong, or (`progress`) of what takes a while. */
typedef void (*TrainNote)(void *user, bool progress, const char *text);

/* The checkpoints of an open run folder. */
typedef struct TrainCheckpoints {
    RunFolder *run;
    char *last;    /* the newest undamaged one; NULL: there is none */
    json_t *files; /* its manifest */
    TrainNote note;
    void *user;
} TrainCheckpoints;

/* The step of the newest checkpoint by its name, of whichever run and however damaged; -1: none. */
int64_t train_checkpoints_newest(const RunFolder *run);

/* Finds the checkpoint to resume from: the newest whose files are as they were written. Newer ones
 * that are damaged are set aside under another name, which `note` (may be NULL) reports. None at
 * all is no error (`last` is NULL then); only damaged ones, or one of another run, are. The caller
 * releases state->data. */
int train_checkpoints_open(TrainCheckpoints *checkpoints, RunFolder *run, TrainNote note,
                           void *user, TrainState *state, Error *err);
void train_checkpoints_close(TrainCheckpoints *checkpoints);

/* Reads the tables of numbers of `folder` into a prepared model. The state of another model is
 * refused. */
int train_checkpoint_read(TrainModel *model, const char *folder, Error *err);

/* The file of one of them. Free it; NULL without memory. */
char *train_checkpoint_table(const TrainModel *model, const Params *params, const char *folder,
                             Error *err);

/* Writes RUN/checkpoint-<step>, unless it is the last one already; then trims. On failure (a full
 * disk, say) nothing of it stays, and the older ones are as they were. */
int train_checkpoint_write(TrainCheckpoints *checkpoints, const TrainModel *model,
                           const TrainSettings *settings, const TrainState *state, Error *err);

/* About what a checkpoint takes on the disk; frozen parts count in the `first` one only, since the
 * others have links to the same files. */
uint64_t train_checkpoint_bytes(const TrainModel *model, const TrainSettings *settings, bool first);

/* Removes this run's checkpoints but the `keep` newest; that one cannot be removed is no reason to
 * stop (it is noted). */
void train_checkpoints_trim(TrainCheckpoints *checkpoints, int keep);

/* RUN/model: the newest checkpoint as a plain model folder, in place of an older one of
 * this run. */
int train_checkpoint_publish(TrainCheckpoints *checkpoints, Error *err);

#endif
