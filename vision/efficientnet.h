/* efficientnet.h - EfficientNet-Lite (Tan and Le, 2019, without squeeze-and-excitation and with
 * ReLU6): pixels to the features of a grid of places.
 *
 * A first convolution, blocks that widen the channels, convolve each channel by itself and narrow
 * them again, and a last convolution of one pixel. Each convolution is followed by a batch norm,
 * which is folded into its weight and bias when the parameters are prepared:
 *     w' = w gamma / sqrt(var + eps),   b' = beta - mean gamma / sqrt(var + eps).
 * Padding is TensorFlow's "same". The parameters' names are those of the package
 * efficientnet_lite_pytorch; its classifier is not part of the tower. Forward only.
 */
#ifndef EASYFIRST_VISION_EFFICIENTNET_H
#define EASYFIRST_VISION_EFFICIENTNET_H

#include "kernels/params.h"

enum { EFFICIENTNET_BLOCKS = 256 };

typedef struct EfficientNetBlock {
    int kernel, stride;
    int in, wide, out; /* channels; wide == in: the block does not widen them */
} EfficientNetBlock;

typedef struct EfficientNetConfig {
    int image_size;
    int stem, stem_kernel; /* channels and filter of the first convolution, whose stride is 2 */
    int width;             /* channels of the last convolution: of the features */
    float eps;             /* of the batch norms */
    bool class_token;      /* a row in front of the grid's: their mean */
    int count;
    EfficientNetBlock block[EFFICIENTNET_BLOCKS];
} EfficientNetConfig;

typedef struct EfficientNetLayer EfficientNetLayer;

typedef struct EfficientNet {
    EfficientNetConfig config;
    int grid; /* places in a row and in a column of the features */
    Params *params;
    Device *device;
    EfficientNetLayer *layers; /* the convolutions, in their order */
    int count;
    void *biases;         /* of all layers, on the device */
    int64_t narrow, wide; /* largest values of an image between and within blocks */
} EfficientNet;

/* Checks the configuration and declares the parameters. Neither may move until efficientnet_free,
 * which is called before the device is closed. */
int efficientnet_declare(EfficientNet *net, const EfficientNetConfig *config, Params *params,
                         Error *err);
void efficientnet_free(EfficientNet *net);

int efficientnet_feature_rows(const EfficientNet *net);
double efficientnet_operations(const EfficientNet *net); /* for one image */

/* Arena bytes that efficientnet_forward takes for this many images. */
size_t efficientnet_work_bytes(const EfficientNet *net, int images);

/* pixels [B, 3, S, S] f32, on the device, to features [B * rows, D] f32 or c: the places in reading
 * order. The arena is left unchanged. */
int efficientnet_forward(const EfficientNet *net, Arena *arena, Tensor features, Tensor pixels,
                         Error *err);

#endif
