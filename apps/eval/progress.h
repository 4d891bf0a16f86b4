/* progress.h - the progress of a long run on standard error: a bar redrawn in place on a terminal,
 * else a line now and then. */
#ifndef EASYFIRST_APPS_EVAL_PROGRESS_H
#define EASYFIRST_APPS_EVAL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct EvalProgress {
    const char *what;    /* "questions" */
    int64_t done, total; /* of this run */
    bool quiet, terminal, drawn;
    const char *score_name; /* NULL: there is no score */
    double score;           /* of the answers so far */
    double start, shown;    /* seconds: of the beginning, and of the last output */
} EvalProgress;

void eval_progress_begin(EvalProgress *progress, const char *what, int64_t total, bool quiet);

/* `count` more are done. */
void eval_progress_add(EvalProgress *progress, int64_t count);

/* The score so far, shown from the next update on; NaN: none yet. `name` must live as long. */
void eval_progress_score(EvalProgress *progress, const char *name, double score);

/* Ends the line of a bar, so that something else can be printed. */
void eval_progress_end(EvalProgress *progress);

#endif
