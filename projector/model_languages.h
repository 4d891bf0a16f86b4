/* model_languages.h - languages by code and name, and which of them a model translates, from its
 * settings (easyfirst.json). */
#ifndef EASYFIRST_PROJECTOR_MODEL_LANGUAGES_H
#define EASYFIRST_PROJECTOR_MODEL_LANGUAGES_H

#include <jansson.h>

#include "kernels/error.h"

/* "languages": a list of pairs of known languages, "de-en". */
int model_check_languages(const json_t *settings, const char *path, Error *err);

/* Whether a model with these settings (NULL: none) translates between two languages, given by code
 * or name: both are known and, where the settings list pairs, this one is among them. */
int model_check_pair(const json_t *settings, const char *from, const char *to, const char *path,
                     Error *err);

/* The pairs of languages that a model's settings list: "German to English, ...", as many as there
 * is space for; "" if it lists none. */
void model_pairs_text(char *out, size_t size, const json_t *settings);

/* "German" for "de", "german" and "German"; any other word itself. */
const char *language_name(const char *word);

#endif
