/* block_parts.h - shared by a block's inference (block.c) and training (block_train.c). Private to
 * kernels/. */
#ifndef EASYFIRST_KERNELS_BLOCK_PARTS_H
#define EASYFIRST_KERNELS_BLOCK_PARTS_H

#include "kernels/block.h"

/* The factor of the attention scores: 1 / sqrt(width of a head). */
float block_attention_scale(const BlockConfig *config);

/* The model's norm, LayerNorm or RMS norm, and its backward pass: layernorm_forward's arguments.
 * Where a block lacks it, values pass unchanged. */
int block_norm(Device *device, const BlockConfig *config, Tensor y, Tensor copy, Tensor stats,
               Tensor x, Tensor w, Tensor b, Error *err);
int block_norm_backward(Device *device, const BlockConfig *config, Tensor dx, Tensor dw, Tensor db,
                        Tensor dy, Tensor x, Tensor w, Tensor stats, bool accumulate_dx,
                        Error *err);

/* Query, key and value as columns of [T, 3D]: part 0, 1 or 2. */
Tensor block_qkv_part(const BlockConfig *config, Tensor qkv, int part);

/* Turns queries and keys in place, if the model has rotary positions: forward, or back. */
int block_rotate(Device *device, const BlockConfig *config, const Rotary *rotary, Tensor qkv,
                 bool back, Error *err);

/* The columns of fc1's output: F, or gated 2F. */
static inline int64_t block_pre_width(const BlockConfig *config) {
    return config->gated ? 2 * (int64_t)config->ffn : config->ffn;
}

/* The columns of gate (LORA_FC1) or up (LORA_UP) in a gated block's fc1; all of it otherwise, and
 * where LoRA adds to both at once. */
static inline Tensor block_pre_part(const BlockConfig *config, Tensor pre, LoraTarget target) {
    if (!config->gated || config->joined) return pre;
    return tensor_columns(pre, target == LORA_UP ? config->ffn : 0, config->ffn);
}

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
