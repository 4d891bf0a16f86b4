/* token_template.h - "post_processor" of tokenizer.json: the special tokens around a text. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_TEMPLATE_H
#define EASYFIRST_LANGUAGE_TOKEN_TEMPLATE_H

#include <jansson.h>

#include "language/token_table.h"
#include "language/tokenizer.h"

/* Reads the value of "post_processor", which may be NULL or null: TemplateProcessing, Bert- and
 * RobertaProcessing, ByteLevel (which has none), Sequence. */
int token_template_read(const json_t *part, const TokenTable *table, Ids *before, Ids *after,
                        Error *err);

#endif
