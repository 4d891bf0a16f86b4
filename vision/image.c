#include "vision/image.h"

#include <stdlib.h>
#include <string.h>

#include "vision/formats.h"

void image_free(Image *image) {
    free(image->pixels);
    *image = (Image){0};
}

int image_decode_into(const ImageSink *sink, const void *bytes, size_t size, const char *name,
                      const ImageOptions *options, Error *err) {
    Encoded file = {.bytes = bytes,
                    .size = size,
                    .name = name,
                    .max_pixels = IMAGE_MAX_PIXELS,
                    .orientation = 1,
                    .as_stored = options && options->ignore_orientation,
                    .sink = sink};
    if (options && options->max_pixels > 0) file.max_pixels = options->max_pixels;
    ImageKind kind = image_kind(bytes, size);
    if (kind == IMAGE_OTHER) return image_refuse(bytes, size, name, err);
    int result = format_decode(kind, &file, err);
    free(file.reversed);
    return result;
}

int image_read_into(const ImageSink *sink, const char *path, const ImageOptions *options,
                    Error *err) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    int result = image_file_read(&bytes, &size, path, err);
    if (result == 0)
        result = image_decode_into(sink, bytes, size, image_file_name(path), options, err);
    free(bytes);
    return result;
}

/* ---- All pixels. ---- */

static int pixels_start(void *context, int width, int height, bool by_columns, Error *err) {
    (void)by_columns;
    Image *image = context;
    *image = (Image){width, height, malloc((size_t)width * (size_t)height * 3)};
    if (!image->pixels) return error_set(err, "not enough memory for %dx%d pixels", width, height);
    return 0;
}

static void pixels_row(void *context, int y, const uint8_t *rgb) {
    Image *image = context;
    size_t row_bytes = (size_t)image->width * 3;
    memcpy(image->pixels + (size_t)y * row_bytes, rgb, row_bytes);
}

static void pixels_column(void *context, int x, const uint8_t *rgb) {
    Image *image = context;
    size_t row_bytes = (size_t)image->width * 3;
    uint8_t *to = image->pixels + (size_t)x * 3;
    for (int y = 0; y < image->height; y++, to += row_bytes, rgb += 3)
        to[0] = rgb[0], to[1] = rgb[1], to[2] = rgb[2];
}

static ImageSink pixels_sink(Image *image) {
    *image = (Image){0};
    return (ImageSink){pixels_start, pixels_row, pixels_column, image};
}

int image_decode(Image *image, const void *bytes, size_t size, const char *name,
                 const ImageOptions *options, Error *err) {
    ImageSink sink = pixels_sink(image);
    int result = image_decode_into(&sink, bytes, size, name, options, err);
    if (result != 0) image_free(image);
    return result;
}

int image_read(Image *image, const char *path, const ImageOptions *options, Error *err) {
    ImageSink sink = pixels_sink(image);
    int result = image_read_into(&sink, path, options, err);
    if (result != 0) image_free(image);
    return result;
}
