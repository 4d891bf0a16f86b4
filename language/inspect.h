/* inspect.h - inspects an evaluation: where the answer's rows attend, and their top-k alternatives.
 *
 * Attention: for an answer row, the weights softmax(q k / sqrt(d)) that it gives to the rows of the
 * image, mean over the heads, for each layer, and their mean over the layers. They are shares of
 * the whole attention: over all rows of the sequence they sum to 1, over the image's to what does
 * not go to the text. The network's own queries and keys are read as its blocks compute them
 * (AttentionHook), in bf16 models the rounded ones; scores and softmax are recomputed here, in f32
 * and f64, since the network itself never stores the weights.
 *
 * Alternatives: the ids with the largest logits and their log-probabilities, under the same softmax
 * as a Proposal's score. Given ids: the log-probabilities of these.
 */
#ifndef EASYFIRST_LANGUAGE_INSPECT_H
#define EASYFIRST_LANGUAGE_INSPECT_H

#include "kernels/block.h"
#include "language/decode.h"

/* Where the results for one row of a canvas go; NULL: not computed. */
typedef struct InspectRow {
    Proposal *alternatives; /* [k], the most likely first */
    float *map;             /* [image rows]: mean over layers and heads */
    float *layers;          /* [layers, image rows]: mean over heads */
    const int32_t *given;   /* [given_count], valid during the call */
    int given_count;
    double *given_scores; /* [given_count] */
} InspectRow;

/* One sequence's rows in a batch that is inspected. */
typedef struct InspectSequence {
    int32_t q_begin;           /* the answer's first row in the batch */
    int32_t length;            /* answer rows */
    const AttentionSpan *span; /* what these rows attend to: rows of the batch, or of the cache */
    int32_t image;             /* the image's first row, counted as in the span */
    const InspectRow *rows;    /* [length] */
} InspectSequence;

/* Reads the attention of a batch's sequences from its blocks. */
typedef struct Inspector {
    Device *device;
    int layers, width, key_width, heads, image_rows; /* widths of queries and of keys */
    int window, global_every;                        /* of local blocks: block.h */
    double scale;                                    /* 1 / sqrt(width of a head) */
    InspectSequence *sequences;                      /* [capacity], the first `count` in use */
    int count, capacity;
    struct InspectBuffers *buffers;
} Inspector;

/* `capacity` is the maximum number of sequences in a batch. Close it after a failure, too. */
int inspector_open(Inspector *inspector, Device *device, const BlockConfig *block, int layers,
                   int image_rows, int capacity, Error *err);
void inspector_close(Inspector *inspector); /* a zeroed Inspector is allowed */

/* An AttentionHook's call, with an Inspector as its user: adds a layer's share to the maps of all
 * sequences, which layer 0 zeroes first. For a batch, set `sequences` and `count`, then have it
 * called for all layers in order. An image that is not among the rows that a sequence attends to,
 * and attention weights that are not finite, are errors. */
int inspector_layer(void *inspector, int layer, Tensor q, Tensor k, Error *err);

/* The k ids with the largest logits among [0, limit) without `banned`, the most likely first (ties:
 * the lowest id first), with their log-probabilities under the softmax over [0, limit) without
 * `banned`. logits: at least [limit]. If there are fewer than k ids, the rest are {-1, -inf}. Fails
 * if one of these logits is NaN or +infinity. */
int top_k_choose(Proposal *out, int k, const float *logits, int32_t limit, int32_t banned,
                 Error *err);

/* The log-probabilities of given ids under that softmax; -infinity for `banned` and for ids that are
 * not in [0, limit). All are NaN if one of these logits is NaN or +infinity. */
void given_scores_take(double *scores, const int32_t *ids, int count, const float *logits,
                       int32_t limit, int32_t banned);

#endif
