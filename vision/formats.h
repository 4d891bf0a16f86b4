/* formats.h - the internals of image_decode: one decoder for each file format, detection of the
 * format, and the orientation stored in files. Private to vision/.
 */
#ifndef EASYFIRST_VISION_FORMATS_H
#define EASYFIRST_VISION_FORMATS_H

#include "vision/image.h"

/* Receives an upright image while it is decoded. Each row arrives once, in any order; an image that
 * is stored on its side arrives by columns instead. */
typedef struct ImageSink {
    int (*start)(void *context, int width, int height, bool by_columns, Error *err);
    void (*row)(void *context, int y, const uint8_t *rgb);    /* [width, 3] */
    void (*column)(void *context, int x, const uint8_t *rgb); /* [height, 3] */
    void *context;
} ImageSink;

/* Like image_read and image_decode, into a sink. After a failure the sink may have been started and
 * have received some of the rows: its owner frees what it holds. */
int image_read_into(const ImageSink *sink, const char *path, const ImageOptions *options,
                    Error *err);
int image_decode_into(const ImageSink *sink, const void *bytes, size_t size, const char *name,
                      const ImageOptions *options, Error *err);

/* An encoded image in memory, its decoder's parameters, and where the rows go. */
typedef struct Encoded {
    const uint8_t *bytes;
    size_t size;
    const char *name; /* for messages */
    int64_t max_pixels;
    int orientation; /* 1 to 8, undone by rows_put */
    bool as_stored;  /* rotations that the format itself has (AVIF, HEIC) are not applied either */
    const ImageSink *sink;
    int width, height;
    uint8_t *reversed; /* [width, 3], for orientations that mirror rows */
} Encoded;

/* Decoders first pass the stored size, then each stored row, [width, 3] RGB, in any order. */
int rows_start(Encoded *file, int width, int height, Error *err);
void rows_put(const Encoded *file, int y, const uint8_t *rgb);

/* All bytes of the file, pipe or standard input ("-") at `path`; the caller frees them, also after
 * a failure. A file that is not an image is refused after its first bytes. */
int image_file_read(uint8_t **bytes, size_t *size, const char *path, Error *err);

/* The name in messages of the image at `path`. */
const char *image_file_name(const char *path);

typedef enum ImageKind {
    IMAGE_OTHER,
    IMAGE_PNG,
    IMAGE_JPEG,
    IMAGE_WEBP,
    IMAGE_GIF,
    IMAGE_BMP,
    IMAGE_AVIF,
    IMAGE_HEIC
} ImageKind;

/* How many of a file's first bytes suffice to detect its format (fewer if the file is shorter). */
enum { IMAGE_HEAD = 1024 };

ImageKind image_kind(const uint8_t *bytes, size_t size);

/* Reports in *err what a file of IMAGE_OTHER is and what to do about it; always returns -1. */
int image_refuse(const uint8_t *bytes, size_t size, const char *name, Error *err);

int png_decode(Encoded *file, Error *err);
int jpeg_decode(Encoded *file, Error *err);
int webp_decode(Encoded *file, Error *err);
int gif_decode(Encoded *file, Error *err);
int bmp_decode(Encoded *file, Error *err);
int avif_decode(Encoded *file, Error *err);
int heic_decode(Encoded *file, Error *err);

/* The library that decodes it, with its version; or, and then the result is false, why it cannot. */
bool png_state(char *out, size_t size);
bool jpeg_state(char *out, size_t size);
bool webp_state(char *out, size_t size);
bool gif_state(char *out, size_t size);
bool bmp_state(char *out, size_t size);
bool avif_state(char *out, size_t size);
bool heic_state(char *out, size_t size);

/* Decodes by the format's decoder; refuses formats that this build has none for. */
int format_decode(ImageKind kind, Encoded *file, Error *err);

/* Whether "BM" is followed by a header that BMP files have. */
bool bmp_has_header(const uint8_t *bytes, size_t size);

/* round(v * a / 255 + 255 * (255 - a) / 255) with exact rounding, as Pillow's paste: for t below
 * 65536, (t + 128 + ((t + 128) >> 8)) >> 8 is t / 255 rounded to nearest. */
static inline uint8_t over_white(uint32_t v, uint32_t a) {
    uint32_t t = v * a + 255 * (255 - a) + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* A row of RGBA pixels, blended over white. */
void rgba_over_white(uint8_t *rgb, const uint8_t *rgba, int width);

/* Refuses sizes that are not positive, sides beyond IMAGE_MAX_SIDE, and more pixels than `times`
 * the limit. Decoders call it with the header's values, before anything of that size is
 * allocated. */
int encoded_check_size(const Encoded *file, const char *format, int64_t width, int64_t height,
                       int times, Error *err);

/* The orientation, 1 to 8, of a PNG, JPEG or WebP: from its EXIF block, else from its XMP packet, as in
 * Pillow. 1 (upright) if there is none. Anything malformed counts as missing: an image is not
 * refused for a broken tag. */
int png_orientation(const uint8_t *bytes, size_t size);
int jpeg_orientation(const uint8_t *bytes, size_t size);
int webp_orientation(const uint8_t *bytes, size_t size);

/* The orientation in an EXIF block: a TIFF header and its first directory, with or without
 * "Exif\0\0" before it. 1 if there is none. *found (may be NULL) is set to whether the block has
 * the tag, even with an invalid value. */
int exif_orientation(const uint8_t *block, size_t size, bool *found);

/* The orientation in an XMP packet: the property Orientation of the TIFF namespace, as attribute or
 * element; 0 if there is none. */
int xmp_orientation(const uint8_t *text, size_t size);

#endif
