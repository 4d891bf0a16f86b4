/* order_set.h - the order of writing over a set of answers: order.h's numbers, and whether the easy
 * words came first.
 *
 * Words (order_words.h) of the answers are of three classes:
 *
 *   fixed     it stands in at least `fixed_share` of the set's answers that have a word, and in two
 *             at least: function words and what belongs to a template, in any language
 *   copied    not fixed, and it stands in the answer's own prompt, too
 *   content   the others
 *
 * A word is written when the last of its tokens is (`last` of order.h), and first seen when
 * something has been written in each of their places for the first time, whatever became of it. Of
 * each pair of a word of an easy class and a content word in one answer it counts which was written
 * first; ties count half. The share is the area under the ROC curve, pooled over the pairs of all
 * answers.
 *
 * Chance: the same steps, given to the answer's tokens in random order. It is 0.5 for words of one
 * token, but a word of many tokens is there later than a short one, and content words are longer.
 *
 * A token that belongs to several words (Chinese) counts for each. An answer with a place in which
 * nothing stands at the end keeps the words that are whole.
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
    bool prompted;  /* stands in the prompt */
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
    double *filled;           /* [steps] share of the places in which something stands */
    double *confidence;       /* [steps] mean probability of what stands; NaN: nothing does */
    OrderSetWord *words;      /* [word_count] */
    int word_count;
    OrderPairs pairs[EASY_COUNT];
    OrderPairs seen_pairs; /* EASY_BOTH, of the steps in which words were first seen */
} OrderAnswer;

typedef struct OrderSet { /* zero-initialise */
    OrderAnswer *answers; /* [count], in the order in which they were added */
    size_t count, capacity;
    TextTable forms; /* of words; after order_set_finish with how many answers have each: */
    int64_t *form_answers;
    int64_t with_words; /* answers that have a word */
} OrderSet;

/* One answer: what stood in it after each step with its log-probability [steps, length], the pieces
 * [length] of its end ("" where nothing stands), and its prompt (UTF-8). Copies what it keeps. */
int order_set_add(OrderSet *set, const OrderSteps *steps, const float *scores,
                  const char *const *pieces, const char *prompt, Error *err);

enum { ORDER_SET_SHUFFLES = 200 };

/* Classes and pairs, when all answers are there; fixed_share in [0, 1]. Chance is of so many random
 * orders of each answer, by `seed`. May be called again with another share. */
int order_set_finish(OrderSet *set, double fixed_share, uint64_t seed, Error *err);

void order_set_free(OrderSet *set);

#endif
