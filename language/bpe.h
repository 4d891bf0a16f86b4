/* bpe.h - byte pair encoding, "BPE" in tokenizer.json: a word begins as its characters, of which
 * the pair that was learned first is merged until there is none.
 *
 * A priority queue holds the pairs, so that a word of n characters takes n log n steps. A character
 * without a token becomes its bytes' tokens (<0x0A>, byte_fallback), the unknown token, or, where
 * there is neither, an error. */
#ifndef EASYFIRST_LANGUAGE_BPE_H
#define EASYFIRST_LANGUAGE_BPE_H

#include <jansson.h>

#include "language/token_table.h"
#include "language/tokenizer.h"

typedef struct BpeMerge {
    uint64_t pair; /* left << 32 | right, + 1; 0: a free slot */
    int32_t rank, id;
} BpeMerge;

typedef struct Bpe {
    const TokenTable *table;
    BpeMerge *merges;
    size_t slot_count;      /* a power of two */
    char *prefix, *suffix;  /* of a character within a word, of a word's last one; may be NULL */
    int32_t unknown;        /* -1: none */
    int32_t bytes[256];     /* tokens of bytes, -1: none */
    int32_t letters[0x144]; /* tokens of the first characters, as those of bytes; -1: none */
    bool fallback, fuse_unknown, ignore_merges;
} Bpe;

/* What encoding a word needs; zero-initialize, free with bpe_work_free. */
typedef struct BpeWork {
    struct BpeSymbol *symbols;
    struct BpeEntry *queue;
    size_t symbol_capacity, queue_capacity, queue_count;
} BpeWork;

/* Reads "model", whose vocabulary is in the table already; the table must stay. */
int bpe_open(Bpe *bpe, const json_t *model, const TokenTable *table, Error *err);
void bpe_close(Bpe *bpe);

/* Appends the ids of a word that is not empty. */
int bpe_encode(const Bpe *bpe, BpeWork *work, const char *word, size_t size, Ids *out, Error *err);
void bpe_work_free(BpeWork *work);

#endif
