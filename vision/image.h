/* image.h - reads image files.
 *
 * PNG (libpng), JPEG (libjpeg-turbo), WebP (libwebp), GIF (giflib), BMP, AVIF and HEIC (libheif),
 * detected by their first bytes, never by their name; the first frame of an animation, on its
 * canvas. A build may lack libwebp, giflib or libheif (image_formats). Color profiles are ignored.
 * The pixels are those of Pillow's Image.open(...).convert("RGB"), to the bit, with these
 * exceptions:
 *   - transparent pixels are blended over white (Pillow drops the alpha channel, which reveals the
 *     hidden colors);
 *   - the orientation stored in a JPEG, PNG or WebP is applied, as by Pillow's exif_transpose,
 *     because photos from phones need it (ignore_orientation gives the image as stored). It is read
 *     from EXIF (an APP1 segment, an eXIf chunk, or the raw profile text of ImageMagick), else from
 *     XMP. AVIF and HEIC have their own rotation, and their EXIF's does not count;
 *   - 16-bit grayscale PNG keeps its upper 8 bits (Pillow clips all values above 255 to white);
 *   - AVIF and HEIC have libheif's colors, whose upsampling of the color planes and whose rounding
 *     are not those of Pillow's libraries. More than 8 bits are reduced to 8;
 *   - a BMP of run lengths may end before its last pixels, which have color 0;
 *   - a JPEG of more pixels than the limit, as phones produce, is decoded at half its width and
 *     height (scaled in the DCT), and has that size.
 * An incomplete image is refused, not padded with gray. So is one whose compressed data are
 * damaged.
 *
 * Limits, so that a small file cannot take much memory or time:
 *   - 89,478,485 pixels, Pillow's own limit against decompression bombs; four times as many in a
 *     JPEG;
 *   - 1,000,000 pixels along a side, libpng's own limit;
 *   - 1 GiB of a file;
 *   - in AVIF and HEIC these hold for the size in the file's boxes before it is decoded, and for the
 *     result; while libheif decodes, pixels that are coded with another size can take more memory;
 *   - 100 scans of a progressive JPEG, fewer in large ones (4,000,000,000 pixels in all of them);
 *   - 128 MiB for the coefficients of a progressive JPEG, which a decoder must hold all at once (3
 *     to 6 bytes a pixel); 64 times the file's size if that is more, but at most 512 MiB.
 *
 * image_read allocates memory for the file and for all pixels, 3 bytes each; preprocess_read (see
 * preprocess.h) for the file and a few rows only, or a quarter of the pixels of an interlaced
 * PNG. The decoders of WebP, AVIF and HEIC need all pixels, 3 to 8 bytes each, in either case. */
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
    int64_t max_pixels;      /* maximum width * height, checked before decoding (a JPEG: four times
                                this; see above); 0: IMAGE_MAX_PIXELS */
    bool ignore_orientation; /* leave the image as stored */
} ImageOptions;

/* Reads the image at `path` ("-" is standard input; pipes are read to their end). `options` may be
 * NULL. On failure *image is left empty. Errors: no such file, a folder, a URL, an empty file, a
 * pipe that nothing writes to within three seconds, another kind of file (TIFF, JPEG XL, PDF, ...
 * are named), a format whose library is missing, a truncated or corrupt image, too many pixels. */
int image_read(Image *image, const char *path, const ImageOptions *options, Error *err);

/* The same from memory; `name` is the image's name in messages. */
int image_decode(Image *image, const void *bytes, size_t size, const char *name,
                 const ImageOptions *options, Error *err);

/* A format, and whether it can be read here. */
typedef struct ImageFormat {
    const char *name; /* "WebP" */
    bool readable;
    char library[300]; /* what reads it, with its version, or why nothing does */
} ImageFormat;

enum { IMAGE_FORMATS = 7 };

/* All formats. This opens libheif, which else only an AVIF or HEIC does. */
void image_formats(ImageFormat formats[IMAGE_FORMATS]);

/* Frees the pixels and empties the image; an empty image may be freed again. */
void image_free(Image *image);

#endif
