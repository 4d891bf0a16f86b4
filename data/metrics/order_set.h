/* order_set.h - the decoding order over a set of answers: order.h's numbers, and whether the easy
 * words came first.
 *
 * Words (order_words.h) of the answers are of three classes:
 *
 *   fixed     it is in at least `fixed_share` of the set's answers that have a word, and in at
 *             least two: function words and what belongs to a template, in any language
 *   copied    not fixed, and it is also in the answer's own prompt
 *   content   the others
 *
 * A word is written when the last of its tokens is (`last` of order.h), and first seen when each of
 * their places has been written for the first time, even if erased later. Each pair of a word of an
 * easy class and a content word in one answer counts by which was written first; ties count half.
 * The share is the area under the ROC curve, pooled over the pairs of all answers.
 *
 * Chance: the same steps, given to the answer's tokens in random order. It is 0.5 for words of one
 * token, but a word of many tokens is complete later than a short one, and content words are
 * longer.
 *
 * A token that belongs to several words (Chinese) counts for each. An answer with a place masked at
 * the end keeps its complete words.
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_SET_H
#define EASYFIRST_DATA_METRICS_ORDER_SET_H

#include <stdbool.h>

#include "data/metrics/order.h"
#include "data/sets/text_table.h"

typedef enum OrderClass { ORDER_FIXED, ORDER_COPIED, ORDER_CONTENT, ORDER_CLASSES } OrderClass;

/* "fixed", "copied", "content" */
const char *order_class_name(OrderClass class);

typedef struct OrderSetWord {
    int32_t form;   /* number in the set's forms */
    int time;       /* step in which it was written */
    int seen;       /* step in which it was first seen, at most `time` */
    int begin, end; /* its tokens are [begin, end) */
    bool prompted;  /* also in the prompt */
    OrderClass class;
} OrderSetWord;

/* Pairs of an easy word and a content word. */
typedef struct OrderPairs {
    int64_t pairs, ties;
    double first;  /* in which the easy word was first, and half of the ties */
    double chance; /* what `first` would be on average in random order */
} OrderPairs;

/* Which easy words: those of a class, or of both. */
typedef enum OrderEasy { EASY_FIXED, EASY_COPIED, EASY_BOTH, EASY_COUNT } OrderEasy;

typedef struct OrderAnswer {
    int length, steps;
    char *text;               /* owned, as the next ones; order_text's */
    size_t *ends;             /* [length] where tokens end in it */
    OrderToken *tokens;       /* [length] */
    OrderCounts counts;       /* of this answer */
    double kendall, spearman; /* of place and `last`; NaN: fewer than 3 tokens, or all at once */
    double *filled;           /* [steps] share of the places that are not masked */
    double *confidence;       /* [steps] mean probability of the tokens; NaN: all masked */
    OrderSetWord *words;      /* [word_count] */
    int word_count;
    OrderPairs pairs[EASY_COUNT];
    OrderPairs seen_pairs; /* EASY_BOTH, of the steps in which words were first seen */
} OrderAnswer;

typedef struct OrderSet { /* zero-initialize */
    OrderAnswer *answers; /* [count], in the order in which they were added */
    size_t count, capacity;
    TextTable forms; /* of words; after order_set_finish with how many answers have each: */
    int64_t *form_answers;
    int64_t with_words; /* answers that have a word */
} OrderSet;

/* One answer: its tokens after each step with their log-probabilities [steps, length], its final
 * pieces [length] ("" where masked), and its prompt (UTF-8). Copies what it keeps. */
int order_set_add(OrderSet *set, const OrderSteps *steps, const float *scores,
                  const char *const *pieces, const char *prompt, Error *err);

enum { ORDER_SET_SHUFFLES = 200 };

/* Computes classes and pairs, after all answers were added; fixed_share in [0, 1]. Chance is of so
 * many random orders of each answer, by `seed`. May be called again with another share. */
int order_set_finish(OrderSet *set, double fixed_share, uint64_t seed, Error *err);

void order_set_free(OrderSet *set);

#endif
