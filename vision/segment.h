/* segment.h - pretrains the vision tower by itself: which object covers each patch.
 *
 * A linear layer over the features that a projector would read gives each patch a class (semantic
 * segmentation by patches; Strudel et al., ICCV 2021, call it Segmenter's linear decoder). A tower
 * trained from scratch learns here what is where, before a language model has to use it; the layer
 * itself is discarded afterwards.
 */
#ifndef EASYFIRST_VISION_SEGMENT_H
#define EASYFIRST_VISION_SEGMENT_H

#include "vision/vit_train.h"

typedef struct SegmentHead {
    int classes;
    Params *params;
    Tensor w, b; /* [classes, D], [classes] */
} SegmentHead;

/* Declares "segment.weight" and "segment.bias", for features of width `width`. */
int segment_declare(SegmentHead *head, int width, int classes, Params *params, Error *err);

/* All on the host. */
typedef struct SegmentBatch {
    int images;
    const float *pixels;   /* [images, 3, S, S] */
    const int32_t *labels; /* [images * patches]: a class, 0 for the background; -1: no loss */
    float weight;          /* of each patch's loss */
    float smoothing;       /* label smoothing: share of the target spread over all classes */
} SegmentBatch;

/* Patches, and those classified correctly; `objects` are those whose label is above 0. */
typedef struct SegmentScore {
    int64_t patches, right, objects, objects_right;
} SegmentScore;

typedef struct SegmentRun {
    bool backward;       /* false: the loss only */
    bool recompute;      /* activation checkpointing: keep block inputs only */
    SegmentScore *score; /* added to; NULL: not computed */
    BlockLeft left;      /* kernels/stack.h */
} SegmentRun;

/* Arena bytes that segment_pass takes for up to `images` images. Call it after params_train (or
 * params_train_describe) has filled the slots. */
size_t segment_bytes(const Vit *vit, const SegmentHead *head, int images, bool recompute);

/* losses [images * patches] (host): weighted cross-entropies, 0 for patches without a label. With
 * run->backward their sum's gradients are added to those of head and tower. Labels that the head
 * does not have are refused. The arena is left unchanged. */
int segment_pass(const Vit *vit, const SegmentHead *head, Arena *arena, const SegmentBatch *batch,
                 const SegmentRun *run, float *losses, Error *err);

#endif
