/* dataset_files.h - RUN/data.json: which files a run was trained on, for people and for --resume.
 *
 *   {"files": [{"path", "bytes", "hash"}],      of their contents
 *    "records": all that were looked at, "used": examples,
 *    "skipped": {kind: {"count", "first"}},     records that could not be used
 *    "notes": {kind: {"count", "first"}}}       long prompts, for one
 */
#ifndef EASYFIRST_APPS_TRAIN_DATASET_FILES_H
#define EASYFIRST_APPS_TRAIN_DATASET_FILES_H

#include "apps/train/dataset.h"

int dataset_files_write(const Dataset *dataset, const char *run, Error *err);

/* Why the data are not those of RUN/data.json, in *err: which file has other contents, or was added
 * or removed. Its value is -1. */
int dataset_files_differ(const Dataset *dataset, const char *run, Error *err);

#endif
