/* together.h - an evaluation of several processes (mpirun, srun): each answers its part, as --shard
 * divides them, and the first then joins the files. Started alone, nothing here does anything. */
#ifndef EASYFIRST_APPS_EVAL_TOGETHER_H
#define EASYFIRST_APPS_EVAL_TOGETHER_H

#include "apps/eval/result.h"

/* The command's `run` and what it needs. */
typedef struct EvalTogether {
    EvalOptions *options;
    int (*open)(void *user, Error *err);   /* the model and the questions */
    int (*answer)(void *user, Error *err); /* what has no answer in the part of `options` */
    int (*finish)(void *user, Error *err); /* after all have been answered; the whole */
    void *user;
} EvalTogether;

/* Opens, answers and finishes, or, with --shard, only answers. The status of the command, without
 * its own failures: a message has been printed, by one process. */
int eval_together(const EvalTogether *together);

#endif
