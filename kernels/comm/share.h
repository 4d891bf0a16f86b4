/* share.h - ranks that train one model, each on its part of every batch: what they exchange in an
 * update, by level (ZeRO; params.h).
 *
 *   0  gradients: all-reduce; every rank makes the whole update, and has the same weights bit for bit
 *   1  gradients: reduce-scatter; each rank updates its own values; weights: all-gather
 *   2  the same, but the gradients of a block are reduced as soon as the backward pass has left it,
 *      into the sums of its owners; those of embeddings, heads and small tables once a step
 *   3  and of a block's weights every rank has its own values; all are gathered before the forward or
 *      the backward pass enters the block, into memory that the next block takes. Embeddings and the
 *      vocabulary's matrix come in parts of about a block (kernels/parts.h), in the same memory: for
 *      the embeddings, for both passes of the loss over the vocabulary and, gradients only, for the
 *      embeddings again
 *
 * With ParamsShare.overlap (level 2: of gradients alone) a block or part is computed while the next
 * one's weights are gathered and the last one's gradients reduced. Neighbors then have different
 * memory; where two do not, the second one waits. The same sums in the same order: no bit changes.
 *
 * In bf16 the working copy (without masters: the weights) is gathered, and the f32 vectors are summed into place.
 */
#ifndef EASYFIRST_KERNELS_COMM_SHARE_H
#define EASYFIRST_KERNELS_COMM_SHARE_H

#include "kernels/block.h"
#include "kernels/comm/comm.h"
#include "kernels/moments.h"
#include "kernels/params.h"

enum { SHARE_TABLES = 8 };

typedef struct ShareTable {
    Params *params;
    Tensor m, v;
    const MomentTables *moments; /* in 8 bits, instead; else NULL */
    int64_t *bounds;             /* [ranks + 1] */
} ShareTable;

/* What a pass gathers and reduces, in this order on every rank: what is done with a block forward and
 * backward, and with a table's part what PartsUse says. */
typedef enum ShareUse {
    SHARE_LOOKUP = PARTS_LOOKUP,
    SHARE_SCAN = PARTS_SCAN,
    SHARE_GRADIENT = PARTS_GRADIENT,
    SHARE_LOOKED_UP = PARTS_LOOKED_UP,
    SHARE_FORWARD,
    SHARE_BACKWARD,
} ShareUse;

typedef struct ShareStep {
    int table, block; /* of share->tables, and of its stack or a part of its tables (ParamsRun) */
    ShareUse use;
} ShareStep;

typedef struct Share {
    Comm *comm; /* NULL: one process, and nothing below does anything */
    int level;
    ShareTable tables[SHARE_TABLES];
    int count;
    /* From level 2 on: a pass takes all steps, at level 3 a validation's the first `forward_count`;
     * every rank does, with rows for them or without. */
    ShareStep *steps;
    int step_count, forward_count;
    int next;                 /* step */
    int pending;              /* the step whose gradients are to be reduced before the next; -1 */
    int reducing;             /* the step whose gradients are being reduced; -1 */
    const ParamsRun *current; /* level 3: the gathered weights that are in use */
    int held;                 /* ... and the step that brought them */
    const ParamsRun *ahead;   /* those that are being gathered */
    BlockEnter enter;
    bool forward;                  /* passes have no backward pass */
    bool leading;                  /* rank 0 alone evaluates: the others gather with it */
    void *whole[2 * SHARE_TABLES]; /* then, on rank 0: tables that otherwise come in parts */
} Share;

void share_open(Share *share, Comm *comm, int level);
void share_close(Share *share);

/* Adds a table that params_train has laid out with this rank's ParamsShare, and its moments. A
 * backward pass reaches the tables with blocks in the opposite order. */
int share_add(Share *share, Params *params, Tensor m, Tensor v, const MomentTables *moments,
              Error *err);

/* ---- An update; all ranks call these together. ---- */

/* Gradients are sums over all ranks afterwards: own values' only, from level 1 on. */
int share_reduce(Share *share, Error *err);
/* Adds up a number that each rank has for its own values. */
int share_sum(Share *share, double *value, Error *err);
/* Brings the other ranks' new weights. */
int share_gather(Share *share, Error *err);

/* From level 2 on, else nothing: the backward pass has left this block of a stack; and the pass is over,
 * for a rank that had none, too: what has not been left yet, is. All ranks must have the same number
 * of passes. */
int share_left(void *share, const void *block, Error *err);
int share_pass_over(Share *share, Error *err);

/* Level 3, else nothing: what follows are passes without a backward pass, or with; and one such is
 * over, of which all ranks must have the same number. */
void share_evaluate(Share *share, bool forward);
int share_forward_over(Share *share, Error *err);

/* Level 3, else nothing: rank 0 may evaluate the model between share_lead and share_led, which all
 * ranks call: the others gather with it in share_lead, until its share_led. Rank 0 has the whole
 * embeddings in between. */
int share_lead(Share *share, Error *err);
int share_led(Share *share, Error *err);

/* ---- Values of other ranks, for rank 0's checkpoints. ---- */

/* Rank 0 may fetch (params_fetch_part and params_fetch_moment) between share_serve of all others
 * and its own share_served. */
int share_serve(Share *share, Error *err);
int share_served(Share *share, Error *err);

/* Whether all ranks have the same weights: an error of all ranks otherwise. */
int share_check(Share *share, Error *err);

#endif
