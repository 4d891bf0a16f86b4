/* run.h - asks a model everything that has no answer yet, in batches as large as memory
 * allows.
 *
 * Items about one image are a unit: the image is encoded once for all of them. Units are taken in
 * the order in which their first items stand, and put into batches by tokens: with block-causal
 * attention those of the image and the prompts, which are computed once, and of the answers; with
 * `full` those of all sequences. While a batch is answered, a thread reads the images of the next
 * one. No answer depends on what else is in its batch (README, "Results do not depend on the
 * batch"), so a run that was interrupted, and goes on in other batches, gives the same ones.
 */
#ifndef EASYFIRST_APPS_EVAL_RUN_H
#define EASYFIRST_APPS_EVAL_RUN_H

#include "apps/eval/store.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"

typedef struct EvalRunConfig {
    const char *what; /* "questions": what the items are called */
    const Session *session;
    AnswerOptions answer;
    const char *images;   /* folder; NULL: no item has an image */
    int64_t batch_tokens; /* 0: as memory allows */
    bool quiet;
} EvalRunConfig;

/* Answers the items of the store's shard that have neither an answer nor a problem, and appends the
 * answers as they come. Trouble with one item (a prompt that is too long, which may be skipped or
 * shortened, an image that is missing or broken) is noted with it. Errors: of the model and the
 * disk; a signal that asks to stop, between two batches (apps/cli/signals.h); and if nothing has
 * been answered yet and no image is there at all, which must be the wrong folder. */
int eval_run(const EvalRunConfig *config, EvalStore *store, EvalItems *items, Timings *timings,
             Error *err);

#endif
