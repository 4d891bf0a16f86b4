/* order.h - the decoding order of an answer: in which step each position was written, how often it
 * was erased, and how close the order is to left to right.
 *
 * An answer is a row of positions ("places"). After each step some of them hold a token. Terms:
 *
 *   written   in a step: it holds a token now, and was masked or held another token before
 *   erased    in a step: its token is gone (it was masked again, or overwritten by another token,
 *             which counts as erased and written)
 *   last      the step in which the final token was written for the last time
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_H
#define EASYFIRST_DATA_METRICS_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum { ORDER_MASKED = -1 };

/* The tokens of an answer after each of its steps. */
typedef struct OrderSteps {
    int steps, length;     /* at least 1 */
    const int32_t *tokens; /* [steps, length]: >= 0, or ORDER_MASKED */
} OrderSteps;

typedef struct OrderToken {
    int first;    /* step, from 1, in which it was first written; 0: never */
    int last;     /* see above; 0: masked at the end */
    int writes;   /* how often it was written */
    int erasures; /* how often it was erased */
    int rewrites; /* erasures after which it was written again ... */
    int returns;  /* ... with the token that had been erased */
} OrderToken;

/* Totals; they add up over answers. */
typedef struct OrderCounts {
    int64_t places, written; /* all; written at least once */
    int64_t unfinished;      /* masked at the end */
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
