#include "tests/images.h"

#include <png.h>

void image_write(const char *path, const uint8_t *pixels, int width, int height) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = PNG_FORMAT_RGB};
    assert_true(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
}

Bytes bytes_of(const void *from, size_t size) {
    Bytes b = {malloc(size ? size : 1), size};
    if (size) memcpy(b.at, from, size);
    return b;
}

Bytes bytes_golden(const char *folder, const char *name) {
    char path[256];
    size_t size;
    snprintf(path, sizeof path, "%s%s", folder, name);
    char *bytes = file_bytes(path, &size);
    if (!bytes) fail_msg("%s is missing", path);
    Bytes b = bytes_of(bytes, size);
    free(bytes);
    return b;
}
