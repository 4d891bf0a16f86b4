/* dataset_files.h - RUN/data.json: the files that a run was trained on, and how many of their
 * records were used. (--resume compares the state of each checkpoint instead.)
 *
 *   {"files": [{"path", "bytes", "hash"}],      of their contents
 *    "records": all that were read, "used": examples,
 *    "skipped": {kind: {"count", "first"}},     records that could not be used
 *    "notes": {kind: {"count", "first"}},       long prompts, for example
 *    "valid": the same of --valid}
 */
#ifndef EASYFIRST_APPS_TRAIN_DATASET_FILES_H
#define EASYFIRST_APPS_TRAIN_DATASET_FILES_H

#include "apps/train/dataset.h"

/* `valid` may be NULL. */
int dataset_files_write(const Dataset *data, const Dataset *valid, const char *run, Error *err);

#endif
