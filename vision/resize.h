/* resize.h - Pillow's bicubic resampling, to the bit.
 *
 * Keys' cubic with a = -0.5, support 2 * max(1, scale), weights renormalised where the window is
 * cut at a border, coefficients in fixed point with 22 bits, a horizontal pass and then a vertical
 * one with the samples rounded to 8 bits in between. (Where a direction keeps its size Pillow skips
 * that pass; computed, it would change nothing, since its weights are 0, 0, 1, 0, 0.)
 *
 * Pillow means all its versions up to 12.1, with which the public checkpoints were trained. Later
 * ones begin with the vertical pass where a picture is made much lower but not much narrower (tall
 * strips); the rounding in between then falls otherwise and samples differ by a level here and
 * there. Here the order never depends on the shape.
 */
#ifndef EASYFIRST_VISION_RESIZE_H
#define EASYFIRST_VISION_RESIZE_H

#include "vision/image.h"

/* Writes a new picture of the given size to *out (free with image_free). Only the part of `in` that
 * the cut-out [left, left + crop_width) x [top, top + crop_height) of the resized picture needs is
 * computed, and only that cut-out comes back; pass 0, 0, width, height for the whole. The cut-out
 * must lie inside the resized picture. Memory beyond *out: the weights of the cut-out and four
 * bytes for each of its samples, whatever the sizes are. On failure *out is left empty. */
int image_resize_bicubic(Image *out, const Image *in, int width, int height, int left, int top,
                         int crop_width, int crop_height, Error *err);

/* A sheet of one colour on which a picture lies with its upper left corner at (left, top). */
typedef struct Canvas {
    int width, height; /* the picture must fit on it */
    int left, top;
    uint8_t colour[3];
} Canvas;

/* The same as putting `in` on the canvas and resizing that, but the canvas is never built: its
 * empty parts cost neither memory nor time. */
int image_resize_on_canvas(Image *out, const Image *in, const Canvas *canvas, int width, int height,
                           int left, int top, int crop_width, int crop_height, Error *err);

#endif
