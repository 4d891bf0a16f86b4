/* run.h - answers all items that have no answer yet, in batches as large as memory allows.
 *
 * Items about one image are a unit: the image is encoded once for all of them. Units are taken in
 * the order of their first items, and put into batches by tokens: with block-causal attention those
 * of the image and the prompts, which are computed once, and of the answers; with `full` those of
 * all sequences. While a batch is answered, a thread prefetches the images of the next one. No
 * answer depends on what else is in its batch (README, "Results do not depend on the batch"), so a
 * run that is interrupted and resumed, in other batches, gives the same answers.
 */
#ifndef EASYFIRST_APPS_EVAL_RUN_H
#define EASYFIRST_APPS_EVAL_RUN_H

#include "apps/eval/store.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"

/* The score of the answers so far, for the progress line. */
typedef struct EvalRunning {
    const char *name; /* "accuracy" */
    /* Adds the answer of an item; *score is that of all added ones, NaN: none yet. */
    int (*add)(void *user, int64_t index, double *score, Error *err);
    void *user;
} EvalRunning;

typedef struct EvalRunConfig {
    const char *what; /* "questions": the name of the items */
    const Session *session;
    AnswerOptions answer;
    const char *images;   /* folder; NULL: no item has an image */
    int64_t batch_tokens; /* 0: as many as fit into memory */
    bool quiet;
    EvalRunning running; /* `add` may be NULL */
} EvalRunConfig;

/* Answers the items of the store's shard that have no answer and can be asked, and appends the
 * answers batch by batch. What is wrong with one item (a prompt that is too long, which may be
 * skipped or shortened; a missing or broken image) is recorded in it. Errors: of the model and the
 * disk; a signal to stop, between two batches (apps/cli/signals.h); and, if nothing has been
 * answered yet and no image exists, the wrong folder of images. */
int eval_run(const EvalRunConfig *config, EvalStore *store, EvalItems *items, Timings *timings,
             Error *err);

#endif
