/* resize.h - Pillow's bicubic resampling, to the bit.
 *
 * Keys' cubic with a = -0.5, support 2 * max(1, scale), weights renormalised where the window is
 * cut at a border, coefficients in fixed point with 22 bits, a horizontal pass and then a vertical
 * one with the samples rounded to 8 bits in between. Resizing to the same size in one direction
 * skips that pass, as Pillow does.
 */
#ifndef EASYFIRST_VISION_RESIZE_H
#define EASYFIRST_VISION_RESIZE_H

#include "vision/image.h"

/* Writes a new picture of the given size to *out (free with image_free). Only the part of `in` that
 * the cut-out [left, left + crop_width) x [top, top + crop_height) of the resized picture needs is
 * computed, and only that cut-out comes back; pass 0, 0, width, height for the whole. The cut-out
 * must lie inside the resized picture. */
int image_resize_bicubic(Image *out, const Image *in, int width, int height, int left, int top,
                         int crop_width, int crop_height, Error *err);

#endif
