/* token_decode.h - "decoder" of tokenizer.json: how tokens become a text again.
 *
 * Known: ByteLevel, Metaspace, WordPiece, BPEDecoder, ByteFallback, Fuse, Strip, Replace and
 * Sequence. Without one, tokens are joined with spaces. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_DECODE_H
#define EASYFIRST_LANGUAGE_TOKEN_DECODE_H

#include <jansson.h>

#include "language/token_pattern.h"
#include "language/token_text.h"

typedef struct TokenDecodeStep TokenDecodeStep;

typedef struct TokenDecoder {
    TokenDecodeStep *steps;
    int count;
    bool present;
    bool byte_level; /* tokens are in the alphabet of bytes */
} TokenDecoder;

/* Reads the value of "decoder", which may be NULL or null. */
int token_decoder_open(TokenDecoder *decoder, const json_t *part, Error *err);
void token_decoder_close(TokenDecoder *decoder);

/* Appends the text of a list of tokens, which is changed; *spare is room for it. */
int token_decode(const TokenDecoder *decoder, TokenMatcher *matcher, TokenPieces *tokens,
                 TokenPieces *spare, TokenText *out, Error *err);

#endif
