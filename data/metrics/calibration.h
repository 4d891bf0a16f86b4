/* calibration.h - how sure a model may be of its answers: a logistic fit from an answer's score to
 * the probability that it is right, the threshold for "not sure", and how good both are.
 *
 * The fit is Platt's (1999): maximum likelihood of sigmoid(slope * score + offset [+ length *
 * tokens]) by Newton's method, where the targets are not 1 and 0 but (R + 1) / (R + 2) for the R
 * right answers and 1 / (W + 2) for the W wrong ones. These are the means of the answers' posterior
 * under a uniform prior; they differ from 1 and 0 by one part in the number of answers, and keep
 * the fit finite where a score separates right and wrong perfectly.
 */
#ifndef EASYFIRST_DATA_METRICS_CALIBRATION_H
#define EASYFIRST_DATA_METRICS_CALIBRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct CalibrationAnswer {
    double score; /* mean log-probability of its tokens */
    int length;   /* in tokens */
    bool right;
} CalibrationAnswer;

typedef struct CalibrationFit {
    double slope, offset, length;
    int steps;   /* Newton's */
    double loss; /* mean cross-entropy to the targets */
} CalibrationFit;

/* Without `with_length` its weight is 0, as is that of a predictor which all answers have alike.
 * Errors: fewer than CALIBRATION_LEAST answers, none right, none wrong, scores that are not
 * finite. */
enum { CALIBRATION_LEAST = 10 };
int calibration_fit(CalibrationFit *fit, const CalibrationAnswer *answers, int64_t count,
                    bool with_length, Error *err);

/* The largest threshold, rounded down to six decimals, below which lie at most the share
 * `most_right` of the right answers' probabilities; 0 without right answers. */
int calibration_threshold(double *threshold, const double *probabilities,
                          const CalibrationAnswer *answers, int64_t count, double most_right,
                          Error *err);

enum { CALIBRATION_BINS = 10 };

/* Answers with a probability in [b / 10, (b + 1) / 10); 1 is in the last bin. */
typedef struct CalibrationBin {
    int64_t count;
    double probability, right; /* mean probability, share of right ones; 0 in an empty bin */
} CalibrationBin;

typedef struct CalibrationReport {
    int64_t count, right;
    int64_t unsure, unsure_right; /* with a probability below the threshold; right ones of them */
    double threshold;
    double brier; /* mean squared difference between probability and right (1) or wrong (0) */
    double ece;   /* expected calibration error: over the bins the mean, weighted by their answers,
                     of |mean probability - share of right ones| */
    CalibrationBin bins[CALIBRATION_BINS];
} CalibrationReport;

/* Probabilities from 0 to 1. */
void calibration_measure(CalibrationReport *report, const double *probabilities,
                         const CalibrationAnswer *answers, int64_t count, double threshold);

#endif
