/* dataset_files.h - RUN/data.json: which files a run was trained on, and what of them was used.
 * (What --resume compares is in each checkpoint's state.)
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

#endif
