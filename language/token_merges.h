/* token_merges.h - byte-level BPE in the older files: vocab.json (token to id), merges.txt (a pair
 * on each line) and, where a model has it, tokenizer_config.json.
 *
 * "tokenizer_class" says how texts are divided: GPT-2's and RoBERTa's pattern, or Qwen2's (Dream's,
 * too), which also composes characters (NFC). Without a class it is RoBERTa's if the vocabulary has
 * <s> and <mask>, else GPT-2's. Other classes are refused. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_MERGES_H
#define EASYFIRST_LANGUAGE_TOKEN_MERGES_H

#include <jansson.h>

#include "kernels/error.h"

/* What tokenizer.json would be for a folder; the caller frees it (json_decref). NULL on failure. */
json_t *token_merges_read(const char *folder, Error *err);

#endif
