/* token_specials.h - which tokens of a tokenizer begin and end texts, fill up, are unknown, are
 * masked. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_SPECIALS_H
#define EASYFIRST_LANGUAGE_TOKEN_SPECIALS_H

#include "language/token_pipeline.h"
#include "language/tokenizer.h"

/* Fills in what is -1 in *specials from a folder's files (NULL: no folder), in this order:
 * tokenizer_config.json, special_tokens_map.json, config.json, usual names of added tokens. Errors:
 * a file that cannot be read, a token or an id that the vocabulary lacks. */
int token_specials_read(TokenizerSpecials *specials, const char *folder,
                        const TokenPipeline *pipeline, Error *err);

#endif
