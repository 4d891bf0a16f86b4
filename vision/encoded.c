/* encoded.c - shared by all decoders: checks the size, and turns stored rows upright. */
#include <stdlib.h>

#include "vision/formats.h"

int encoded_check_size(const Encoded *file, const char *format, int64_t width, int64_t height,
                       int times, Error *err) {
    if (width < 1 || height < 1)
        return error_set(err, "%s: broken %s: a size of %lldx%lld pixels", file->name, format,
                         (long long)width, (long long)height);
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return error_set(err,
                         "%s: %lldx%lld pixels: a side may have %d at most; cut the image or make "
                         "it smaller",
                         file->name, (long long)width, (long long)height, IMAGE_MAX_SIDE);
    int64_t pixels = width * height;
    if (pixels / times <= file->max_pixels && (uint64_t)pixels <= SIZE_MAX / 8) return 0;
    return error_set(
        err,
        "%s: %lldx%lld pixels (%lld) are more than %sthe limit of %lld; make the image "
        "smaller%s",
        file->name, (long long)width, (long long)height, (long long)pixels,
        times > 1 ? "four times " : "", (long long)file->max_pixels,
        times > 1 ? "" : ", or save it as JPEG, which may have four times as many");
}

void rgba_over_white(uint8_t *rgb, const uint8_t *rgba, int width) {
    for (int x = 0; x < width; x++, rgba += 4, rgb += 3)
        for (int c = 0; c < 3; c++) rgb[c] = over_white(rgba[c], rgba[3]);
}

/* ---- Upright rows. ---- */

/* The eight EXIF orientations are three flags: the image lies on its side (5 to 8: its stored rows
 * are the upright columns), the stored rows are in reverse order (3, 4, 6, 7), and each is mirrored
 * (2, 3, 7, 8). */
static bool is_on_its_side(int orientation) {
    return orientation >= 5;
}

static bool from_far_end(int orientation) {
    return orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

static bool is_mirrored(int orientation) {
    return orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
}

int rows_start(Encoded *file, int width, int height, Error *err) {
    bool by_columns = is_on_its_side(file->orientation);
    file->width = width, file->height = height;
    if (is_mirrored(file->orientation)) {
        file->reversed = malloc((size_t)width * 3);
        if (!file->reversed) return error_set(err, "%s: not enough memory for a row", file->name);
    }
    if (file->sink->start(file->sink->context, by_columns ? height : width,
                          by_columns ? width : height, by_columns, err) != 0)
        return error_context(err, "%s", file->name);
    return 0;
}

void rows_put(const Encoded *file, int y, const uint8_t *rgb) {
    const ImageSink *sink = file->sink;
    if (file->reversed) {
        uint8_t *to = file->reversed + (size_t)(file->width - 1) * 3;
        for (int x = 0; x < file->width; x++, to -= 3, rgb += 3)
            to[0] = rgb[0], to[1] = rgb[1], to[2] = rgb[2];
        rgb = file->reversed;
    }
    if (from_far_end(file->orientation)) y = file->height - 1 - y;
    if (is_on_its_side(file->orientation))
        sink->column(sink->context, y, rgb);
    else
        sink->row(sink->context, y, rgb);
}
