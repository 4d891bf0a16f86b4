/* token_normalize.h - "normalizer" of tokenizer.json: how a text is changed before it is divided.
 *
 * Known: NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Replace, Prepend, Precompiled, Nmt,
 * BertNormalizer, ByteLevel and Sequence. Characters' properties are those of libunistring. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_NORMALIZE_H
#define EASYFIRST_LANGUAGE_TOKEN_NORMALIZE_H

#include <jansson.h>

#include "language/token_pattern.h"
#include "language/token_text.h"

typedef struct TokenNormalizeStep TokenNormalizeStep;

typedef struct TokenNormalizer {
    TokenNormalizeStep *steps;
    int count;
} TokenNormalizer;

/* Reads the value of "normalizer", which may be NULL or null. */
int token_normalizer_open(TokenNormalizer *normalizer, const json_t *part, Error *err);
void token_normalizer_close(TokenNormalizer *normalizer);

/* Normalizes *text in place; *spare is room for it. *first becomes false if characters at the start
 * were removed. */
int token_normalize(const TokenNormalizer *normalizer, TokenMatcher *matcher, TokenText *text,
                    TokenText *spare, bool *first, Error *err);

/* Appends a text, with each occurrence of a string, or match of a pattern if that is not NULL,
 * replaced. */
int token_replace(const char *text, size_t size, const char *string, const TokenPattern *pattern,
                  TokenMatcher *matcher, const char *with, TokenText *out, Error *err);

#endif
