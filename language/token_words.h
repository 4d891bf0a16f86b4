/* token_words.h - a cache of words: text to ids, bounded, for one thread at a time. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_WORDS_H
#define EASYFIRST_LANGUAGE_TOKEN_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "language/token_text.h"
#include "language/tokenizer.h"

typedef struct TokenWord TokenWord;

typedef struct TokenWords {
    TokenWord *slots;
    size_t count;
    TokenText text;
    Ids ids;
} TokenWords;

size_t token_hash(const char *bytes, size_t size);

/* Longer words are not kept. */
enum { TOKEN_WORD_LONGEST = 128 };

/* Appends the ids of a word that is known to *out; *found says whether it is. */
int token_words_find(const TokenWords *words, const char *bytes, size_t size, Ids *out, bool *found,
                     Error *err);

/* Keeps a word with its ids. A full cache is emptied first. */
int token_words_keep(TokenWords *words, const char *bytes, size_t size, const int32_t *ids,
                     size_t count, Error *err);
void token_words_free(TokenWords *words);

#endif
