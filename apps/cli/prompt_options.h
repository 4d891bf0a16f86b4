/* prompt_options.h - options of data: parallel files, and how prompts are built from files of other
 * programs (data/formats). */
#ifndef EASYFIRST_APPS_CLI_PROMPT_OPTIONS_H
#define EASYFIRST_APPS_CLI_PROMPT_OPTIONS_H

#include <jansson.h>

#include "apps/cli/options.h"
#include "data/formats/prompt.h"

/* The rows; `files` may be NULL: then the group has no parallel files. */
void prompt_group(PromptOptions *prompt, ParallelFiles *files, OptionGroup *group);

/* What belongs together. */
int prompt_options_check(const PromptOptions *prompt, const ParallelFiles *files, Error *err);

/* {"template", "instruction", ...} of what is given, for the settings of a run; NULL: out of memory, or
 * not UTF-8. */
json_t *prompt_options_json(const PromptOptions *prompt);

#endif
