/* packing.h - packs examples and noise into one batch (train.h).
 *
 *   full          for each turn, each corrupted copy is a sequence of its own, one attention span;
 *                 the image's rows occur twice, but the image is encoded once.
 *   causal        the same with causal spans.
 *   block-causal  <s> and the image once (with image_lead before it); then for each turn its prompt
 *                 once, which sees the image's block and itself; then the turn's copies, each of
 *                 which sees image, prompt and itself. Positions of every copy continue from its
 *                 prompt (or from answer_position), those of every prompt from the image.
 *
 * With block-causal attention no block sees a later or a sibling one, so the loss and the gradients
 * equal those of the turns one by one. This is the attention that answering uses
 * (language/infill.h): without an image the first block is <s> alone.
 *
 * The special tokens, the positions and the rows that predict are those of the language model: in a
 * shifted one the row before a token's predicts it; for a copy's first token that is the last row
 * before all copies, and a sequence's first row predicts itself. With the autoregressive objective
 * no token is masked, and a sequence's first row, before which there is none, has no loss.
 *
 * A masked token's weight is noise weight / (maskable tokens of its sequence * copies * sequences
 * of the whole step), so that a step's losses add up to the mean over sequences, for any division
 * into micro-batches. A copy without a masked token has neither loss nor gradient and is left out,
 * with its prompt and its image if nothing else needs them: a batch may even have no rows (tokens
 * 0) and nothing to compute.
 */
#ifndef EASYFIRST_PROJECTOR_PACKING_H
#define EASYFIRST_PROJECTOR_PACKING_H

#include "language/language.h"
#include "language/noise.h"
#include "projector/examples.h"
#include "projector/train.h"

typedef struct PackingConfig {
    LanguageModel language; /* begin, shifted, and whose kind it is; all 0: XLM-R's */
    AttentionPattern pattern;
    int answer_position; /* as in InfillConfig */
    int image_rows, image_size;
    Dtype feature_dtype; /* of features that are kept, and their width; DTYPE_NONE: none are */
    int feature_width;
    int32_t mask_id;
    NoiseConfig noise;
    uint64_t seed;
    bool lengths; /* the stage `length`: prompts alone, classes = answer tokens without </s>, - 1,
                     at least 0 */
    int classes;  /* longer answers count as the last class */
    const int32_t *image_lead; /* [image_lead_count]: tokens between <s> and an image */
    int image_lead_count;
} PackingConfig;

/* One unit to pack. */
typedef struct PackingItem {
    const Example *example;
    const float *pixels;  /* [3, S, S]; NULL without an image, or with its features */
    uint64_t stream;      /* of its noise; turn k uses random_stream(stream, k, 0, 0) */
    const void *features; /* [image_rows, feature_width]; NULL: to be computed from the pixels */
    const char *key;      /* [TRAIN_KEY], of an image whose features are kept */
} PackingItem;

/* Upper bounds of a unit's rows (with all copies) and target rows in a batch. */
int packing_rows(const PackingConfig *config, const Example *example);
int packing_targets(const PackingConfig *config, const Example *example);

/* `sequences`: of the whole training step, each turn counted. The pixels are copied. Free with
 * train_batch_free, which packing.c defines. */
int packing_build(TrainBatch *batch, const PackingConfig *config, const PackingItem *items,
                  int count, double sequences, Error *err);

#endif
