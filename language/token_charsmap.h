/* token_charsmap.h - the normalizer "Precompiled" of tokenizer.json: a sentencepiece model's table
 * of replacements, applied as transformers' fast tokenizers do (not exactly as sentencepiece does).
 *
 * The table is base64 of: the bytes of an array (uint32, little-endian), the array (a double-array
 * trie over UTF-8, uint32), the replacements (each with a terminating 0). A grapheme of less than 6
 * bytes is replaced as a whole, by the replacement of the shortest rule that it begins with; if none
 * fits, each of its characters is tried. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_CHARSMAP_H
#define EASYFIRST_LANGUAGE_TOKEN_CHARSMAP_H

#include "language/token_text.h"

typedef struct TokenCharsmap {
    unsigned char *bytes; /* NULL: no rules */
    const unsigned char *units;
    const char *strings;
    uint32_t unit_count;
    size_t strings_size;
} TokenCharsmap;

int token_charsmap_open(TokenCharsmap *map, const char *base64, Error *err);
void token_charsmap_close(TokenCharsmap *map);

/* Appends the replaced text to *out. */
int token_charsmap_apply(const TokenCharsmap *map, const char *text, size_t size, TokenText *out,
                         Error *err);

#endif
