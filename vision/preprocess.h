/* preprocess.h - an image as the numbers that a CLIP vision tower expects.
 *
 * The steps of CLIP's image processor: shortest edge to `size` with Pillow's bicubic, long edge
 * int(size * long / short), centre crop to size x size with offset floor((length - size) / 2),
 * x / 255, then (x - mean) / std per channel. LLaVA's `pad` option first puts the image in the
 * middle of a square of the mean colour.
 */
#ifndef EASYFIRST_VISION_PREPROCESS_H
#define EASYFIRST_VISION_PREPROCESS_H

#include "vision/image.h"

typedef struct PreprocessConfig {
    int size;      /* 224 for ViT-L/14 */
    bool pad;      /* to a square, offset (long - short) // 2, colour int(255 * mean) */
    float mean[3]; /* RGB */
    float std[3];
} PreprocessConfig;

/* CLIP's own constants, 224 px, no padding. */
PreprocessConfig preprocess_clip_default(void);

/* The uint8 stage alone: padded, resized and cropped to size x size; *out is owned by the caller
 * (image_free). This is the stage that is equal to Pillow's to the bit. */
int preprocess_crop(Image *out, const Image *in, const PreprocessConfig *config, Error *err);

/* The same for the image at `path`, row by row while it is decoded: what image_read and
 * preprocess_crop give, but the pixels are never held all at once. *width and *height (may be NULL)
 * take the upright image's size. */
int preprocess_read(Image *out, int *width, int *height, const char *path,
                    const PreprocessConfig *config, const ImageOptions *options, Error *err);

/* Where the square's points come from: point (x, y) of it, in pixels from its upper left corner,
 * is the image's point (left + scale_x x, top + scale_y y), which lies outside of the image
 * where the square was padded. */
typedef struct PreprocessMap {
    double left, top, scale_x, scale_y;
} PreprocessMap;
int preprocess_map(PreprocessMap *map, int width, int height, const PreprocessConfig *config,
                   Error *err);

/* All of it. `out` is [3, size, size] f32, planes in the order R, G, B. */
int preprocess_image(float *out, const Image *in, const PreprocessConfig *config, Error *err);

#endif
