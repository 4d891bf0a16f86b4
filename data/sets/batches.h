/* batches.h - divides the data into training steps.
 *
 * A unit is never split: an example, or an image with all its questions. An epoch is a shuffled
 * pass over all units, cut into steps by number of units or of tokens. Steps are of one modality,
 * with an image or without (LLaVA's sampler), and of units of similar length: units are shuffled,
 * cut into megabatches, sorted by length within each, and the steps shuffled again. (Or `mixed`:
 * packed sequences need not be of equal length, and a model trained on several tasks then has all
 * of them in each update.) A plan is a pure function of the units, the configuration, the seed and
 * the epoch: a step can be found again from its number alone.
 */
#ifndef EASYFIRST_DATA_SETS_BATCHES_H
#define EASYFIRST_DATA_SETS_BATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct BatchUnit {
    int64_t record;    /* which record it comes from */
    int32_t turn;      /* which of its turns; below 0: several of them */
    int32_t tokens;    /* length, for grouping and for batches by tokens */
    int32_t sequences; /* examples in it: 1, or the number of turns */
    int16_t source;    /* of a mixture */
    bool image;
} BatchUnit;

typedef struct BatchConfig {
    int64_t tokens; /* a step's tokens at most (one unit always fits); 0: by sequences */
    int sequences;  /* a step's sequences at most */
    bool in_order;  /* not shuffled, grouped, weighted or kept to one modality: in file order, each
                       unit once */
    bool mixed;     /* only shuffled: a step has both modalities and all lengths, in shuffled
                       order */
    int megabatch;  /* steps' worth of units that are sorted together; 0: 50 */
    uint64_t seed;
    const double *weights; /* [sources] of a mixture; NULL: every unit once an epoch. With weights
                              an epoch draws `count` units; each is from source s with probability
                              weight[s] / sum, and a source's units repeat in shuffled order, across
                              epochs, without omissions */
    int sources;
} BatchConfig;

/* An epoch's steps. */
typedef struct BatchPlan {
    int64_t *order;      /* unit indices */
    int64_t *step_begin; /* [steps + 1] in order */
    int64_t steps;
} BatchPlan;

/* Takes 16 bytes a unit while it works (with weights 24) and 24 more for each of one megabatch, O(n
 * log n), and with weights the draws of all earlier epochs, some nanoseconds each. If both budgets
 * are given both apply. Errors: no unit, no budget, a source with a weight but without units. *plan
 * is empty on failure. */
int batches_plan(BatchPlan *plan, const BatchUnit *units, int64_t count, const BatchConfig *config,
                 int64_t epoch, Error *err);
void batches_free(BatchPlan *plan);

#endif
