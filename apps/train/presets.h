/* presets.h - settings of the papers' runs: JSON files in data/presets, installed with the program.
 *
 *   {"about": "IWSLT14 German to English: XLM-R base", "table": "arXiv 2308.12219 v3, table 5",
 *    "model": "xlm-r-base", "memory_bytes": 5760000000, "note": "what the paper does not say",
 *    "stage": "adapt", "settings": {"lr": 5e-5, ...}}
 *
 * Keys of "settings" are long names of options of `train`. "memory_bytes" is what `info --train
 * STAGE` predicts for a model of that shape ("model") with these settings, its vocabulary unpruned.
 */
#ifndef EASYFIRST_APPS_TRAIN_PRESETS_H
#define EASYFIRST_APPS_TRAIN_PRESETS_H

#include <jansson.h>

#include "kernels/error.h"

/* The settings of a preset with its "stage", as a --config file has them; *path is its file. Both
 * are the caller's to free. Errors: no preset of that name, other members than those above. */
int preset_read(const char *name, json_t **settings, char **path, Error *err);

/* A line for each preset on standard output: name, stage, memory, what it is and its table. */
int presets_print(Error *err);

#endif
