/* images.c - fuzz targets of image files. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vision/formats.h"

enum { MOST_PIXELS = 1 << 18 };

/* libheif 1.15 with dav1d loses 40 bytes for an image whose data are empty; of other leaks none is
 * overlooked. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libdav1d.so";
}

static void decode(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    ImageOptions options = {.max_pixels = MOST_PIXELS};
    Image image;
    Error err;
    int status = image_decode(&image, bytes, size, "input", &options, &err);
    fuzz_result(status, &err);
    if (status == 0) {
        fuzz_check(image.width > 0 && image.height > 0, "an image has pixels");
        fuzz_check((int64_t)image.width * image.height <= MOST_PIXELS, "the limit of pixels");
        fuzz_touch(image.pixels, (size_t)image.width * (size_t)image.height * 3);
    } else
        fuzz_check(!image.pixels, "a failure leaves no image");
    image_free(&image);
    free(bytes);
}

static uint32_t crc_of(const uint8_t *bytes, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

/* Recomputes the checksums of all chunks: mutations would hardly ever get past them. */
static void png_repair(uint8_t *bytes, size_t size) {
    for (size_t at = 8; size >= 12 && at <= size - 12;) {
        uint32_t length = (uint32_t)bytes[at] << 24 | (uint32_t)bytes[at + 1] << 16 |
                          (uint32_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > size - at - 12) return;
        uint32_t crc = crc_of(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++) bytes[at + 8 + length + i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

void fuzz_png(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    if (size && data[size - 1] % 8) png_repair(bytes, size);
    if (size >= 8) memcpy(bytes, "\x89PNG\r\n\x1a\n", 8);
    decode(bytes, size);
    free(bytes);
}

void fuzz_jpeg(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    if (size >= 3) memcpy(bytes, "\xff\xd8\xff", 3);
    decode(bytes, size);
    free(bytes);
}

/* The input with the bytes at its beginning by which a format is recognized. */
static void decode_kind(const uint8_t *data, size_t size, size_t at, const char *magic,
                        size_t length) {
    uint8_t *bytes = fuzz_exact(data, size);
    if (size >= at + length) memcpy(bytes + at, magic, length);
    decode(bytes, size);
    free(bytes);
}

/* The size in the header is that of the file, without which libwebp waits for more. */
void fuzz_webp(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    if (size >= 12) {
        memcpy(bytes, "RIFF", 4);
        for (int i = 0; i < 4; i++) bytes[4 + i] = (uint8_t)((size - 8) >> 8 * i);
        memcpy(bytes + 8, "WEBP", 4);
    }
    decode(bytes, size);
    int orientation = webp_orientation(bytes, size);
    fuzz_check(orientation >= 1 && orientation <= 8, "a WebP's orientation is 1 to 8");
    free(bytes);
}

void fuzz_gif(const uint8_t *data, size_t size) {
    decode_kind(data, size, 0, "GIF89a", 6);
}

void fuzz_bmp(const uint8_t *data, size_t size) {
    decode_kind(data, size, 0, "BM", 2);
}

void fuzz_avif(const uint8_t *data, size_t size) {
    decode_kind(data, size, 4, "ftypavif", 8);
}

void fuzz_heic(const uint8_t *data, size_t size) {
    decode_kind(data, size, 4, "ftypheic", 8);
}

/* EXIF's directory, and other kinds of files. */
void fuzz_exif(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    bool found;
    int orientation = exif_orientation(bytes, size, &found);
    fuzz_check(orientation >= 1 && orientation <= 8, "an orientation is 1 to 8");
    fuzz_check(found || orientation == 1, "an orientation that is not there is upright");
    Error err;
    if (size && image_kind(bytes, size) == IMAGE_OTHER)
        fuzz_result(image_refuse(bytes, size, "input", &err), &err);
    free(bytes);
}

/* An XMP packet, alone and inside of files. */
void fuzz_xmp(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    int orientation = xmp_orientation(bytes, size);
    fuzz_check(orientation >= 0 && orientation <= 8, "an orientation is 1 to 8, or none");
    if (size && data[size - 1] % 8) png_repair(bytes, size);
    orientation = png_orientation(bytes, size);
    fuzz_check(orientation >= 1 && orientation <= 8, "a PNG's orientation is 1 to 8");
    orientation = jpeg_orientation(bytes, size);
    fuzz_check(orientation >= 1 && orientation <= 8, "a JPEG's orientation is 1 to 8");
    free(bytes);
}
