/* rated.h - answers with their scores, and whether they are right: what a calibration is fitted to
 * and measured with. */
#ifndef EASYFIRST_APPS_EVAL_RATED_H
#define EASYFIRST_APPS_EVAL_RATED_H

#include "apps/eval/items.h"
#include "data/metrics/calibration.h"
#include "data/sets/gqa.h"

typedef struct Rated {
    CalibrationAnswer *answers; /* [count] */
    int64_t count;
    int64_t unanswered; /* questions without an answer */
    int64_t unscored;   /* answers without a score: of an easyfirst that did not record them */
    int64_t unknown;    /* answers to questions whose own answer is not known */
} Rated;

/* The answers of items[0 .. asked), which are the questions of `questions`, read from `path`. Right
 * is what GQA's accuracy counts as right. On failure *rated is empty. */
int rated_read(Rated *rated, const GqaQuestions *questions, const EvalItem *items, int64_t asked,
               const char *path, Error *err);
void rated_free(Rated *rated);

#endif
