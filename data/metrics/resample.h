/* resample.h - how sure a score is: bootstrap confidence intervals (Efron, 1979; Koehn, 2004), and
 * whether one system is better than another: paired bootstrap and approximate randomization (Riezler
 * and Maxwell, 2005), as sacrebleu's --confidence, --paired-bs and --paired-ar with the same random
 * numbers.
 *
 * A score is a function of sums over the lines: of BLEU's counts, of a mean's values. Each resample
 * draws as many lines as there are, with replacement; the interval goes from the 2.5th to the 97.5th
 * percentile of the resamples' scores.
 *
 * A mean over several parts (files, subjects) has each part resampled by itself, part p with the
 * seed plus p.
 *
 * The p value is (c + 1) / (samples + 1), where sacrebleu's c counts the samples with a larger
 * difference than the measured one. For BLEU and chrF this is done here, too. Means of rights and
 * wrongs have few values, and many samples with exactly the measured difference, which must count:
 * without them 6 answers that became right and none that became wrong would have a p of 0.0001
 * instead of 2 / 2^6. Systems without any difference have a p of 1.
 */
#ifndef EASYFIRST_DATA_METRICS_RESAMPLE_H
#define EASYFIRST_DATA_METRICS_RESAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

enum { RESAMPLE_SAMPLES = 1000, RESAMPLE_TRIALS = 10000, RESAMPLE_SEED = 12345 };

/* The sums of a resample into a score; NaN: it has none (no line of it counts). */
typedef double (*LineScore)(const double *sums, const void *user);

typedef struct LineStats {
    double *rows; /* [count, width]; owned */
    int64_t count;
    int width;
    LineScore score;
    const void *user; /* for `score`; the caller's */
    bool ties;        /* in a test, samples with the very same difference count (see below) */
} LineStats;

void line_stats_free(LineStats *stats);

/* Room for `count` lines of zeros. */
int line_stats_open(LineStats *stats, int64_t count, int width, Error *err);

/* The score of all lines. */
double line_stats_score(const LineStats *stats);

/* For means, in percent: lines of width 2, a value in 0..1 and its weight, 1 or 0. */
int mean_stats_open(LineStats *stats, int64_t count, Error *err);
void mean_stats_set(LineStats *stats, int64_t line, double value); /* NaN: it does not count */

/* Zeros are sacrebleu's. */
typedef struct ResampleOptions {
    int samples;   /* of a bootstrap; 0: 1000 */
    int trials;    /* of a randomization; 0: 10000 */
    uint64_t seed; /* 0: 12345 */
} ResampleOptions;

typedef struct Interval {
    double mean;      /* of the resamples' scores */
    double low, high; /* 95 % of them are in here */
} Interval;

static inline double interval_half(const Interval *i) {
    return 0.5 * (i->high - i->low);
}

/* The interval of the mean of the parts' scores [count]. */
int resample_interval(const LineStats *parts, int count, const ResampleOptions *options,
                      Interval *interval, Error *err);

typedef struct Paired {
    double scores[2]; /* of the first system and of the second */
    Interval intervals[2];
    Interval difference;          /* second minus first, from the same resamples */
    double p_bootstrap, p_random; /* two-sided: of so large a difference by chance */
} Paired;

/* Both tests of two systems on the same lines, part by part; errors: parts that differ in their
 * lines. */
int resample_pair(const LineStats *first, const LineStats *second, int count,
                  const ResampleOptions *options, Paired *paired, Error *err);

#endif
