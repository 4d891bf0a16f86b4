/* start.h - what is checked when a run starts, before anything is loaded or computed. */
#ifndef EASYFIRST_APPS_TRAIN_START_H
#define EASYFIRST_APPS_TRAIN_START_H

#include "apps/train/checkpoint.h"
#include "apps/train/dataset.h"

/* Of a resumed run: RUN/settings.json, read before the run was locked, is still the same. */
int train_start_same_settings(const TrainSettings *settings, Error *err);

/* How the files of --data and --valid are read. */
RecordsOptions train_start_records(const TrainSettings *settings);

/* Whether they are there and of the right kind, from their beginnings. */
int train_start_files(const TrainSettings *settings, Error *err);

/* What the data are: [{"path", "print"}], an entry for each file that was read, and a last one,
 * with no path, of all and what of it can be used. NULL without memory. */
json_t *train_start_data(const Dataset *data);

/* Whether the data are those that the run of the checkpoint `folder` was begun with: their
 * contents, wherever they lie. */
int train_start_same_data(const json_t *before, const json_t *now, const char *folder, Error *err);

/* Whether a checkpoint fits on the disk; `first`: there is none yet. */
int train_start_space(const RunFolder *run, const TrainModel *model, const TrainSettings *settings,
                      bool first, Error *err);

/* Before anything is taken: a GPU's memory is counted, and a run that cannot fit is refused.
 * `settings` are those of the model that is opened, which is that of a checkpoint on resume. */
int train_start_memory(Device *device, const TrainSettings *settings, const Dataset *data,
                       const TrainSizes *sizes, Error *err);

/* --out and the folders that are read: the run may not lie in one of them. */
int train_start_apart(const TrainSettings *settings, Error *err);

/* What the user may not expect of this run. */
void train_start_notes(const TrainSettings *settings, const TrainModel *model, FILE *out);

#endif
