#include "data/metrics/resample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/metrics/numpy_random.h"

/* ---- Lines. ---- */

void line_stats_free(LineStats *s) {
    free(s->rows);
    *s = (LineStats){0};
}

int line_stats_open(LineStats *s, int64_t count, int width, Error *err) {
    *s = (LineStats){.count = count, .width = width};
    s->rows = calloc((size_t)count + 1, (size_t)width * sizeof *s->rows);
    return s->rows ? 0
                   : error_set(err, "out of memory for the scores of %lld lines", (long long)count);
}

/* Adds a row to sums. */
static void add_row(double *sums, const double *row, int width) {
    for (int c = 0; c < width; c++) sums[c] += row[c];
}

enum { WIDTH_MOST = 64 };

static void sum_all(const LineStats *s, double *sums) {
    memset(sums, 0, (size_t)s->width * sizeof *sums);
    for (int64_t i = 0; i < s->count; i++) add_row(sums, s->rows + i * s->width, s->width);
}

double line_stats_score(const LineStats *s) {
    double sums[WIDTH_MOST];
    sum_all(s, sums);
    return s->score(sums, s->user);
}

static double mean_score(const double *sums, const void *user) {
    (void)user;
    return sums[1] > 0 ? 100 * sums[0] / sums[1] : NAN;
}

int mean_stats_open(LineStats *s, int64_t count, Error *err) {
    TRY(line_stats_open(s, count, 2, err));
    s->score = mean_score, s->ties = true;
    return 0;
}

/* Rounded to multiples of 2^-32, whose sums are exact: scores do not depend on the order of the
 * lines, so that equal differences of shuffled systems are equal. */
void mean_stats_set(LineStats *s, int64_t line, double value) {
    double *row = s->rows + line * s->width;
    row[0] = isnan(value) ? 0 : ldexp(nearbyint(ldexp(value, 32)), -32);
    row[1] = isnan(value) ? 0 : 1;
}

/* ---- Samples. ---- */

/* Scores [samples] of a bootstrap of one part; of a second system on the same lines, too (NULL). */
static void bootstrap_part(const LineStats *first, const LineStats *second, uint64_t seed,
                           int samples, double *scores, double *others) {
    NumpyRandom random;
    double sums[WIDTH_MOST], more[WIDTH_MOST];
    const size_t size = (size_t)first->width * sizeof *sums;
    numpy_random_seed(&random, seed);
    for (int r = 0; r < samples; r++) {
        memset(sums, 0, size), memset(more, 0, size);
        for (int64_t i = 0; i < first->count; i++) {
            int64_t line = numpy_random_below(&random, (uint32_t)first->count);
            add_row(sums, first->rows + line * first->width, first->width);
            if (second) add_row(more, second->rows + line * first->width, first->width);
        }
        scores[r] = first->score(sums, first->user);
        if (second) others[r] = second->score(more, second->user);
    }
}

/* Each line of a trial goes to one system or to the other. */
static void randomize_part(const LineStats *first, const LineStats *second, uint64_t seed,
                           int trials, double *scores, double *others) {
    NumpyRandom random;
    double a[WIDTH_MOST], b[WIDTH_MOST];
    const int width = first->width;
    numpy_random_seed(&random, seed);
    for (int r = 0; r < trials; r++) {
        memset(a, 0, (size_t)width * sizeof *a), memset(b, 0, (size_t)width * sizeof *b);
        for (int64_t i = 0; i < first->count; i++) {
            bool kept = numpy_random_bit(&random);
            add_row(kept ? a : b, first->rows + i * width, width);
            add_row(kept ? b : a, second->rows + i * width, width);
        }
        scores[r] = first->score(a, first->user), others[r] = second->score(b, second->user);
    }
}

typedef void (*PartFill)(const LineStats *first, const LineStats *second, uint64_t seed,
                         int samples, double *scores, double *others);

/* Means over the parts, a part without a score left out. */
static int fill_means(PartFill fill, const LineStats *first, const LineStats *second, int count,
                      uint64_t seed, int samples, double *scores, double *others, Error *err) {
    const size_t n = (size_t)samples;
    double *one = malloc(4 * n * sizeof *one);
    if (!one) return error_set(err, "out of memory for %d resamples", samples);
    double *two = one + n, *seen[] = {one + 2 * n, one + 3 * n};
    memset(seen[0], 0, 2 * n * sizeof *one);
    double *sums[] = {scores, others};
    for (int s = 0; s < (second ? 2 : 1); s++) memset(sums[s], 0, n * sizeof *scores);
    for (int p = 0; p < count; p++) {
        fill(&first[p], second ? &second[p] : NULL, seed + (uint64_t)p, samples, one, two);
        for (int s = 0; s < (second ? 2 : 1); s++)
            for (int r = 0; r < samples; r++) {
                double value = (s ? two : one)[r];
                if (!isnan(value)) sums[s][r] += value, seen[s][r]++;
            }
    }
    for (int s = 0; s < (second ? 2 : 1); s++)
        for (int r = 0; r < samples; r++) sums[s][r] = seen[s][r] ? sums[s][r] / seen[s][r] : NAN;
    free(one);
    return 0;
}

