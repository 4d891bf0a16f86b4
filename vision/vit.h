/* vit.h - CLIP's vision tower (Radford et al., 2021): pixels to patch features.
 *
 * A convolution of patch x patch, the class embedding in front, position embeddings, a LayerNorm,
 * then pre-LN blocks with QuickGELU. LLaVA's features are the hidden state [-2], the output of the
 * second-to-last block, without the class token and the final LayerNorm: blocks after the feature
 * layer are loaded (a model is saved whole) but neither packed nor run.
 */
#ifndef EASYFIRST_VISION_VIT_H
#define EASYFIRST_VISION_VIT_H

#include "kernels/block.h"

typedef struct VitConfig {
    int image_size, patch, layers;
    BlockConfig block;
    int feature_layer; /* hidden state to return: 0 is before the first block, `layers` after the
                          last; negative counts from the end (-1 is after the last) */
    bool class_token;  /* keep the class token's row in front of the patches */
} VitConfig;

typedef struct Vit {
    VitConfig config;
    int depth; /* blocks that are run */
    Params *params;
    Block *blocks; /* [layers] */
    Tensor class_embedding, patch_w, positions, pre_norm_w, pre_norm_b, post_norm_w, post_norm_b;
} Vit;

/* Checks the configuration and declares the parameters, under Hugging Face's names
 * ("vision_model.embeddings...."). The model must not move until vit_free. */
int vit_declare(Vit *vit, const VitConfig *config, Params *params, Error *err);
void vit_free(Vit *vit);

int vit_patches(const VitConfig *config);      /* patches of an image: (image_size / patch)^2 */
int vit_feature_rows(const VitConfig *config); /* rows of features for an image */

/* Arena bytes that vit_forward takes for this many images at once. */
size_t vit_work_bytes(const Vit *vit, int images);

/* pixels [B, 3, S, S] f32, on the device, to features [B * rows, D] f32 or c. The arena is left
 * unchanged. `hook` may be NULL. */
int vit_forward(const Vit *vit, Arena *arena, Tensor features, Tensor pixels, const LayerHook *hook,
                Error *err);

#endif
