/* sure.h - how sure the scores of `easyfirst score text` are: intervals, and the comparison with a
 * baseline. */
#ifndef EASYFIRST_APPS_SCORE_SURE_H
#define EASYFIRST_APPS_SCORE_SURE_H

#include <stdbool.h>

#include <jansson.h>

#include "data/metrics/resample.h"

typedef struct Sure {
    bool confidence;
    const char *baseline; /* the file of the other system's answers; NULL: none */
    ResampleOptions options;
    json_t *result; /* gets "confidence" and "paired"; NULL: no JSON is wanted */
    bool known;     /* what is below is of the current metric */
    Paired paired;  /* baseline, system; without a baseline intervals[1] alone */
} Sure;

/* Resamples a metric of both systems (`first` is used with a baseline only). */
int sure_resample(Sure *sure, const char *name, const LineStats *first, const LineStats *second,
                  Error *err);

/* "NAME|SIGNATURE LINE" where line is " = 34.10 ...", as sacrebleu prints it: with intervals the
 * signature has their number and seed, and the score is followed by (μ = 34.11 ± 0.62). */
void sure_print_corpus(const Sure *sure, const char *name, const char *signature, const char *line);

/* The end of a line that has an open bracket. */
void sure_print_end(const Sure *sure);

/* {"mean", "half_width", "low", "high"} */
json_t *interval_json(const Interval *interval);

/* {"baseline", "system", "difference", "low", "high" of its interval, "p_bootstrap",
 * "p_randomization"} */
json_t *paired_json(const Paired *paired);

#endif
