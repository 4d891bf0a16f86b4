/* ngrams.h - numbers words, and counts the n-grams that hypothesis and references share. Private to
 * this folder.
 *
 * Comparison is exact, never by hash alone: a word has a number, and an n-gram of at most four
 * words, or of at most six characters (21 bits each), fits into 128 bits.
 */
#ifndef EASYFIRST_DATA_METRICS_NGRAMS_H
#define EASYFIRST_DATA_METRICS_NGRAMS_H

#include "data/metrics/unicode.h"

/* ---- Words. ---- */

typedef struct Word {
    uint64_t hash;
    size_t offset, size; /* in `bytes` */
} Word;

/* Zero-initialize. */
typedef struct Words {
    Word *items; /* [capacity]; word number k is items[k - 1] */
    size_t count, capacity;
    uint32_t *slots; /* [slot_count], a power of two: numbers, 0 for empty */
    size_t slot_count;
    char *bytes;
    size_t bytes_used, bytes_size;
} Words;

void words_free(Words *words);

/* The number, from 1, of these bytes: the same for the same bytes. */
int words_number(Words *words, const void *bytes, size_t size, uint32_t *number, Error *err);

/* The numbers of all words of a text, in a Codepoints array. */
int words_number_all(Words *words, const Codepoints *text, Codepoints *numbers, Error *err);

/* ---- N-grams. ---- */

typedef struct GramSlot {
    uint64_t high, low;
    uint32_t generation; /* an older one: the slot is empty */
    int32_t reference;   /* the last one that had it, from 1 */
    int32_t here, most;  /* how often it has it, and how often the one that has most */
    int32_t hypothesis;  /* how often the hypothesis has it */
} GramSlot;

/* Zero-initialize. */
typedef struct Grams {
    GramSlot *slots;
    size_t slot_count; /* a power of two */
    uint32_t generation;
} Grams;

void grams_free(Grams *grams);

/* Clears the table and reserves `most` distinct n-grams. */
int grams_begin(Grams *grams, size_t most, Error *err);

enum { GRAM_CHARACTERS = 21, GRAM_WORDS = 32 }; /* bits an item */

/* Counts the n-grams of a reference (numbered from 1, one after the other). */
void grams_add_reference(Grams *grams, const Codepoints *items, int n, int bits, int reference);

/* Afterwards: how many of the hypothesis's n-grams are in a reference, each clipped to the
 * reference with most of it. */
int64_t grams_match(Grams *grams, const Codepoints *items, int n, int bits);

/* The number of n-grams of `items` items. */
static inline int64_t gram_count(size_t items, int n) {
    return items < (size_t)n ? 0 : (int64_t)(items - (size_t)n + 1);
}

#endif
