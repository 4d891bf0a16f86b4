/* run_folder.h - the folder of a training run: locked, and known by its marker, so that nothing in
 * it is removed or replaced but what this run made.
 *
 *   RUN/run.json            the marker: the run's id, and manifests of what model/ may be
 *   RUN/partial-<id>/       what is being written or removed; emptied when the run is resumed
 *   RUN/checkpoint-<step>/  of this run if training/state.json has its id (checkpoint.h)
 *   RUN/model/              of this run if its files are those of run.json
 *
 * The id is a random number, so that no folder of anybody else has it by chance.
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
    char *work;        /* PATH/partial-ID; made when it is needed */
    json_t *published; /* array of manifests: model/ is one of these */
    int lock;
    bool fresh; /* run.json was made by this process: a run that fails before it has settings
                   leaves nothing behind */
    bool made;  /* the folder itself, too */
} RunFolder;

/* Makes the folder (and those above) or opens it, takes its lock before anything in it is looked
 * at, checks whose it is, and removes what a killed process of this run left unfinished. Refused: a
 * folder in which another process trains; settings.json, metrics.jsonl, loss.svg, model/ or a
 * checkpoint without the run's marker; a model/ that is not what this run published; and, unless
 * `resume`, any model/. A file system without locks is used as it is. */
int run_folder_open(RunFolder *run, const char *path, bool resume, Error *err);

/* An empty one may be closed, too. */
void run_folder_close(RunFolder *run);

/* The name of an entry of the run's folder; of one in the work folder, which is made, and with
 * `fresh` the entry as an empty folder. Free them; NULL on failure. */
char *run_folder_path(const RunFolder *run, const char *name, Error *err);
char *run_folder_partial(RunFolder *run, const char *name, bool fresh, Error *err);

/* A folder of this run is taken out of the way at once and then removed. */
int run_folder_remove(RunFolder *run, const char *path, Error *err);

/* Puts the finished folder `partial`, whose files `manifest` tells, in the place of RUN/model. The
 * one before is there until the new one is: they change places at once (where the file system
 * cannot do that, one rename follows the other). */
int run_folder_publish(RunFolder *run, const char *partial, const json_t *manifest, Error *err);

#endif
