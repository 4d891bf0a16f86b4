/* order.h - in which order an answer was written: when each place was, how often it was erased, and
 * how far the order is the one from left to right.
 *
 * An answer is a row of places. After each step something stands in some of them. Words used here:
 *
 *   written   in a step: something stands there now, and before it nothing or something else did
 *   erased    in a step: what stood there before it does not any more (it was masked again, or
 *             something else was written over it, which is an erasure and a writing)
 *   last      the step from which on what stands there at the end has stood there
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_H
#define EASYFIRST_DATA_METRICS_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum { ORDER_MASKED = -1 };

/* What stood in an answer after each of its steps. */
typedef struct OrderSteps {
    int steps, length;     /* at least 1 */
    const int32_t *tokens; /* [steps, length]: >= 0, or ORDER_MASKED where nothing stands */
} OrderSteps;

typedef struct OrderToken {
    int first;    /* step, from 1, in which something was first written here; 0: never */
    int last;     /* see above; 0: nothing stands here at the end */
    int writes;   /* how often something was written */
    int erasures; /* how often it was erased */
    int rewrites; /* erasures after which something was written again ... */
    int returns;  /* ... and what was written next was what had been erased */
} OrderToken;

/* Added up; sums of answers are sums of these. */
typedef struct OrderCounts {
    int64_t places, written; /* all; in which something was written at least once */
    int64_t unfinished;      /* in which nothing stands at the end */
    int64_t erased;          /* places erased at least once */
    int64_t writes, erasures, rewrites, returns;
    int64_t steps, writing_steps; /* all; that wrote something */
    int64_t several_steps;        /* that wrote two places or more */
} OrderCounts;

/* tokens [length] are written; the answer's numbers are added to *counts. */
void order_count(const OrderSteps *steps, OrderToken *tokens, OrderCounts *counts);

/* Kendall's tau-b (Kendall 1945) of n pairs, and Spearman's coefficient of rank correlation (1904),
 * Pearson's of the ranks, where those that are equal share the mean rank. NaN where it is not
 * defined: n < 2, or all x or all y equal. Quadratic in n: meant for answers. */
double order_kendall(const int *x, const int *y, int n);
double order_spearman(const int *x, const int *y, int n);

typedef struct OrderInterval {
    double low, high; /* NaN for fewer than two items */
} OrderInterval;

/* Fisher's and Yates's shuffle with random_uniform(seed, stream, i). */
void order_shuffle(int *items, int count, uint64_t seed, uint64_t stream);

enum { ORDER_RESAMPLES = 2000 };

/* Where the ratio sum(sums) / sum(weights) of n independent items lies with 95 % confidence: the
 * percentile bootstrap (Efron 1979), items drawn with replacement ORDER_RESAMPLES times,
 * quantiles interpolated linearly. Weights are > 0. The same seed gives the same interval. */
int order_interval(const double *sums, const double *weights, size_t n, uint64_t seed,
                   OrderInterval *interval, Error *err);

#endif
