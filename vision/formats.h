/* formats.h - what stands behind image_decode: one decoder a file format, the recognition of what a
 * file is, and the EXIF block that cameras put into it. Private to vision/.
 */
#ifndef EASYFIRST_VISION_FORMATS_H
#define EASYFIRST_VISION_FORMATS_H

#include "vision/image.h"

/* An encoded picture in memory, and what a decoder must know about the wishes of its reader. */
typedef struct Encoded {
    const uint8_t *bytes;
    size_t size;
    const char *name; /* for messages */
    int64_t max_pixels;
} Encoded;

typedef enum PictureKind { PICTURE_OTHER, PICTURE_PNG, PICTURE_JPEG } PictureKind;

/* How many of a file's first bytes are enough to tell what it is (fewer if the file is shorter). */
enum { PICTURE_HEAD = 1024 };

PictureKind picture_kind(const uint8_t *bytes, size_t size);

/* Says in *err what a file of PICTURE_OTHER is and what to do about it; always returns -1. */
int picture_refuse(const uint8_t *bytes, size_t size, const char *name, Error *err);

/* Decode into *image, which is empty and stays so on failure. *orientation is the EXIF orientation
 * found, 1 (upright) if there is none; it is reported, not applied. */
int png_decode(Image *image, int *orientation, const Encoded *file, Error *err);
int jpeg_decode(Image *image, int *orientation, const Encoded *file, Error *err);

/* Refuses sizes that are not positive, beyond the limit or beyond what memory can address. Decoders
 * call it with what the header says, before anything of that size is allocated. */
int encoded_check_size(const Encoded *file, const char *format, int64_t width, int64_t height,
                       Error *err);

/* The orientation, 1 to 8, in an EXIF block (a TIFF header and its first directory, without JPEG's
 * "Exif\0\0"). Anything malformed or missing counts as 1: a broken tag is no reason to refuse a
 * picture. */
int exif_orientation(const uint8_t *tiff, size_t size);

#endif
