/* token_added.h - "added_tokens" of tokenizer.json: tokens that are found in a text as a whole,
 * before it is divided. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_ADDED_H
#define EASYFIRST_LANGUAGE_TOKEN_ADDED_H

#include <jansson.h>

#include "language/token_normalize.h"
#include "language/token_table.h"
#include "language/token_trie.h"

typedef struct TokenAdded {
    struct TokenAddedToken *tokens;
    size_t count;
    TokenTrie raw, normalized; /* found in the text as it is, and as it is normalized */
} TokenAdded;

/* Reads the value of "added_tokens", which may be NULL, and adds them to the table. */
int token_added_open(TokenAdded *added, const json_t *list, const TokenNormalizer *normalizer,
                     TokenTable *table, Error *err);
void token_added_close(TokenAdded *added);

bool token_added_special(const TokenAdded *added, size_t i, int32_t *id);

/* Appends a text's pieces to *out: added tokens as ids, what is between them as texts. `trie` is one
 * of the set's. */
int token_added_find(const TokenAdded *added, const TokenTrie *trie, const char *text, size_t size,
                     bool first, TokenPieces *out, Error *err);

#endif
