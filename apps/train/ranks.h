/* ranks.h - a run of several processes (mpirun, srun): each makes its part of every batch, and they
 * exchange gradients and weights (kernels/comm/). Rank 0 alone writes files and prints. Of one
 * process every function here does nothing.
 *
 * All ranks take the same decisions, since they are made from numbers of all of them. A failure of
 * one rank is told the others where they next agree; then all end as one process does. Where a rank
 * fails in between, it ends all of them at once (ranks_close), as mpirun does if one is killed.
 */
#ifndef EASYFIRST_APPS_TRAIN_RANKS_H
#define EASYFIRST_APPS_TRAIN_RANKS_H

#include "apps/train/checkpoint.h"
#include "apps/train/loader_step.h"
#include "kernels/comm/share.h"

typedef struct Ranks {
    Comm *comm; /* NULL: one process */
    int rank, size;
    Share share;
    int threads; /* for this rank, if the settings say nothing; 0: as for one process */
    bool agreed; /* the failure is known to all ranks */
    int signal;  /* that any rank has got, as of the last step; 0: none */
} Ranks;

/* What all ranks together have in a step: LoaderStep has the sums, but its own passes. */
typedef struct RanksStep {
    bool passes, targets; /* whether any rank has passes, and any targets in them */
    int64_t bad;          /* records left out */
    int rounds;           /* passes with rows of the rank that has most of them */
} RanksStep;

/* Only the first prints what concerns all of them. */
bool ranks_is_first(const Ranks *ranks);

/* Joins the others; the settings then have this rank's part, and are quiet for all but the first. */
int ranks_open(Ranks *ranks, TrainSettings *settings, Error *err);
/* Whether a failure is known to all ranks. */
bool ranks_agreed(const Ranks *ranks);
/* The end. After a failure that not all know of, its message is printed and all ranks end here. */
void ranks_close(Ranks *ranks, int status, const Error *err);

/* Fails for all if one has failed (`status`); the message is printed by the first that failed, and
 * the others' is empty. */
int ranks_agree(Ranks *ranks, int status, Error *err);

/* Brings rank 0's checkpoint, which it resumes from, and its state; the data are not. */
int ranks_state(Ranks *ranks, char **last, TrainState *state, Error *err);

/* Agrees and completes a step that was loaded: see RanksStep; the weights of its losses are those
 * of the whole batch then. */
int ranks_step(Ranks *ranks, int status, LoaderStep *step, RanksStep *all, Error *err);

/* After a step's passes: agrees and adds up their losses. */
int ranks_loss(Ranks *ranks, int status, double *loss, Error *err);

/* Adds up counts of all ranks. */
int ranks_sum(Ranks *ranks, int64_t *counts, int count, Error *err);

/* Brings rank 0's bytes. */
int ranks_broadcast(Ranks *ranks, void *bytes, size_t count, Error *err);

/* Rank 0 does something for which it may need other ranks' weights and moments; the others help. */
int ranks_first_does(Ranks *ranks, int (*work)(void *user, Error *err), void *user, Error *err);

/* What the ranks have exchanged in so many updates, of so many passes of the rank that had most; all
 * call it. NULL for one process. Free it. */
char *ranks_text(Ranks *ranks, int64_t updates, int64_t passes);

#endif
