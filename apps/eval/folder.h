/* folder.h - the folder of --out: whether an evaluation made it, and its lock.
 *
 * Only a folder that is empty, or has the settings.json of an evaluation, is written to. In it only
 * files with the names of an evaluation are replaced, and only temporary files of these names
 * (data/files/file_write.h) are removed.
 */
#ifndef EASYFIRST_APPS_EVAL_FOLDER_H
#define EASYFIRST_APPS_EVAL_FOLDER_H

#include <jansson.h>

#include "kernels/error.h"

/* Whether the folder can take an evaluation's files: it does not exist yet and can be made, is
 * empty (hidden files do not count), or has settings.json of an earlier evaluation; and is
 * writable. Changes nothing. */
int eval_folder_check(const char *path, Error *err);

/* Makes the folder unless it exists, checks it, and locks it while files are compared, claimed or
 * replaced: other processes wait. *lock is -1 on failure. Errors: as above, and a lock that another
 * process holds for a minute. */
int eval_folder_enter(int *lock, const char *path, Error *err);
void eval_folder_leave(int *lock);

/* Compares `settings` with those of an earlier run in the folder (the first that differs is named),
 * or writes them if there are none. The caller holds the lock. */
int eval_folder_settings(const char *path, const json_t *settings, Error *err);

/* A JSON object as a file of the folder. */
int eval_folder_json(const char *path, const char *name, const json_t *object, Error *err);

/* Removes temporary files that killed runs left. The caller holds the lock, and no other process is
 * writing any of them. */
int eval_folder_clean(const char *path, Error *err);

#endif
