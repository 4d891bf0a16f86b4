/* checkpoint.h - checkpoints of a training run: model folders that also hold the trainer's state.
 *
 *   RUN/settings.json                 the run's settings
 *   RUN/metrics.jsonl, RUN/loss.svg   logged metrics, loss curve
 *   RUN/checkpoint-00000500/          a model folder like any other, and in it
 *       training/state.json           step, place in the data, counts, the data files, the run's
 *                                     id, and the SHA-256 of every file and of itself
 *       training/language.safetensors masters and moments of a trained part (projector, ...)
 *       segment.safetensors, .json    of the stage `segment`: its layer, the names of the classes
 *   RUN/checkpoint-00000500.damaged/  a damaged checkpoint: set aside, never used
 *   RUN/best/                         the best model by --best-by (best.h)
 *   RUN/model/                        the last checkpoint's model without training/
 *
 * A checkpoint is written in the run's work folder (run_folder.h), synced and renamed: a checkpoint
 * on disk is always complete.
 */
#ifndef EASYFIRST_APPS_TRAIN_CHECKPOINT_H
#define EASYFIRST_APPS_TRAIN_CHECKPOINT_H

#include "projector/train_model.h"
#include "apps/train/run_folder.h"

/* The state of a run, without its tensors. */
typedef struct TrainState {
    int64_t step;         /* updates done */
    int64_t epoch, index; /* place of the next step in the data */
    int64_t skipped;      /* updates left out */
    int64_t sequences, tokens;
    double seconds;
    double open_loss, open_norm; /* sums over the updates since the last logged point, */
    int64_t open_steps;          /* their count, for a run that ends between two points */
    int64_t bad_samples;         /* records with an image that could not be decoded, each once */
    json_t *data;                /* the data files: [{"path", "print"}] */
    Dtype compute[4];            /* of vision, projector, language, length */
    int64_t best_step;           /* of the best model so far (best.h); -1: there is none */
    double best_score;
    int64_t worse; /* validations since */
} TrainState;

/* Callback with a line for the user: a warning, or (`progress`) the progress of long work. */
typedef void (*TrainNote)(void *user, bool progress, const char *text);

/* The checkpoints of an open run folder. */
typedef struct TrainCheckpoints {
    RunFolder *run;
    char *last;    /* the newest undamaged one; NULL: there is none */
    json_t *files; /* its manifest */
    TrainNote note;
    void *user;
} TrainCheckpoints;

/* The step of the newest checkpoint by its name, of any run, damaged or not; -1: none. */
int64_t train_checkpoints_newest(const RunFolder *run);

/* Finds the checkpoint to resume from: the newest whose files are unchanged. Newer ones that are
 * damaged are renamed, which `note` (may be NULL) reports. No checkpoint is not an error (`last` is
 * NULL then); only damaged ones, or one of another run, are. The caller releases state->data. */
int train_checkpoints_open(TrainCheckpoints *checkpoints, RunFolder *run, TrainNote note,
                           void *user, TrainState *state, Error *err);
void train_checkpoints_close(TrainCheckpoints *checkpoints);

/* Reads the tensors of `folder` into a prepared model. The state of another model is an error. */
int train_checkpoint_read(TrainModel *model, const char *folder, Error *err);

/* The path of one part's tensors. Free it; NULL: out of memory. */
char *train_checkpoint_table(const TrainModel *model, const Params *params, const char *folder,
                             Error *err);

/* Writes RUN/checkpoint-<step>, unless that is the last one already; then trims. After a failure
 * (disk full, for example) nothing of it remains, and the older ones are unchanged. */
int train_checkpoint_write(TrainCheckpoints *checkpoints, const TrainModel *model,
                           const TrainSettings *settings, const TrainState *state, Error *err);

/* Writes the model as a plain folder into `to`, an empty one. */
int train_checkpoint_model(const TrainCheckpoints *checkpoints, const TrainModel *model,
                           const TrainSettings *settings, const char *to, Error *err);

/* The approximate size of a checkpoint on disk; frozen parts count in the `first` one only, since
 * the others link to the same files. */
uint64_t train_checkpoint_bytes(const TrainModel *model, const TrainSettings *settings, bool first);

/* Removes this run's checkpoints but the `keep` newest; a failure is noted and does not stop the
 * run. */
void train_checkpoints_trim(TrainCheckpoints *checkpoints, int keep);

/* RUN/model: the newest checkpoint as a plain model folder, in place of an older one of
 * this run. */
int train_checkpoint_publish(TrainCheckpoints *checkpoints, Error *err);

#endif
