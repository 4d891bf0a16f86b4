/* token_split.h - "pre_tokenizer" of tokenizer.json: how a text is divided into words.
 *
 * Known: ByteLevel, Split, Metaspace, BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation,
 * Digits, CharDelimiterSplit and Sequence. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_SPLIT_H
#define EASYFIRST_LANGUAGE_TOKEN_SPLIT_H

#include <jansson.h>

#include "language/token_pattern.h"
#include "language/token_text.h"

typedef struct TokenSplitStep TokenSplitStep;

typedef struct TokenSplitter {
    TokenSplitStep *steps;
    int count;
    bool byte_level; /* words are in the alphabet of bytes */
} TokenSplitter;

/* Reads the value of "pre_tokenizer", which may be NULL or null. */
int token_splitter_open(TokenSplitter *splitter, const json_t *part, Error *err);
void token_splitter_close(TokenSplitter *splitter);

/* Divides the texts in *pieces further; ids stay. *spare is room for them. */
int token_split(const TokenSplitter *splitter, TokenMatcher *matcher, TokenPieces *pieces,
                TokenPieces *spare, Error *err);

#endif
