/* WebP, GIF, BMP, AVIF and HEIC against Pillow's results for the files in tests/golden/formats
 * (tests/reference/make_formats.py), and files of these formats that are not whole. */
#include <zlib.h>

#include "tests/test.h"
#include "vision/formats.h"
#include "vision/preprocess.h"

#define GOLDEN "tests/golden/formats/"

/* A file's bytes, of exactly its size, so that a sanitizer detects reads past them. */
typedef struct Bytes {
    uint8_t *at;
    size_t size;
} Bytes;

static Bytes bytes_of(const void *from, size_t size) {
    Bytes b = {malloc(size ? size : 1), size};
    if (size) memcpy(b.at, from, size);
    return b;
}

__attribute__((unused)) static Bytes golden(const char *name) {
    char path[256];
    size_t size;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    char *bytes = file_bytes(path, &size);
    if (!bytes) fail_msg("%s is missing", path);
    Bytes b = bytes_of(bytes, size);
    free(bytes);
    return b;
}

static bool readable(ImageKind kind) {
    ImageFormat formats[IMAGE_FORMATS];
    image_formats(formats);
    return formats[kind - 1].readable;
}

static ImageKind kind_of(const char *name) {
    static const char *const endings[] = {".png", ".jpg",  ".webp", ".gif",
                                          ".bmp", ".avif", ".heic"};
    const char *ending = strrchr(name, '.');
    for (int i = 0; i < IMAGE_FORMATS; i++)
        if (strcmp(ending, endings[i]) == 0) return (ImageKind)(i + 1);
    fail_msg("%s: unknown ending", name);
    return IMAGE_OTHER;
}

static uint32_t image_crc(const Image *image) {
    size_t size = (size_t)image->width * (size_t)image->height * 3;
    return (uint32_t)crc32(0, image->pixels, (uInt)size);
}

/* --- against Pillow --- */

/* Cropping while decoding gives the same as cropping the image. */
static void check_streamed(const char *path, const Image *image, const char *name) {
    const PreprocessConfig config = preprocess_clip_default();
    Image crop, streamed;
    Error err;
    int width, height;
    assert_ok(preprocess_crop(&crop, image, &config, &err), &err);
    assert_ok(preprocess_read(&streamed, &width, &height, path, &config, NULL, &err), &err);
    assert_int_equal(width, image->width);
    assert_int_equal(height, image->height);
    if (image_crc(&crop) != image_crc(&streamed)) fail_msg("%s: another crop, streamed", name);
    image_free(&crop);
    image_free(&streamed);
}

static void check_pixels(const char *path, bool stored, int width, int height, uint32_t crc,
                         const char *name) {
    Image image;
    Error err;
    assert_ok(image_read(&image, path, &(ImageOptions){.ignore_orientation = stored}, &err), &err);
    if (image.width != width || image.height != height)
        fail_msg("%s: %dx%d pixels, expected %dx%d", name, image.width, image.height, width,
                 height);
    if (image_crc(&image) != crc)
        fail_msg("%s%s: CRC-32 %08x, Pillow's is %08x", name, stored ? ", as stored" : "",
                 image_crc(&image), crc);
    if (!stored) check_streamed(path, &image, name);
    image_free(&image);
}

static void check_exact(ImageKind kind, int least) {
    if (!readable(kind)) skip();
    char *table = file_bytes(GOLDEN "expected.tsv", NULL), *rest = table;
    assert_non_null(table);
    int count = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char name[64], path[256];
        int w, h, upright_w, upright_h;
        unsigned crc, upright_crc;
        if (*line == '#' || *line == 0) continue;
        assert_int_equal(sscanf(line, "%63[^\t] %d %d %x %d %d %x", name, &w, &h, &crc, &upright_w,
                                &upright_h, &upright_crc),
                         7);
        if (kind_of(name) != kind) continue;
        snprintf(path, sizeof path, GOLDEN "%s", name);
        check_pixels(path, true, w, h, crc, name);
        check_pixels(path, false, upright_w, upright_h, upright_crc, name);
        count++;
    }
    assert_true(count >= least);
    free(table);
}

static void test_webp_equals_pillow(void **state) {
    (void)state;
    check_exact(IMAGE_WEBP, 20);
}

static void test_gif_equals_pillow(void **state) {
    (void)state;
    check_exact(IMAGE_GIF, 20);
}

static void test_bmp_equals_pillow(void **state) {
    (void)state;
    check_exact(IMAGE_BMP, 20);
}

static void check_near_file(const char *name, int most, double mean) {
    char path[256], expected_path[256];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    snprintf(expected_path, sizeof expected_path, GOLDEN "%s.png", name);
    Image image, expected;
    Error err;
    assert_ok(image_read(&image, path, NULL, &err), &err);
    assert_ok(image_read(&expected, expected_path, NULL, &err), &err);
    if (image.width != expected.width || image.height != expected.height)
        fail_msg("%s: %dx%d pixels, expected %dx%d", name, image.width, image.height,
                 expected.width, expected.height);
    int largest = 0;
    double sum = 0;
    size_t size = (size_t)image.width * (size_t)image.height * 3;
    for (size_t i = 0; i < size; i++) {
        int difference = abs(image.pixels[i] - expected.pixels[i]);
        if (difference > largest) largest = difference;
        sum += difference;
    }
    if (largest > most || sum / (double)size > mean)
        fail_msg("%s: differs by %d, on average by %.3f; allowed are %d and %.3f", name, largest,
                 sum / (double)size, most, mean);
    check_streamed(path, &image, name);
    image_free(&image);
    image_free(&expected);
}

static void check_near(ImageKind kind, int least) {
    if (!readable(kind)) skip();
    char *table = file_bytes(GOLDEN "near.tsv", NULL), *rest = table;
    assert_non_null(table);
    int count = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char name[64];
        int most;
        double mean;
        if (*line == '#' || *line == 0) continue;
        assert_int_equal(sscanf(line, "%63[^\t] %d %lf", name, &most, &mean), 3);
        if (kind_of(name) != kind) continue;
        check_near_file(name, most, mean);
        count++;
    }
    assert_true(count >= least);
    free(table);
}

static void test_avif_is_near_pillow(void **state) {
    (void)state;
    check_near(IMAGE_AVIF, 20);
}

static void test_heic_is_near_pillow(void **state) {
    (void)state;
    check_near(IMAGE_HEIC, 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_webp_equals_pillow),  cmocka_unit_test(test_gif_equals_pillow),
        cmocka_unit_test(test_bmp_equals_pillow),   cmocka_unit_test(test_avif_is_near_pillow),
        cmocka_unit_test(test_heic_is_near_pillow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
