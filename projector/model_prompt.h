/* model_prompt.h - easyfirst.json's prompt templates and languages, checked when it is read.
 * Private to the reading of models: what commands call is in model.h. */
#ifndef EASYFIRST_PROJECTOR_MODEL_PROMPT_H
#define EASYFIRST_PROJECTOR_MODEL_PROMPT_H

#include <jansson.h>

#include "kernels/error.h"

/* "prompts": known names, texts with known fields. `path` is for messages. */
int model_check_prompts(const json_t *settings, const char *path, Error *err);

/* "languages": a list of pairs of known languages, "de-en". */
int model_check_languages(const json_t *settings, const char *path, Error *err);

/* Whether a model with these settings (NULL: none) translates between two languages, given by code
 * or name: both are known and, where the settings list pairs, this one is among them. */
int model_check_pair(const json_t *settings, const char *from, const char *to, const char *path,
                     Error *err);

#endif
