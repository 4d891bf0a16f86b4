/* patch_map.h - maps values of the patches of a preprocessed image back onto the image.
 *
 * The vision tower's input is a square cropped from the image, or to which it was padded
 * (vision/preprocess.h), as grid x grid patches in row-major order. These functions return where
 * that square lies on the image and resample a map over patches to cells of the whole image.
 */
#ifndef EASYFIRST_VISION_PATCH_MAP_H
#define EASYFIRST_VISION_PATCH_MAP_H

#include "vision/preprocess.h"

/* In pixels of the image, right and bottom exclusive: the image itself is {0, 0, width,
 * height}. Padding lies outside of it. */
typedef struct PatchRectangle {
    double left, top, right, bottom;
} PatchRectangle;

/* The rectangle that the grid of patches covers on an image of this size. */
int patch_rectangle(PatchRectangle *rectangle, int width, int height,
                    const PreprocessConfig *config, Error *err);

/* Resamples `map` [grid * grid], patch (x, y) at y * grid + x, to cells x cells equal cells over
 * the whole image: out[x * cells + y] (x first, as GQA's official script indexes its 7 x 7 maps)
 * receives from every patch the share of its area that lies in the cell. Shares outside of the
 * image (padding) are dropped, the rest of the sum is preserved; returns the sum of `out`, for
 * normalizing. Cells outside of the crop get 0. */
double patch_map_cells(double *out, int cells, const float *map, int grid,
                       const PatchRectangle *rectangle, int width, int height);

#endif
