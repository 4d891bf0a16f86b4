/* model_chat.h - prompts of models of conversations: each is a user's message in the model's chat
 * template (language/chat_template.h). */
#ifndef EASYFIRST_PROJECTOR_MODEL_CHAT_H
#define EASYFIRST_PROJECTOR_MODEL_CHAT_H

#include "data/sets/records.h"
#include "projector/model.h"

/* "chat_template" of the settings, a name or "none"; else that of the folder of `weights`, if it is
 * one that is known. One that is not is an error, unless the model is only described. */
int model_chat_open(Model *model, const ModelOptions *options, const char *weights, Error *err);

/* parts.image_lead and its ids, for a model with a chat template and a projector: where the first
 * message of a user has its text, an image comes before that. */
int model_chat_image_lead(Model *model, Error *err);

/* "chat_template": one of chat_template_names, or "none". `path` is for messages. */
int model_check_chat(const json_t *settings, const char *path, Error *err);

/* Puts *prompt, which was allocated, into the model's chat template after earlier turns [count]; it
 * stays as it is in a model without one, or if it is "". */
int model_chat_prompt(const Model *model, const RecordTurn *turns, size_t count, char **prompt,
                      Error *err);

#endif
