/* image.h - image files as pixels.
 *
 * PNG (libpng) and JPEG (libjpeg-turbo), recognised by their first bytes and never by their name.
 * What comes out is what Pillow's Image.open(...).convert("RGB") gives, to the bit, but for four
 * things:
 *   - transparent pixels are blended over white (Pillow drops the transparency, and what lies
 *     hidden under it shows);
 *   - the orientation that a JPEG or PNG carries is applied, as Pillow's exif_transpose does,
 *     because people hold their phones upright (ignore_orientation gives the image as stored). It
 *     is read from EXIF (an APP1 segment, an eXIf chunk, or the raw profile text of ImageMagick),
 *     else from XMP;
 *   - greyscale PNG of 16 bits keeps its upper 8 bits (Pillow turns all values above 255 white);
 *   - a JPEG of more pixels than the limit, as phones take them, is decoded at half its width and
 *     height (scaled in the DCT), and has that size.
 * An image whose pixels are not all there is refused; none is filled up with grey. So is one whose
 * compressed data are damaged.
 *
 * Limits, so that no small file takes much memory or time:
 *   - 89,478,485 pixels, Pillow's own limit against decompression bombs; four times as many in a
 *     JPEG;
 *   - 1,000,000 pixels along a side, libpng's own limit;
 *   - 1 GiB of a file;
 *   - 100 scans of a progressive JPEG, fewer in large ones (4,000,000,000 pixels in all of them);
 *   - 128 MiB for the coefficients of a progressive JPEG, which a decoder must hold all at once (3
 * to 6 bytes a pixel); 64 times the file's size if that is more, but not above 512 MiB.
 *
 * image_read takes memory for the file and for all pixels, 3 bytes each; preprocess_read (see
 * preprocess.h) for the file and a few rows only, or a quarter of the pixels of an
 * interlaced PNG. */
#ifndef EASYFIRST_VISION_IMAGE_H
#define EASYFIRST_VISION_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum {
    IMAGE_MAX_PIXELS = 89478485, /* 2^30 / 4 / 3, rounded: Pillow's MAX_IMAGE_PIXELS */
    IMAGE_MAX_SIDE = 1000000,
    IMAGE_MAX_BYTES = 1 << 30
};

typedef struct Image {
    int width, height;
    uint8_t *pixels; /* [height, width, 3], RGB, rows without gaps; owned, free with image_free */
} Image;

typedef struct ImageOptions {
    int64_t max_pixels;      /* width * height above this is refused before decoding (a JPEG: above
                                four times this; see above); 0: IMAGE_MAX_PIXELS */
    bool ignore_orientation; /* leave an image as stored, whatever its orientation is */
} ImageOptions;

/* Reads the image at `path` ("-" is standard input; pipes are read to their end). `options` may be
 * NULL. On failure *image is left empty. Errors: no such file, a folder, a URL, an empty file, a
 * pipe that nothing writes to within three seconds, another kind of file (GIF, WebP, HEIC, ... are
 * named), a truncated or broken image, too many pixels. */
int image_read(Image *image, const char *path, const ImageOptions *options, Error *err);

/* The same from memory; `name` is what messages call the image. */
int image_decode(Image *image, const void *bytes, size_t size, const char *name,
                 const ImageOptions *options, Error *err);

/* Frees the pixels and empties the image; an empty image may be freed again. */
void image_free(Image *image);

#endif
