/* config.h - small JSON files (config.json and its like), read whole, with errors for people. */
#ifndef EASYFIRST_DATA_CHECKPOINTS_CONFIG_H
#define EASYFIRST_DATA_CHECKPOINTS_CONFIG_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/error.h"

/* *json is an object, to be released with json_decref. Errors: those of json_read_file, another
 * kind of value than an object. Files over 16 MiB are refused. */
int config_read(json_t **json, const char *path, Error *err);

/* A member that must be a whole number in [least, most], a number, a text, or true/false;
 * `fallback` (for texts NULL too) where the object lacks it or it is null. Wrong kinds are errors
 * that name the member; `path` is what they call the file. */
int config_integer(const json_t *object, const char *name, const char *path, int least, int most,
                   int fallback, int *value, Error *err);
int config_real(const json_t *object, const char *name, const char *path, double fallback,
                double *value, Error *err);
int config_text(const json_t *object, const char *name, const char *path, const char *fallback,
                const char **value, Error *err);
int config_flag(const json_t *object, const char *name, const char *path, bool fallback,
                bool *value, Error *err);

#endif
