/* vit_rows.h - the rows of the vision tower's sequences, from pixels up to the first LayerNorm:
 * shared by inference (vit.h) and training (vit_train.h).
 */
#ifndef EASYFIRST_VISION_VIT_ROWS_H
#define EASYFIRST_VISION_VIT_ROWS_H

#include "vision/vit.h"

/* The rows of each sequence: class token, then patches. For each row, the indices of its class
 * embedding, patch and position ([B * (1 + P)] i32, -1 for none), and the rows that are returned as
 * features ([B * F] i32). */
typedef struct VitRows {
    Tensor class_index, patch_index, position_index, feature_index; /* in the arena */
    AttentionSpan *spans; /* [B], on the heap: each image attends to itself */
} VitRows;

size_t vit_rows_bytes(const Vit *vit, int images); /* of the arena */
int vit_rows_open(const Vit *vit, Arena *arena, int images, VitRows *rows, Error *err);
void vit_rows_close(VitRows *rows); /* also after a failure of vit_rows_open */

int vit_check_pixels(const VitConfig *config, Tensor pixels, Error *err);

/* pixels [B, 3, S, S] f32 to x [B * (1 + P), D] f32: patches, class tokens and positions, before
 * the LayerNorm. `flat` [B * P, 3 * patch * patch] c and `embedded` [B * P, D] f32 are intermediate
 * results. */
int vit_embed(const Vit *vit, Device *device, const VitRows *rows, Tensor pixels, Tensor flat,
              Tensor embedded, Tensor x, Error *err);

#endif
