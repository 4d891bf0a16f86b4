/* train.h - forward and backward pass of the whole model: images and packed text in, losses and
 * gradients out.
 *
 *   pixels ─ vit ─▶ features ─ projector ─▶ image tokens ─┐
 *   ids ──────────────────────────────────────────────────┴─▶ XLM-R ─▶ loss of the masked rows
 *                                                           or LLaMA
 *
 * and backward, down to the lowest trainable part. A frozen vision tower runs as in inference
 * (packed weights, no tape); a projector alone is trained through a frozen language model.
 */
#ifndef EASYFIRST_PROJECTOR_TRAIN_H
#define EASYFIRST_PROJECTOR_TRAIN_H

#include "language/language_train.h"
#include "language/length_train.h"
#include "projector/multimodal.h"
#include "vision/vit_train.h"

/* A micro-batch of training data, on the host. Made by packing_build (packing.h). */
enum { TRAIN_KEY = 64 };

typedef struct TrainBatch {
    /* Sequences end to end. */
    int tokens;
    int32_t *ids, *positions; /* [tokens], as in XlmrBatch */
    int32_t *image_rows;      /* [tokens], likewise; NULL: no images */
    AttentionSpan *spans;
    int span_count;
    /* Images, each once, even if several sequences read it. */
    int images;
    float *pixels; /* [images, 3, S, S] */
    /* With features that are kept (feature_dtype not DTYPE_NONE; a frozen tower only): `pixels` are
     * those of the images that are not `known`, end to end. The features of these are computed,
     * rounded to feature_dtype and written to `features` by the pass. */
    Dtype feature_dtype;
    bool *known;             /* [images] */
    void *features;          /* [images, rows of features, their width] */
    char (*keys)[TRAIN_KEY]; /* [images], the caller's */
    /* The rows with a loss: all stages but `length`. */
    int targets;
    int32_t *rows, *target_ids;         /* [targets] */
    float *weights, *smoothing_weights; /* [targets]; the second NULL without smoothing */
    float smoothing;
    /* The stage `length`: prompts [prompt_begin[s], prompt_begin[s + 1]), which cover all rows. */
    int prompts;
    int32_t *prompt_begin; /* [prompts + 1] */
    int32_t *classes;      /* [prompts] */
    float prompt_weight;   /* of each prompt's loss */
} TrainBatch;

void train_batch_free(TrainBatch *batch);

/* The model to train: a part whose table has no trainable parameter is frozen. */
typedef struct TrainContext {
    Multimodal model;
    Dtype feature_dtype; /* of batches whose features are kept; DTYPE_NONE: there are none */
} TrainContext;

/* Limits of a micro-batch. */
typedef struct TrainSizes {
    int tokens, targets, images, prompts;
} TrainSizes;

/* Arena bytes for micro-batches up to these sizes. They depend on what is trained: call it after
 * params_train or params_prepare has filled the parts' slots. */
size_t train_bytes(const TrainContext *context, const TrainSizes *sizes, const TrainRun *run);

/* Forward, and with run->backward also backward: losses of the target rows (or, for a batch with
 * prompts, of the prompts), host, [targets] or [prompts]; the gradients of their sum are added to
 * those of all trainable parameters. The arena is left as it was. */
int train_micro_batch(const TrainContext *context, Arena *arena, const TrainBatch *batch,
                      const TrainRun *run, float *losses, Error *err);

#endif
