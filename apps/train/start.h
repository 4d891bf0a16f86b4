/* start.h - checks at the start of a run, before anything is loaded or computed. */
#ifndef EASYFIRST_APPS_TRAIN_START_H
#define EASYFIRST_APPS_TRAIN_START_H

#include "apps/train/checkpoint.h"
#include "apps/train/dataset.h"

/* For a resumed run: checks that RUN/settings.json, read before the run was locked, is
 * unchanged. */
int train_start_same_settings(const TrainSettings *settings, Error *err);

/* How the files of --data and --valid are read. */
RecordsOptions train_start_records(const TrainSettings *settings);

/* Checks that they exist and have the right format, from their beginnings. */
int train_start_files(const TrainSettings *settings, Error *err);

/* Identifies the data: [{"path", "print"}], an entry for each file read, and a last one, without a
 * path, for all files and their usable records. NULL: out of memory. */
json_t *train_start_data(const Dataset *data);

/* Checks that the data has the same contents, at any path, as when the run of the checkpoint
 * `folder` started. */
int train_start_same_data(const json_t *before, const json_t *now, const char *folder, Error *err);

/* Checks that a checkpoint fits on the disk; `first`: there is none yet. */
int train_start_space(const RunFolder *run, const TrainModel *model, const TrainSettings *settings,
                      bool first, Error *err);

/* Estimates the GPU memory before allocating it; a run that cannot fit is an error. `settings` are
 * those of the opened model, on resume a checkpoint's. */
int train_start_memory(Device *device, const TrainSettings *settings, const Dataset *data,
                       const TrainSizes *sizes, Error *err);

/* Checks that --out is not inside a folder that the run reads. */
int train_start_apart(const TrainSettings *settings, Error *err);

/* A model that got a mask token. */
typedef struct TrainStart {
    char *folder;             /* RUN/start */
    char *vision, *projector; /* its other parts, of the folder before; NULL: given, or none */
} TrainStart;

/* For a model without a mask token that is to learn masked diffusion: makes RUN/start, unless it is
 * there, the same model with one (model_mask.h); the settings then name it. *start must live as long as they do; train_start_free is always due. */
int train_start_mask(TrainStart *start, TrainSettings *settings, const RunFolder *run,
                     Device *device, Error *err);
void train_start_free(TrainStart *start);

/* Prints what the user may not expect of this run. */
void train_start_notes(const TrainSettings *settings, const TrainModel *model, FILE *out);

/* The same where matmuls in bf16 are slower than in f32; both in operations per second. */
void train_start_speed(double bf16, double f32, FILE *out);

#endif
