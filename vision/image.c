#include "vision/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vision/formats.h"

enum {
    DEFAULT_MAX_PIXELS = 89478485, /* 2^30 / 4 / 3, rounded: Pillow's MAX_IMAGE_PIXELS */
    MAX_FILE_BYTES = 1 << 30       /* no picture within the pixel limit needs more; a pipe that
                                      never ends is stopped here */
};

void image_free(Image *image) {
    free(image->pixels);
    *image = (Image){0};
}

int encoded_check_size(const Encoded *file, const char *format, int64_t width, int64_t height,
                       Error *err) {
    if (width < 1 || height < 1 || width > INT32_MAX || height > INT32_MAX)
        return error_set(err, "%s: broken %s: a size of %lldx%lld pixels", file->name, format,
                         (long long)width, (long long)height);
    /* Below 2^62, and 4 bytes a pixel are the most that a decoder asks for. */
    int64_t pixels = width * height;
    if (pixels > file->max_pixels || (uint64_t)pixels > SIZE_MAX / 4)
        return error_set(err,
                         "%s: %lldx%lld pixels (%lld) are more than the limit of %lld; make the "
                         "picture smaller",
                         file->name, (long long)width, (long long)height, (long long)pixels,
                         (long long)file->max_pixels);
    return 0;
}

/* Turns the picture upright. Each of the eight EXIF orientations is a walk over the stored pixels:
 * the pixel at (x, y) of the upright picture is stored at start + x * dx + y * dy. The first
 * stored row is the top (1, 2), the bottom (3, 4), the left (5, 8) or the right side (6, 7). */
static int image_turn_upright(Image *image, int orientation, const char *name, Error *err) {
    if (orientation <= 1 || orientation > 8) return 0;
    int64_t w = image->width, h = image->height;
    int64_t right = w - 1, bottom = (h - 1) * w;
    const struct {
        int64_t start, dx, dy;
    } walks[9] = {
        [2] = {right, -1, w},           /* mirrored left to right */
        [3] = {bottom + right, -1, -w}, /* half a turn */
        [4] = {bottom, 1, -w},          /* mirrored top to bottom */
        [5] = {0, w, 1},                /* transposed */
        [6] = {bottom, -w, 1},          /* to be turned a quarter clockwise */
        [7] = {bottom + right, -w, -1}, /* transposed over the other diagonal */
        [8] = {right, w, -1},           /* to be turned a quarter anticlockwise */
    };
    const int64_t start = walks[orientation].start, dx = walks[orientation].dx,
                  dy = walks[orientation].dy;
    Image turned = {orientation >= 5 ? image->height : image->width,
                    orientation >= 5 ? image->width : image->height, NULL};
    turned.pixels = malloc((size_t)(w * h) * 3);
    if (!turned.pixels)
        return error_set(err, "%s: not enough memory for %lldx%lld pixels", name, (long long)w,
                         (long long)h);
    /* In tiles, because a quarter turn reads columns: a tile's rows stay in the cache until all of
     * their pixels have been used. */
    enum { TILE = 32 };
    for (int y0 = 0; y0 < turned.height; y0 += TILE)
        for (int x0 = 0; x0 < turned.width; x0 += TILE) {
            int y1 = turned.height - y0 < TILE ? turned.height : y0 + TILE;
            int x1 = turned.width - x0 < TILE ? turned.width : x0 + TILE;
            for (int y = y0; y < y1; y++) {
                uint8_t *to = turned.pixels + ((int64_t)y * turned.width + x0) * 3;
                const uint8_t *from = image->pixels + (start + x0 * dx + y * dy) * 3;
                for (int x = x0; x < x1; x++, to += 3, from += dx * 3)
                    to[0] = from[0], to[1] = from[1], to[2] = from[2];
            }
        }
    image_free(image);
    *image = turned;
    return 0;
}

int image_decode(Image *image, const void *bytes, size_t size, const char *name,
                 const ImageOptions *options, Error *err) {
    *image = (Image){0};
    Encoded file = {bytes, size, name, DEFAULT_MAX_PIXELS};
    if (options && options->max_pixels > 0) file.max_pixels = options->max_pixels;
    int orientation = 1;
    switch (picture_kind(bytes, size)) {
    case PICTURE_PNG:
        TRY(png_decode(image, &orientation, &file, err));
        break;
    case PICTURE_JPEG:
        TRY(jpeg_decode(image, &orientation, &file, err));
        break;
    case PICTURE_OTHER:
        return picture_refuse(bytes, size, name, err);
    }
    if (options && options->ignore_orientation) return 0;
    if (image_turn_upright(image, orientation, name, err) != 0) {
        image_free(image);
        return -1;
    }
    return 0;
}

/* All bytes of the stream in *bytes (the caller frees it, also after a failure). What is no picture
 * is refused after its first bytes: nobody waits for a film to be read. */
static int stream_read(FILE *stream, const char *name, uint8_t **bytes, size_t *size, Error *err) {
    size_t capacity = 1 << 16;
    bool looked = false;
    for (;;) {
        uint8_t *more = realloc(*bytes, capacity);
        if (!more) return error_set(err, "%s: not enough memory to read it", name);
        *bytes = more;
        *size += fread(*bytes + *size, 1, capacity - *size, stream);
        if (ferror(stream)) return error_set(err, "%s: cannot read: %s", name, strerror(errno));
        if (!looked && picture_kind(*bytes, *size) == PICTURE_OTHER)
            return picture_refuse(*bytes, *size, name, err);
        looked = true;
        if (*size < capacity) return 0;
        if (capacity >= MAX_FILE_BYTES)
            return error_set(err, "%s: more than %d MiB, too large for a picture", name,
                             MAX_FILE_BYTES >> 20);
        capacity *= 2;
    }
}

int image_read(Image *image, const char *path, const ImageOptions *options, Error *err) {
    *image = (Image){0};
    bool standard_input = strcmp(path, "-") == 0;
    const char *name = standard_input ? "standard input" : path;
    FILE *stream = standard_input ? stdin : fopen(path, "rb");
    if (!stream)
        return error_set(err, "%s: cannot open the picture: %s", name,
                         errno == ENOENT ? "no such file; check the path" : strerror(errno));
    struct stat info;
    int result = 0;
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (fstat(fileno(stream), &info) == 0 && S_ISDIR(info.st_mode))
        result = error_set(err, "%s: this is a folder; expected a PNG or JPEG picture", name);
    if (result == 0) result = stream_read(stream, name, &bytes, &size, err);
    if (!standard_input) fclose(stream);
    if (result == 0) result = image_decode(image, bytes, size, name, options, err);
    free(bytes);
    return result;
}
