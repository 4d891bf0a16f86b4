/* unigram.h - "Unigram" in tokenizer.json: the division of a word into pieces with the highest sum
 * of scores; of equal ones, the first that is found, as transformers' fast tokenizers do. */
#ifndef EASYFIRST_LANGUAGE_UNIGRAM_H
#define EASYFIRST_LANGUAGE_UNIGRAM_H

#include <jansson.h>

#include "language/token_table.h"
#include "language/token_trie.h"
#include "language/tokenizer.h"

typedef struct Unigram {
    const TokenTable *table;
    TokenTrie trie;
    double *scores;
    double unknown_score;
    int32_t unknown;    /* -1: none */
    int32_t bytes[256]; /* tokens of bytes, -1: none */
    bool fallback;
} Unigram;

typedef struct UnigramWork {
    struct UnigramNode *nodes;
    size_t capacity;
} UnigramWork;

/* Reads the vocabulary [[piece, score], ...] of "model" into a table. */
int unigram_read_vocabulary(const json_t *model, TokenTable *table, Error *err);

/* Reads "model", whose vocabulary is in the table already; the table must stay. */
int unigram_open(Unigram *unigram, const json_t *model, const TokenTable *table, Error *err);
void unigram_close(Unigram *unigram);

/* Appends the ids of a word that is not empty. */
int unigram_encode(const Unigram *unigram, UnigramWork *work, const char *word, size_t size,
                   Ids *out, Error *err);
void unigram_work_free(UnigramWork *work);

#endif
