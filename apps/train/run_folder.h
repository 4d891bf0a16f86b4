/* run_folder.h - the folder of a training run: locked, and identified by its marker, so that only
 * what this run made in it is removed or replaced.
 *
 *   RUN/run.json            the marker: the run's id, and manifests of the model/ it published
 *   RUN/partial-<id>/       files being written or removed; emptied when the run is resumed
 *   RUN/checkpoint-<step>/  of this run if training/state.json has its id (checkpoint.h)
 *   RUN/model/              of this run if its files match run.json
 *
 * The id is a random number, so that no other run's folder has it by chance.
 */
#ifndef EASYFIRST_APPS_TRAIN_RUN_FOLDER_H
#define EASYFIRST_APPS_TRAIN_RUN_FOLDER_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/error.h"

enum { RUN_ID_SIZE = 33 };

typedef struct RunFolder {
    char *path;
    char id[RUN_ID_SIZE];
    char *work;        /* PATH/partial-ID; made when needed */
    json_t *published; /* array of manifests: model/ is one of these */
    int lock;
    bool fresh; /* this process made run.json: a run that fails before it has settings removes it */
    bool made;  /* and the folder itself */
} RunFolder;

/* Makes the folder (and those above) or opens it, locks it before reading anything in it, checks
 * that it belongs to the run, and removes the unfinished files of a killed process of this run.
 * Refused: a folder in which another process trains; settings.json, metrics.jsonl, loss.svg, model/
 * or a checkpoint without the run's marker; a model/ that this run did not publish; and, unless
 * `resume`, any model/. On a file system without locks it is not locked. */
int run_folder_open(RunFolder *run, const char *path, bool resume, Error *err);

/* A zeroed one may be closed, too. */
void run_folder_close(RunFolder *run);

/* The path of an entry of the run's folder; of one in the work folder, which is created, and with
 * `fresh` the entry as an empty folder. Free them; NULL on failure. */
char *run_folder_path(const RunFolder *run, const char *name, Error *err);
char *run_folder_partial(RunFolder *run, const char *name, bool fresh, Error *err);

/* Removes a folder of this run: renames it first, atomically. */
int run_folder_remove(RunFolder *run, const char *path, Error *err);

/* Replaces RUN/model by the finished folder `partial`, whose files `manifest` lists. Both are
 * exchanged atomically (by two renames where the file system cannot do that). */
int run_folder_publish(RunFolder *run, const char *partial, const json_t *manifest, Error *err);

/* The same of another folder, whose contents say whose it is; the caller has checked that. */
int run_folder_replace(RunFolder *run, const char *partial, const char *name, Error *err);

#endif
