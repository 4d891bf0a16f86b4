/* optimizer.h - AdamW over the flat tables of one or several models, optionally Muon for their
 * hidden matrices, and learning rate schedules.
 *
 * One update is: the norm of all gradients together, clipping, AdamW on each run of the flat tables
 * that shares its settings, Muon (muon.h) on each hidden matrix, the working copies in bf16,
 * zeroing the gradients. The moments have the layout of the master weights (params.h), or are in 8
 * bits, in tables of their own (moments.h); Muon's momentum takes the place of the first moment, and
 * the second stays zero. Everything is a pure function of its inputs, AdamW's part on any number of
 * threads.
 *
 * Of several ranks (comm/share.h) all make the same calls; gradients are summed first, and each
 * updates what it has to.
 */
#ifndef EASYFIRST_KERNELS_OPTIMIZER_H
#define EASYFIRST_KERNELS_OPTIMIZER_H

#include "kernels/comm/share.h"
#include "kernels/moments.h"
#include "kernels/params.h"

typedef enum OptimizerKind { OPTIMIZER_ADAMW, OPTIMIZER_MUON } OptimizerKind;

extern const char *const optimizer_names[]; /* "adamw", "muon" */

/* What an update in bf16 changes: f32 master weights, of which operations read a copy in bf16; or,
 * with none, the weights in bf16 themselves, which it rounds stochastically (adamw_step), in 2
 * instead of 6 bytes of each. Vectors are f32 in either case. */
typedef enum MasterKind { MASTERS_F32, MASTERS_NONE } MasterKind;

extern const char *const master_names[]; /* "f32", "none" */

typedef struct OptimizerConfig {
    float beta1, beta2, eps, weight_decay;
    bool decay_vectors; /* biases and norms, too (as torch's AdamW over all parameters does) */
    float clip;         /* largest norm of all gradients together; 0: no clipping */
    /* With OPTIMIZER_MUON matrices marked as hidden ones (params_mark_hidden) are Muon's, all else
     * stays AdamW's. Each is made orthogonal by itself: members of a joined group, and query, key
     * and value where they are one parameter. */
    OptimizerKind kind;
    float muon_momentum;
    MomentKind moments; /* of AdamW; Muon's are in 32 bits */
    MasterKind masters; /* none: AdamW's alone */
    uint64_t seed;      /* of stochastic rounding */
} OptimizerConfig;

enum { OPTIMIZER_PARTS = 8 };

/* One table of parameters and its learning rate, as a multiple of the schedule's. */
typedef struct OptimizerPart {
    Params *params;
    float rate;
    Tensor m, v; /* [own values] f32 on the device; not with MOMENTS_8BIT */
    bool narrow; /* MOMENTS_8BIT: instead */
    MomentTables moments;
} OptimizerPart;

typedef struct Optimizer {
    Device *device;
    OptimizerConfig config;
    OptimizerPart parts[OPTIMIZER_PARTS];
    int part_count;
    int64_t step; /* updates done; skipped ones do not count */
    Arena work;   /* Muon's workspace, for the largest of its matrices */
    Share *share; /* of several ranks; set before tables are added, NULL: one process */
} Optimizer;

/* open checks the settings (betas and momentum in [0, 1), eps above 0) and allocates nothing yet.
 * add allocates the moments (zero) of a table that params_train has laid out (without masters, if the
 * configuration says so: Params.masterless), and a larger
 * workspace if its matrices need one; the table stays the caller's and must outlive the optimizer.
 * Tables without a trainable parameter may be added too. After a failure of add, call close. */
int optimizer_open(Optimizer *optimizer, Device *device, const OptimizerConfig *config, Error *err);
int optimizer_add(Optimizer *optimizer, Params *params, float rate, Error *err);
void optimizer_close(Optimizer *optimizer);

/* Bytes of a table's moments in 32 bits; in those of a configuration, laid out or not. */
size_t optimizer_bytes(const Params *params);
size_t optimizer_moment_bytes(const OptimizerConfig *config, const Params *params);

/* Bytes of workspace for a table's matrices, laid out or not; several tables share the largest. 0
 * without Muon. */
size_t optimizer_work_bytes(const OptimizerConfig *config, const Params *params);

/* One update at learning rate `rate`. *norm is the gradients' norm before clipping; if it is above
 * config.clip, they are multiplied by clip / (norm + 1e-6), torch's clip_grad_norm_. A norm that is
 * not finite means a diverged step: nothing is updated, the gradients are zeroed, and the caller
 * must check *norm. */
int optimizer_step(Optimizer *optimizer, double rate, double *norm, Error *err);

typedef enum ScheduleKind {
    SCHEDULE_CONSTANT,
    SCHEDULE_INVERSE_SQRT, /* rate sqrt(warmup / step) after the warmup, as fairseq's */
    SCHEDULE_COSINE,       /* down to 0 over the steps after the warmup */
    SCHEDULE_LINEAR,       /* likewise */
    SCHEDULE_WSD           /* warmup, stable, decay: linearly down to 0 over the last steps */
} ScheduleKind;

extern const char *const schedule_names[]; /* "constant", "inverse-sqrt", "cosine", ... */
const char *schedule_name(ScheduleKind kind);

typedef struct Schedule {
    ScheduleKind kind;
    double rate;           /* the highest */
    int64_t warmup, steps; /* linear from rate / warmup in step 1 to rate in step `warmup` */
    int64_t decay;         /* wsd: the last steps, in which the rate falls */
} Schedule;

/* The learning rate of update `step`, from 1. With w = warmup and n = steps: inverse-sqrt is rate
 * sqrt(max(w, 1) / step); cosine is rate (1 + cos(pi p)) / 2 and linear rate (1 - p) with p = (step
 * - 1 - w) / (n - w), clamped to 0..1, so that the last update is not wasted on a rate of 0; wsd is
 * linear with n - decay in the place of w, if that is more. Steps beyond n have the rate of p = 1. */
double schedule_rate(const Schedule *schedule, int64_t step);

#endif
