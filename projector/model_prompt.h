/* model_prompt.h - prompt templates: a model's own, from its settings (easyfirst.json), or the
 * default ones. */
#ifndef EASYFIRST_PROJECTOR_MODEL_PROMPT_H
#define EASYFIRST_PROJECTOR_MODEL_PROMPT_H

#include <jansson.h>

#include "kernels/error.h"

/* A prompt: the template of these settings' "prompts" (NULL: none) for `preset` ("ask", "gqa",
 * which wants a short answer, "translate", "summarize"), else the default one, with {question},
 * {text}, {from} and {to} filled in (NULL ones: empty). The caller frees *prompt. Unknown {names}
 * are errors. */
int model_prompt(const json_t *settings, const char *preset, const char *text, const char *from,
                 const char *to, char **prompt, Error *err);

/* "prompts": known names, texts with known fields. `path` is for messages. */
int model_check_prompts(const json_t *settings, const char *path, Error *err);

#endif
