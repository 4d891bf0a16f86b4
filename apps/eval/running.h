/* running.h - the score of the answers so far, while an evaluation runs: the first metric of its
 * task, for the progress line. */
#ifndef EASYFIRST_APPS_EVAL_RUNNING_H
#define EASYFIRST_APPS_EVAL_RUNNING_H

#include "apps/eval/run.h"
#include "apps/eval/text_score.h"
#include "data/sets/gqa.h"

enum { RUNNING_COUNTS = 16 };

typedef struct Running {
    const EvalItems *items;
    const EvalTextSet *set; /* texts, scored by `options`; NULL: GQA's questions */
    const EvalTextOptions *options;
    char **golds; /* [gold_count] of GQA's first items; NULL: none */
    int64_t gold_count;
    double sums[RUNNING_COUNTS]; /* of BLEU's counts, or of values and their number */
} Running;

void running_texts(Running *running, const EvalTextSet *set, const EvalTextOptions *options);

/* Reads the gold answers of the first `asked` items. */
int running_gqa(Running *running, const EvalItems *items, const GqaQuestions *questions,
                int64_t asked, const char *path, Error *err);
void running_free(Running *running);

/* For EvalRunConfig. */
EvalRunning running_callback(Running *running);

#endif
