/* tower.h - a vision tower of any kind, for what needs its features alone. What trains a tower
 * knows its kind (vit_train.h, segment.h).
 */
#ifndef EASYFIRST_VISION_TOWER_H
#define EASYFIRST_VISION_TOWER_H

#include "vision/efficientnet.h"
#include "vision/vit.h"

/* One of the two is NULL. */
typedef struct Tower {
    const Vit *vit;
    const EfficientNet *net;
} Tower;

int tower_image_size(const Tower *tower);
int tower_width(const Tower *tower);        /* values in a row of features */
int tower_grid(const Tower *tower);         /* patches in a row and in a column */
int tower_feature_rows(const Tower *tower); /* rows of features for an image */
bool tower_class_row(const Tower *tower);   /* whether the first row is of the whole image */
const Params *tower_params(const Tower *tower);

/* Arena bytes that tower_forward takes for this many images at once. */
size_t tower_work_bytes(const Tower *tower, int images);

/* Multiplications and additions for that many images. */
double tower_operations(const Tower *tower, int64_t images);

/* pixels [B, 3, S, S] f32, on the device, to features [B * rows, D] f32 or c. The arena is left
 * unchanged. */
int tower_forward(const Tower *tower, Arena *arena, Tensor features, Tensor pixels, Error *err);

#endif
