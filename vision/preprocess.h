/* preprocess.h - an image as the input of a CLIP vision tower.
 *
 * The steps of CLIP's image processor: shortest edge to `size` with Pillow's bicubic, long edge
 * int(size * long / short), center crop to size x size with offset floor((length - size) / 2), x /
 * 255, then (x - mean) / std per channel. LLaVA's `pad` option first centers the image in a square
 * of the mean color.
 */
#ifndef EASYFIRST_VISION_PREPROCESS_H
#define EASYFIRST_VISION_PREPROCESS_H

#include "vision/image.h"

typedef struct PreprocessConfig {
    int size;      /* 224 for ViT-L/14 */
    bool pad;      /* to a square, offset (long - short) // 2, color int(255 * mean) */
    float mean[3]; /* RGB */
    float std[3];
} PreprocessConfig;

/* CLIP's own constants, 224 px, no padding. */
PreprocessConfig preprocess_clip_default(void);

/* The uint8 stage alone: padded, resized and cropped to size x size, equal to Pillow's to the bit;
 * *out is owned by the caller (image_free). */
int preprocess_crop(Image *out, const Image *in, const PreprocessConfig *config, Error *err);

/* The same for the image at `path`, row by row while it is decoded: the result of image_read and
 * preprocess_crop, but without all pixels in memory at once. *width and *height (may be NULL) are
 * set to the upright image's size. */
int preprocess_read(Image *out, int *width, int *height, const char *path,
                    const PreprocessConfig *config, const ImageOptions *options, Error *err);

/* Maps the square to the image: its point (x, y), in pixels from its upper left corner, is the
 * image's point (left + scale_x x, top + scale_y y), which lies outside of the image where the
 * square was padded. */
typedef struct PreprocessMap {
    double left, top, scale_x, scale_y;
} PreprocessMap;
int preprocess_map(PreprocessMap *map, int width, int height, const PreprocessConfig *config,
                   Error *err);

/* All steps. `out` is [3, size, size] f32, planes in the order R, G, B. */
int preprocess_image(float *out, const Image *in, const PreprocessConfig *config, Error *err);

#endif
