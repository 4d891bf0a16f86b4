/* image.h - picture files as pixels.
 *
 * PNG (libpng) and JPEG (libjpeg-turbo), recognised by their first bytes and never by their name.
 * What comes out is what Pillow's Image.open(...).convert("RGB") gives, to the bit, but for three
 * things:
 *   - transparent pixels are blended over white (Pillow drops the transparency, and what lies
 *     hidden under it shows);
 *   - the EXIF orientation that a JPEG or PNG carries is applied, as Pillow's exif_transpose does,
 *     because people hold their phones upright (ignore_orientation gives the plain picture);
 *   - greyscale PNG of 16 bits keeps its upper 8 bits (Pillow turns all values above 255 white).
 * A picture whose pixels are not all there is refused; none is filled up with grey.
 */
#ifndef EASYFIRST_VISION_IMAGE_H
#define EASYFIRST_VISION_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct Image {
    int width, height;
    uint8_t *pixels; /* [height, width, 3], RGB, rows without gaps; owned, free with image_free */
} Image;

typedef struct ImageOptions {
    int64_t max_pixels;      /* width * height above this is refused before decoding; 0: 89,478,485,
                                Pillow's own limit against decompression bombs */
    bool ignore_orientation; /* leave a picture as stored, whatever its EXIF orientation says */
} ImageOptions;

/* Reads the picture at `path` ("-" is standard input). `options` may be NULL. On failure *image is
 * left empty. Errors: no such file, a folder, an empty file, another kind of file (GIF, WebP,
 * HEIC, ... are named), a truncated or broken picture, too many pixels. */
int image_read(Image *image, const char *path, const ImageOptions *options, Error *err);

/* The same from memory; `name` is what messages call the picture. */
int image_decode(Image *image, const void *bytes, size_t size, const char *name,
                 const ImageOptions *options, Error *err);

/* Frees the pixels and empties the image; an empty image may be freed again. */
void image_free(Image *image);

#endif
