/* look.h - looking into an evaluation: where the answer's rows attend, and what else they would
 * say.
 *
 * Attention: for an answer row, the weights softmax(q k / sqrt(d)) that it gives to the rows of the
 * picture, mean over the heads, for each layer, and their mean over the layers. They are shares of
 * the whole attention: over all rows of the sequence they sum to 1, over the picture's to what is
 * left beside the text. The network's own queries and keys are read as its blocks compute them
 * (AttentionWatch), in bf16 models the rounded ones; products and softmax are done again here, in
 * f32 and f64, since the network itself never stores the weights.
 *
 * Runners-up: the ids with the largest logits and their log-probabilities, under the same softmax
 * as a Proposal's score.
 */
#ifndef EASYFIRST_LANGUAGE_LOOK_H
#define EASYFIRST_LANGUAGE_LOOK_H

#include "kernels/block.h"
#include "language/decode.h"

/* Where the results for one row of a canvas go; NULL for what is not wanted. */
typedef struct LookRow {
    Proposal *runners; /* [k], the likeliest first */
    float *map;        /* [picture rows]: mean over layers and heads */
    float *layers;     /* [layers, picture rows]: mean over heads */
} LookRow;

/* One sequence's rows in a batch that is being looked into. */
typedef struct LookSequence {
    int32_t q_begin;           /* the row of the batch that is the answer's first */
    int32_t length;            /* answer rows */
    const AttentionSpan *span; /* what these rows see: rows of the batch, or of the cache */
    int32_t picture;           /* the picture's first row, counted as in the span */
    const LookRow *rows;       /* [length] */
} LookSequence;

/* Reads the attention of a batch's sequences from its blocks. */
typedef struct Look {
    Device *device;
    int layers, width, heads, picture_rows;
    double scale;            /* 1 / sqrt(width of a head) */
    LookSequence *sequences; /* [capacity], the first `count` in use */
    int count, capacity;
    struct LookBuffers *buffers;
} Look;

/* `capacity` is the most sequences of a batch. The caller closes it after a failure, too. */
int look_open(Look *look, Device *device, const BlockConfig *block, int layers, int picture_rows,
              int capacity, Error *err);
void look_close(Look *look); /* a zeroed Look is allowed */

/* An AttentionWatch's call with a Look as its user: adds a layer's share to the maps of all
 * sequences, which layer 0 sets to zero first. For a batch, fill `sequences` and `count`, then have
 * it called for all layers in their order. A picture that is not among the rows that a sequence
 * sees, and attention that is no number, are errors. */
int look_layer(void *look, int layer, Tensor q, Tensor k, Error *err);

/* The k ids with the largest logits among [0, limit) without `banned`, the likeliest first (ties:
 * the lowest id first), with their log-probabilities under the softmax over exactly those ids.
 * logits [limit] at least. Where there are fewer than k ids, the rest are {-1, -inf}. An error if a
 * logit among them is NaN or +infinity. */
int runners_choose(Proposal *out, int k, const float *logits, int32_t limit, int32_t banned,
                   Error *err);

#endif
