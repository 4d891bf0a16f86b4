/* progress.h - how far a long run is, on standard error: a bar that is redrawn in place on a
 * terminal, else a line now and then. */
#ifndef EASYFIRST_APPS_EVAL_PROGRESS_H
#define EASYFIRST_APPS_EVAL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct EvalProgress {
    const char *what;    /* "questions" */
    int64_t done, total; /* of this run */
    bool quiet, terminal, drawn;
    double start, shown; /* seconds; when it began, and when it was last shown */
} EvalProgress;

void eval_progress_begin(EvalProgress *progress, const char *what, int64_t total, bool quiet);

/* So many more are done. */
void eval_progress_add(EvalProgress *progress, int64_t count);

/* Ends the line of a bar, so that something else can be printed. */
void eval_progress_end(EvalProgress *progress);

enum { EVAL_DURATION_SIZE = 32 };

/* "38 s", "12 min", "3 h 20 min", "2 d 4 h" */
void eval_duration(char out[EVAL_DURATION_SIZE], double seconds);

/* A number with commas between groups of three digits. */
void eval_number(char out[EVAL_DURATION_SIZE], int64_t number);

#endif