static double score_mean(const LineStats *parts, int count) {
    double sum = 0;
    int seen = 0;
    for (int p = 0; p < count; p++) {
        double score = line_stats_score(&parts[p]);
        if (!isnan(score)) sum += score, seen++;
    }
    return seen ? sum / seen : NAN;
}

/* ---- Intervals. ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values; those without a score do not count. */
static Interval interval_of(double *values, int count) {
    int n = 0;
    double sum = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(values[i])) sum += values[i], values[n++] = values[i];
    if (!n) return (Interval){NAN, NAN, NAN};
    qsort(values, (size_t)n, sizeof *values, ascending);
    return (Interval){sum / n, values[n / 40], values[n - n / 40 - 1]};
}

static ResampleOptions defaults(const ResampleOptions *o) {
    ResampleOptions all = o ? *o : (ResampleOptions){0};
    if (!all.samples) all.samples = RESAMPLE_SAMPLES;
    if (!all.trials) all.trials = RESAMPLE_TRIALS;
    if (!all.seed) all.seed = RESAMPLE_SEED;
    return all;
}

static int check_parts(const LineStats *first, const LineStats *second, int count, Error *err) {
    for (int p = 0; p < count; p++) {
        if (first[p].count < 1) return error_set(err, "there are no lines to resample");
        if (first[p].count > UINT32_MAX - 1 || first[p].width > WIDTH_MOST)
            return error_set(err, "too many lines to resample: %lld", (long long)first[p].count);
        if (second && (first[p].count != second[p].count || first[p].width != second[p].width))
            return error_set(err, "the two systems have %lld and %lld lines",
                             (long long)first[p].count, (long long)second[p].count);
    }
    return 0;
}

int resample_interval(const LineStats *parts, int count, const ResampleOptions *options,
                      Interval *interval, Error *err) {
    ResampleOptions o = defaults(options);
    TRY(check_parts(parts, NULL, count, err));
    double *scores = malloc((size_t)o.samples * sizeof *scores);
    if (!scores) return error_set(err, "out of memory for %d resamples", o.samples);
    int status =
        fill_means(bootstrap_part, parts, NULL, count, o.seed, o.samples, scores, NULL, err);
    if (status == 0) *interval = interval_of(scores, o.samples);
    free(scores);
    return status;
}

/* ---- Two systems. ---- */

/* One is added to both counts: with few samples the null hypothesis is not rejected too often. */
static double p_value(const double *samples, int count, double difference, bool ties) {
    const double slack = 1e-9; /* of equal percentages that were computed from other sums */
    int above = 0;
    if (difference == 0) return 1;
    for (int i = 0; i < count; i++)
        above += ties ? samples[i] >= difference - slack : samples[i] > difference;
    return (double)(above + 1) / (double)(count + 1);
}

static int pair_bootstrap(const LineStats *first, const LineStats *second, int count,
                          const ResampleOptions *o, double difference, Paired *out, Error *err) {
    const int n = o->samples;
    double *a = malloc(3 * (size_t)n * sizeof *a);
    if (!a) return error_set(err, "out of memory for %d resamples", n);
    double *b = a + n, *d = b + n, mean = 0;
    int status = fill_means(bootstrap_part, first, second, count, o->seed, n, a, b, err);
    if (status == 0) {
        for (int i = 0; i < n; i++) mean += fabs(b[i] - a[i]) / n;
        for (int i = 0; i < n; i++) d[i] = fabs(b[i] - a[i]) - mean;
        out->p_bootstrap = p_value(d, n, difference, first->ties);
        for (int i = 0; i < n; i++) d[i] = b[i] - a[i];
        out->difference = interval_of(d, n);
        out->intervals[0] = interval_of(a, n), out->intervals[1] = interval_of(b, n);
    }
    free(a);
    return status;
}

static int pair_randomize(const LineStats *first, const LineStats *second, int count,
                          const ResampleOptions *o, double difference, Paired *out, Error *err) {
    const int n = o->trials;
    double *a = malloc(2 * (size_t)n * sizeof *a);
    if (!a) return error_set(err, "out of memory for %d trials", n);
    double *b = a + n;
    int status = fill_means(randomize_part, first, second, count, o->seed, n, a, b, err);
    for (int i = 0; i < n && status == 0; i++) a[i] = fabs(a[i] - b[i]);
    if (status == 0) out->p_random = p_value(a, n, difference, first->ties);
    free(a);
    return status;
}

int resample_pair(const LineStats *first, const LineStats *second, int count,
                  const ResampleOptions *options, Paired *out, Error *err) {
    ResampleOptions o = defaults(options);
    TRY(check_parts(first, second, count, err));
    *out = (Paired){.scores = {score_mean(first, count), score_mean(second, count)}};
    double difference = fabs(out->scores[1] - out->scores[0]);
    TRY(pair_bootstrap(first, second, count, &o, difference, out, err));
    return pair_randomize(first, second, count, &o, difference, out, err);
}
