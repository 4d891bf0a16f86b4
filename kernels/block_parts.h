/* block_parts.h - shared by a block's inference (block.c) and training (block_train.c). Private to
 * kernels/. */
#ifndef EASYFIRST_KERNELS_BLOCK_PARTS_H
#define EASYFIRST_KERNELS_BLOCK_PARTS_H

#include "kernels/block.h"

/* The factor of the attention scores: 1 / sqrt(width of a head). */
float block_attention_scale(const BlockConfig *config);

/* alpha / rank. */
static inline float lora_scale(const BlockConfig *config) {
    return config->lora.alpha / (float)config->lora.rank;
}

static inline bool lora_present(const Block *block, LoraTarget target) {
    return block->lora[target].a.ndim > 0; /* a tensor that is only described has no data yet */
}

/* low = (alpha / rank) x A^T: x [T, K] c, low [T, rank] c. Does nothing if the block has no such
 * target. */
int lora_narrow(Device *device, const BlockConfig *config, const Block *block, LoraTarget target,
                Tensor low, Tensor x, Error *err);

/* The same, and then y += low B^T: y [T, N] c or f32, may be a column slice. */
int lora_add(Device *device, const BlockConfig *config, const Block *block, LoraTarget target,
             Tensor y, Tensor low, Tensor x, Error *err);

#endif
