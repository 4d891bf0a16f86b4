/* order_words.h - the words of a text in any language, and the positions of its tokens.
 *
 * Words are found by Unicode's rules for word boundaries (UAX #29, libunistring): a segment between
 * two boundaries that has a letter or a digit is a word, so that punctuation belongs to none,
 * "can't" and "3.5" are one word, and each Chinese character is one. Two words are the same if
 * their case folded NFKC forms are.
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_WORDS_H
#define EASYFIRST_DATA_METRICS_ORDER_WORDS_H

#include <stddef.h>

#include "kernels/error.h"

typedef struct OrderWord {
    size_t begin, end; /* bytes of the text */
    char *form;        /* case folded; owned */
} OrderWord;

typedef struct OrderWords {
    OrderWord *items; /* [count], in the order of the text */
    int count;
} OrderWords;

/* The words of a text in UTF-8. Errors: not valid UTF-8; out of memory. On failure *words is
 * empty. */
int order_words(OrderWords *words, const char *text, Error *err);
void order_words_free(OrderWords *words);

/* The text of pieces in which U+2581 means a space, on the heap, and where each piece ends in it:
 * piece i is its bytes [ends[i - 1], ends[i]). A space before the first is kept. */
int order_text(char **text, size_t *ends, const char *const *pieces, int count, Error *err);

/* The pieces that have bytes of [begin, end): [*first, *after), perhaps none. */
void order_places(const size_t *ends, int count, size_t begin, size_t end, int *first, int *after);

#endif
