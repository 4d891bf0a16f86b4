/* manifest.h - the files of a folder, with size and SHA-256 of each, so that damage is found before
 * use and a folder is identified before it is replaced.
 *
 * A manifest is a JSON object, {"language/config.json": {"size": 31, "sha256": "..."}, ...}; names
 * are paths within the folder. Hidden files (".x") and training/state.json, which holds the
 * manifest of a checkpoint, are not in it.
 */
#ifndef EASYFIRST_APPS_TRAIN_MANIFEST_H
#define EASYFIRST_APPS_TRAIN_MANIFEST_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/error.h"

/* Of all files in `folder`. A file that is also one of `before` (a hard link, under the same name;
 * NULL: no such folder) has its hash in `known` and is not read again. NULL on failure; json_decref
 * it. */
json_t *manifest_make(const char *folder, const char *before, const json_t *known, Error *err);

/* 0: the folder has these files with these contents; 1: it differs, and *err says how; -1: it could
 * not be read. With `exact` an extra file (a hidden one, too) is a difference. */
int manifest_check(const json_t *manifest, const char *folder, bool exact, Error *err);

/* The part of a checkpoint's manifest that makes a model folder: all but training/. NULL: out of
 * memory. */
json_t *manifest_of_model(const json_t *manifest);

#endif
