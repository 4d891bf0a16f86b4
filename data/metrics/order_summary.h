/* order_summary.h - summarizes the decoding order of a set of answers (order_set.h) in a few
 * numbers with 95 % intervals.
 *
 * A ratio is a sum over answers divided by another: pairs, places, steps, or answers. Answers that
 * add nothing to the denominator are left out, and its interval is the bootstrap's over those that
 * remain: answers are independent, not the words in them.
 *
 * Noise of the strategies cmlm and stochastic is a function of seed, length and sample
 * (language/decode.h): answers of one length are then written in much the same order, and are not
 * independent. Such intervals are too narrow; several seeds show the true spread.
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_SUMMARY_H
#define EASYFIRST_DATA_METRICS_ORDER_SUMMARY_H

#include "data/metrics/order_set.h"

typedef struct OrderRatio {
    double value; /* NaN: no answer counts */
    double sum, weight;
    int64_t answers; /* that count */
    OrderInterval interval;
} OrderRatio;

typedef enum OrderNumber {
    ORDER_EASY_FIRST,   /* pairs of fixed or copied and content words: which was first */
    ORDER_FIXED_FIRST,  /* of fixed and content words */
    ORDER_COPIED_FIRST, /* of copied and content words */
    ORDER_SEEN_FIRST,   /* of fixed or copied and content words: which was first seen */
    ORDER_ERASED,       /* places that were erased, of those written */
    ORDER_ERASURES,     /* erasures an answer */
    ORDER_WITH_ERASURE, /* answers in which a place was erased */
    ORDER_RETURNS,      /* erasures after which the same token came back, of those rewritten */
    ORDER_KENDALL,      /* mean over answers with at least three tokens, not all of one step */
    ORDER_SPEARMAN,     /* the same */
    ORDER_SEVERAL,      /* steps that wrote several places, of those that wrote any */
    ORDER_STEP_WRITES,  /* places written in a step that wrote any */
    ORDER_NUMBERS,
} OrderNumber;

enum { ORDER_BINS = 20 };

/* After one step, over the answers; one that took fewer steps stays as it was at its end. */
typedef struct OrderPoint {
    int64_t answers;   /* that took so many steps */
    double filled;     /* mean share of the places that are not masked */
    double confidence; /* mean over answers of the mean probability of their tokens; NaN: all
                          masked */
} OrderPoint;

typedef struct OrderSummary {
    OrderCounts counts;             /* of all answers */
    int64_t classes[ORDER_CLASSES]; /* words */
    int64_t pairs[EASY_COUNT], ties[EASY_COUNT], seen_ties;
    double chance[EASY_COUNT], seen_chance; /* shares in random order; NaN without pairs */
    OrderRatio numbers[ORDER_NUMBERS];      /* shares from 0 to 1, correlations from -1 to 1 */
    int64_t bins[ORDER_BINS]; /* answers by Kendall's tau-b: equal parts of [-1, 1]; a bound
                                 belongs to the part above it, 1 to the last */
    OrderPoint *points;       /* [point_count], step 1 first */
    int point_count;
} OrderSummary;

/* Of a finished set. Free with order_summary_free, failed or not. */
int order_summary(const OrderSet *set, uint64_t seed, OrderSummary *summary, Error *err);
void order_summary_free(OrderSummary *summary);

#endif
