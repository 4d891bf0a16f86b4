/* outcome.h - the numbers of a table: read from what the steps wrote, never from anywhere else. */
#ifndef EASYFIRST_APPS_REPRODUCE_OUTCOME_H
#define EASYFIRST_APPS_REPRODUCE_OUTCOME_H

#include "apps/reproduce/steps.h"

typedef struct Outcome {
    double value, low, high; /* NaN where there is none */
    const char *why;         /* why there is no value; NULL */
} Outcome;

/* The outcome of a cell. Its interval is the 95 % interval next to the value, where the command's
 * output has one: "confidence", "low" and "high", or 1.96 times a standard error "NAME_error".
 * Where the value's member is absent
 * (nothing could be answered) there is no number.
 * Errors: a finished step whose result has nothing like the value's path. */
int outcome_read(const Plan *plan, const PlanCell *cell, const StepRecord *records,
                 Outcome *outcome, Error *err);

#endif
