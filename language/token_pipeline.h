/* token_pipeline.h - a tokenizer of transformers' fast kind: what tokenizer.json describes.
 *
 * A text goes through: added tokens that are found as they are, the normalizer, added tokens that
 * are found in normalized text, the pre-tokenizer, the model (bpe.h, unigram.h, wordpiece.h), which
 * makes ids of words; a cache keeps those of frequent words. The ids are those of transformers
 * without the special tokens around a text (add_special_tokens=False). "truncation" and "padding"
 * of the file are not used, as transformers sets both for each call.
 *
 * A folder of the older kind, vocab.json and merges.txt (GPT-2, RoBERTa), is read as the
 * tokenizer.json that transformers would make of it. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_PIPELINE_H
#define EASYFIRST_LANGUAGE_TOKEN_PIPELINE_H

#include <jansson.h>

#include "language/tokenizer.h"

typedef struct TokenPipeline TokenPipeline;

/* Opens a tokenizer.json. *pipeline is NULL on failure. Errors name the part that is damaged or not
 * supported. */
int token_pipeline_open(TokenPipeline **pipeline, const char *path, Error *err);

/* Opens the same as an object in memory; `path` names it in messages. */
int token_pipeline_make(TokenPipeline **pipeline, const json_t *root, const char *path, Error *err);

/* Opens a folder's vocab.json and merges.txt. */
int token_pipeline_open_merges(TokenPipeline **pipeline, const char *folder, Error *err);
void token_pipeline_close(TokenPipeline *pipeline);

int token_pipeline_encode(const TokenPipeline *pipeline, const char *text, size_t size, Ids *out,
                          Error *err);

/* Appends nothing of special tokens; ids have pieces (token_pipeline_piece). Not terminated. */
int token_pipeline_decode(const TokenPipeline *pipeline, const int32_t *ids, size_t count,
                          char **text, size_t *size, Error *err);

int32_t token_pipeline_size(const TokenPipeline *pipeline);
int32_t token_pipeline_id(const TokenPipeline *pipeline, const char *token); /* -1: none */
bool token_pipeline_has(const TokenPipeline *pipeline, int32_t id);
const char *token_pipeline_piece(const TokenPipeline *pipeline, int32_t id);
const char *token_pipeline_kind(const TokenPipeline *pipeline);

/* From here on this id is a special token, as far as decoding goes. */
void token_pipeline_make_special(TokenPipeline *pipeline, int32_t id);

/* What "post_processor" puts before and after a text. */
const Ids *token_pipeline_before(const TokenPipeline *pipeline);
const Ids *token_pipeline_after(const TokenPipeline *pipeline);

#endif
