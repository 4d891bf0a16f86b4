/* resize.h - Pillow's bicubic resampling, to the bit.
 *
 * Keys' cubic with a = -0.5, support 2 * max(1, scale), weights renormalized where a border cuts
 * the window, coefficients in fixed point with 22 bits, a horizontal pass and then a vertical one
 * with the samples rounded to 8 bits in between. (Pillow skips the pass of a direction that keeps
 * its size; it would change nothing, since its weights are 0, 0, 1, 0, 0.)
 *
 * This is Pillow up to version 12, with which the public checkpoints were trained. Pillow 13 begins
 * with the vertical pass if the height shrinks much more than the width (tall strips); then the
 * rounding in between differs, and so do samples (333x1000 to 224x672: by up to 11 levels). Here
 * the order never depends on the shape.
 */
#ifndef EASYFIRST_VISION_RESIZE_H
#define EASYFIRST_VISION_RESIZE_H

#include "vision/image.h"

/* Writes a new image of the given size to *out (free with image_free). Only the crop [left, left +
 * crop_width) x [top, top + crop_height) of the resized image is computed and returned; pass 0, 0,
 * width, height for the whole. The crop must lie inside the resized image. Memory beyond *out: the
 * weights of the crop and four bytes for each of its samples, for any sizes. On failure *out is
 * left empty. */
int image_resize_bicubic(Image *out, const Image *in, int width, int height, int left, int top,
                         int crop_width, int crop_height, Error *err);

/* A background of one color on which an image lies with its upper left corner at (left, top). */
typedef struct Canvas {
    int width, height; /* the image must fit on it */
    int left, top;
    uint8_t colour[3];
} Canvas;

/* The same as pasting `in` on the canvas and resizing that, but the canvas is never built: its
 * empty parts cost neither memory nor time. */
int image_resize_on_canvas(Image *out, const Image *in, const Canvas *canvas, int width, int height,
                           int left, int top, int crop_width, int crop_height, Error *err);

/* The same for an image whose rows or columns come one at a time, in any order: only the crop is in
 * memory (and for columns, 12 bytes for each of its columns times the rows that it needs). */
typedef struct Resampler Resampler;

/* `in_width` and `in_height` are the image's. NULL on failure. */
Resampler *resampler_new(const Canvas *canvas, int in_width, int in_height, int width, int height,
                         int left, int top, int crop_width, int crop_height, Error *err);

/* Row y, [in_width, 3]. */
void resampler_row(Resampler *r, int y, const uint8_t *rgb);

/* Column x, [in_height, 3]; after resampler_use_columns, and then without any rows. */
int resampler_use_columns(Resampler *r, Error *err);
void resampler_column(Resampler *r, int x, const uint8_t *rgb);

/* Moves the crop to *out, after all rows or all columns. */
void resampler_finish(Resampler *r, Image *out);

void resampler_free(Resampler *r);

#endif
