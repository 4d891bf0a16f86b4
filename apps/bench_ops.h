/* bench_ops.h - the operations of kernels/ops.h as cases to be timed; private to `bench ops` and
 * its test.
 */
#ifndef EASYFIRST_APPS_BENCH_OPS_H
#define EASYFIRST_APPS_BENCH_OPS_H

#include "kernels/op_list.h"

/* The sizes of a model, as far as its operations depend on them. */
typedef struct OpShapes {
    const char *name;
    int rows; /* tokens, or patches and class: one sequence, which attends to all of itself */
    int width, heads, ffn;
    Activation activation;
    int vocabulary, answers;   /* 0: a model without; else the rows that logits are wanted of */
    int channels, side, patch; /* 0: a model without patches */
} OpShapes;

/* What one case works on. */
typedef struct OpWork {
    Device *device;
    const OpShapes *shapes;
    Dtype compute;
    int variant; /* which of several shapes, from 0 */
    /* Set by the setup: */
    char shape[64];            /* for people */
    double bytes, operations;  /* that a run moves and computes */
    size_t memory, host_bytes; /* of the arena, and on the host or in packs beside it */
    /* The rest is the case's own. */
    bool planning; /* nothing is allocated: only counted */
    Arena arena;
    Tensor y, x, w, b, dx, dw, db, dy, q, k, v, dq, dk, dv, stats, index, target, weight;
    GatherTerm terms[2];
    AttentionSpan span;
    int32_t *offsets, *tokens;
    int segments;
    float *scores;
    struct Packed *packed;
} OpWork;

typedef struct OpCase {
    const char *op; /* its name in OP_LIST */
    int (*setup)(OpWork *, Error *);
    int (*run)(OpWork *, Error *);
} OpCase;

/* One for each operation, in OP_LIST's order; the last one has no op. */
extern const OpCase op_cases[];

/* Whether a model of these sizes has the operation. */
bool op_case_applies(const OpCase *c, const OpShapes *shapes);

/* On how many shapes it is timed. */
int op_case_variants(const OpCase *c);

/* Sets everything up: planned first, then allocated; op_work_close after both, failed or not. */
int op_work_plan(OpWork *work, const OpCase *c, Device *device, const OpShapes *shapes,
                 Dtype compute, int variant, Error *err);
int op_work_open(OpWork *work, const OpCase *c, Error *err);
void op_work_close(OpWork *work);

typedef struct OpResult {
    char shape[64];
    double ms, ms_min, ms_max; /* of one call: the median, and between what */
    double bytes, operations;
    size_t needed; /* bytes of memory */
    bool skipped;  /* there is less than that: nothing was timed */
} OpResult;

/* Times a case: `runs` samples, each of as many calls as take a few milliseconds. */
int op_case_time(OpResult *result, const OpCase *c, Device *device, const OpShapes *shapes,
                 Dtype compute, int variant, int runs, Error *err);

/* Bytes a second of a large copy, read and written ones added up. */
int op_copy_peak(Device *device, double *rate, Error *err);

#endif
