/* token_json.h - reading the parts of tokenizer.json, for the files that read one each.
 *
 * An object's keys must all be known: what a part does not read would change the ids silently. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_JSON_H
#define EASYFIRST_LANGUAGE_TOKEN_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

/* Reads a file of at most 512 MiB that holds one object; *object is NULL on failure. */
int token_json_read(json_t **object, const char *path, Error *err);

/* An object without unknown keys; `what` names it in messages, `known` ends with NULL. */
int token_json_keys(const json_t *object, const char *what, const char *const *known, Error *err);

/* Values; the one that *value has stays if the key is missing or null. */
int token_json_flag(const json_t *object, const char *key, bool *value, Error *err);
int token_json_text(const json_t *object, const char *key, const char **value, Error *err);
int token_json_count(const json_t *object, const char *key, int64_t *value, Error *err);

/* The type of a part, as one of the words (NULL-terminated): -1 with a message that names the type
 * that is not supported. */
int token_json_type(const json_t *part, const char *what, const char *const *words, Error *err);

/* A pattern: {"String": text} or {"Regex": expression}; *regex says which. */
int token_json_pattern(const json_t *part, const char **text, bool *regex, Error *err);

#endif
