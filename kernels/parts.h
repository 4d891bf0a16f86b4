/* parts.h - weights of which only some rows are in memory at a time: a vocabulary's matrix that several
 * processes share (comm/share.h).
 *
 * Such a weight's Tensor has `parts`; its shape is that of all rows, `data` and `grad` are those of the
 * part that was entered last, if it is an even one, and `apart` values after it those of an odd one.
 * Parts are equal, but for the last. They are entered in ascending order,
 * all of them, for each use; the gradient is zero then, and complete before another part is entered.
 */
#ifndef EASYFIRST_KERNELS_PARTS_H
#define EASYFIRST_KERNELS_PARTS_H

#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

/* What a part is entered for, in the order of a training pass. */
typedef enum PartsUse {
    PARTS_LOOKUP,    /* rows are read, of embeddings */
    PARTS_SCAN,      /* the loss over a vocabulary: its first pass */
    PARTS_GRADIENT,  /* ... and its second one, with gradients */
    PARTS_LOOKED_UP, /* gradients of the rows of PARTS_LOOKUP; the weights are not read */
} PartsUse;

typedef struct TensorParts {
    int64_t rows; /* of a part */
    int count;
    int64_t apart; /* 0: all parts have the same memory */
    int (*enter)(void *user, const struct TensorParts *parts, PartsUse use, int part, Error *err);
    void *user;
} TensorParts;

/* How many rows of a weight from `first` on are in the same part; of any weight. */
static inline int64_t parts_together(Tensor w, int64_t first) {
    const int64_t left = w.shape[0] - first;
    if (!w.parts) return left;
    const int64_t within = w.parts->rows - first % w.parts->rows;
    return within < left ? within : left;
}

/* Enters the part that begins with row `first`, if one does. */
int parts_enter(Tensor w, PartsUse use, int64_t first, Error *err);

/* Rows [first, first + count), all of the part that was entered last: weights and gradients. Of a
 * weight without parts these are tensor_rows. */
Tensor parts_rows(Tensor w, int64_t first, int64_t count);
Tensor parts_grad_rows(Tensor w, Tensor dw, int64_t first, int64_t count);

/* The arena's bytes for the two functions below. */
size_t parts_gather_bytes(int tokens);

/* gather_forward where the first term's table comes in parts; `ids` are its indices on the host. y is
 * f32: the sums are those of a whole table. */
int parts_gather(Arena *arena, Tensor y, const GatherTerm *terms, int count, const int32_t *ids,
                 Error *err);
/* gather_backward of such a table. */
int parts_gather_backward(Arena *arena, Tensor table, Tensor dy, const int32_t *ids, Error *err);

#endif
