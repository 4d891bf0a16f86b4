/* steps.h - runs a plan's steps, and remembers which are finished.
 *
 * OUT/runs/NAME is what a step makes, OUT/steps/NAME.json {"command", "status", "seconds"} says that
 * it is finished, OUT/steps/NAME.out is what it printed. A finished step is not run again, an
 * interrupted training run or evaluation resumes.
 */
#ifndef EASYFIRST_APPS_REPRODUCE_STEPS_H
#define EASYFIRST_APPS_REPRODUCE_STEPS_H

#include "apps/reproduce/plan.h"

typedef enum StepState {
    STEP_WAITING, /* not run yet */
    STEP_DONE,
    STEP_FAILED,
    STEP_BLOCKED /* one that it comes after has failed */
} StepState;

typedef struct StepRecord {
    StepState state;
    int status; /* 1 of an evaluation with unanswered questions that has a result, too */
    double seconds;
} StepRecord;

typedef struct StepsOptions {
    const char *device; /* for training and evaluations; NULL: as they choose */
    int threads;        /* 0: likewise */
    bool quiet;
} StepsOptions;

/* What OUT says of each step; *records, step_count of them, is the caller's to free. Errors: a step
 * that was made by another command. */
int steps_records(const Plan *plan, StepRecord **records, Error *err);

/* Runs what is needed and not finished, in order. A step that fails leaves those after it blocked;
 * the others are run. *stopped: a signal asked to stop. */
int steps_run(const Plan *plan, const StepsOptions *options, StepRecord *records, bool *stopped,
              Error *err);

#endif
