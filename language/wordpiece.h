/* wordpiece.h - BERT's "WordPiece": the longest piece that a word begins with, then the longest of
 * those that continue one ("##ing"), and so on; a word that cannot be divided is unknown. */
#ifndef EASYFIRST_LANGUAGE_WORDPIECE_H
#define EASYFIRST_LANGUAGE_WORDPIECE_H

#include <jansson.h>

#include "language/token_table.h"
#include "language/token_trie.h"
#include "language/tokenizer.h"

typedef struct WordPiece {
    TokenTrie first, next; /* pieces at the start of a word, and after it, without the prefix */
    int64_t longest;       /* longer words, in characters, are unknown */
    int32_t unknown;
} WordPiece;

/* Reads "model", whose vocabulary is in the table already. */
int wordpiece_open(WordPiece *pieces, const json_t *model, const TokenTable *table, Error *err);
void wordpiece_close(WordPiece *pieces);

/* Appends the ids of a word that is not empty. */
int wordpiece_encode(const WordPiece *pieces, const char *word, size_t size, Ids *out, Error *err);

#endif
