/* WebP, GIF, BMP, AVIF and HEIC against Pillow's results for the files in tests/golden/formats
 * (tests/reference/make_formats.py), and files of these formats that are not whole. */
#include <zlib.h>

#include "tests/images.h"
#include "vision/formats.h"
#include "vision/preprocess.h"

#define GOLDEN "tests/golden/formats/"

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

/* --- files that are not whole --- */

/* Whether the image can be decoded; a refusal is one line with the name and no pixels. */
static bool decodes(Bytes b, int64_t max_pixels, Error *err) {
    Image image;
    *err = (Error){""};
    const ImageOptions options = {.max_pixels = max_pixels};
    int result = image_decode(&image, b.at, b.size, "a.img", &options, err);
    if (result != 0) {
        assert_null(image.pixels);
        check_message(err, "image_decode", (const char *[]){"a.img", NULL});
    }
    image_free(&image);
    return result == 0;
}

static void expect_refusal(Bytes b, const char *what, const char *word) {
    Error err;
    if (decodes(b, 0, &err)) fail_msg("%s: accepted", what);
    check_message(&err, what, (const char *[]){word, NULL});
}

/* Every shorter file is refused as truncated, unless at most `end` bytes are missing. HEIF may end
 * between two boxes: then one is missing. */
static void check_truncations(const char *name, size_t end) {
    if (!readable(kind_of(name))) return;
    Bytes b = bytes_golden(GOLDEN, name);
    for (size_t size = 1; size < b.size; size += size < 300 || b.size - size < 40 ? 1 : 7) {
        Error err;
        Bytes part = bytes_of(b.at, size);
        if (decodes(part, 0, &err)) {
            if (b.size - size > end) fail_msg("%s: read from %zu of %zu", name, size, b.size);
        } else if (b.size - size <= end) {
            fail_msg("%s: the first %zu of %zu bytes refused: %s", name, size, b.size, err.text);
        } else if (!strstr(err.text, "truncated") && !strstr(err.text, "No 'meta' box")) {
            fail_msg("%s, %zu of %zu bytes: %s", name, size, b.size, err.text);
        }
        free(part.at);
    }
    free(b.at);
}

static void test_truncated(void **state) {
    (void)state;
    check_truncations("lossy_alpha.webp", 0);
    check_truncations("exif3.webp", 0);
    check_truncations("animated.webp", 0);
    check_truncations("extensions.gif", 1); /* its end marker holds no pixel */
    check_truncations("interlaced37.gif", 1);
    check_truncations("palette4.bmp", 1); /* nor does the padding of the last row */
    check_truncations("fields_bgra.bmp", 0);
    check_truncations("rgb24_os2.bmp", 3);
    check_truncations("rle8.bmp", 2);
    check_truncations("rle4.bmp", 2);
    check_truncations("alpha.avif", 0);
    check_truncations("full50.heic", 0);
}

/* Any byte may be wrong: the image is refused in one line, or still has pixels. */
static void check_wrong_bytes(const char *name) {
    if (!readable(kind_of(name))) return;
    Bytes b = bytes_golden(GOLDEN, name);
    TestRandom random = {b.size};
    for (size_t i = 0; i < b.size && i < 1500; i++) {
        Error err;
        uint8_t kept = b.at[i];
        b.at[i] ^= (uint8_t)(1 + test_random_next(&random) % 255);
        decodes(b, 1 << 16, &err);
        b.at[i] = kept;
    }
    free(b.at);
}

static void test_wrong_bytes(void **state) {
    (void)state;
    static const char *const names[] = {
        "lossy_alpha.webp", "lossless_alpha.webp", "animated_part.webp", "exif2_xmp5.webp",
        "animated.gif",     "transparent.gif",     "part_local.gif",     "palette1.bmp",
        "fields565.bmp",    "fields_rgba.bmp",     "rle8.bmp",           "rle4.bmp",
        "palette4_os2.bmp", "full10.avif",         "turned6.avif",       "full10.heic",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_wrong_bytes(names[i]);
}

/* A golden file with other bytes at one place, which is that of `find` plus `offset` if there is
 * one. */
static void check_change(const char *name, const char *find, size_t offset, const void *with,
                         size_t count, const char *word) {
    if (!readable(kind_of(name))) return;
    Bytes b = bytes_golden(GOLDEN, name);
    if (find) {
        uint8_t *at = memmem(b.at, b.size, find, strlen(find));
        if (!at) fail_msg("%s has no %s", name, find);
        offset += (size_t)(at - b.at);
    }
    assert_true(offset + count <= b.size);
    memcpy(b.at + offset, with, count);
    expect_refusal(b, name, word);
    free(b.at);
}
#define CHANGE(name, find, offset, with, word) \
    check_change(name, find, offset, with, sizeof(with) - 1, word)

static void test_wrong_bmp(void **state) {
    (void)state;
    CHANGE("rgb24.bmp", NULL, 18, "\0\0\0\0", "0x22 pixels");
    CHANGE("rgb24.bmp", NULL, 22, "\0\0\0\0", "19x0 pixels");
    CHANGE("rgb24.bmp", NULL, 18, "\xff\xff\xff\xff", "-1x22 pixels");
    CHANGE("rgb24.bmp", NULL, 22, "\0\0\0\x80", "1000000 at most");
    CHANGE("rgb24.bmp", NULL, 18, "\x40\x0d\x03\0\x40\x0d\x03\0", "the limit of 89478485");
    CHANGE("rgb24.bmp", NULL, 18, "\x10\x27\0\0\x10\x20\0\0", "truncated");
    CHANGE("rgb24.bmp", NULL, 28, "\x11", "17 bits a pixel");
    CHANGE("rgb24.bmp", NULL, 28, "\0", "0 bits a pixel");
    CHANGE("rgb24.bmp", NULL, 30, "\4", "JPEG inside");
    CHANGE("rgb24.bmp", NULL, 30, "\1", "compression 1");
    CHANGE("rgb24.bmp", NULL, 14, "\x29", "header of 41 bytes");
    CHANGE("rgb24.bmp", NULL, 10, "\xff\xff\xff\xff", "truncated");
    CHANGE("few_colors.bmp", NULL, 46, "\3", "of a palette of 3");
    CHANGE("few_colors.bmp", NULL, 46, "\xff\xff\xff\xff", "a palette of 4294967295");
    CHANGE("rle8_long_run.bmp", NULL, 46, "\3", "of a palette of 3");
    CHANGE("fields565.bmp", NULL, 54, "\x00\xf1", "gaps");
    CHANGE("fields565.bmp", NULL, 54, "\0\0", "no mask");
}

static void test_wrong_gif(void **state) {
    (void)state;
    /* The frame of global2.gif comes after a header of 13 bytes and 4 colors. */
    CHANGE("global2.gif", NULL, 30, "\0\0", "0x37 pixels");
    CHANGE("global2.gif", NULL, 32, "\0\0", "20x0 pixels");
    CHANGE("global2.gif", NULL, 6, "\xff\xff\xff\xff", "65535x65535 pixels");
    CHANGE("global2.gif", NULL, 30, "\xff\xff\x50\x05", "before image complete");
    CHANGE("global2.gif", NULL, 26, "\xff\xff\xff\xff", "65555x65572 pixels");
    CHANGE("global2.gif", NULL, 35, "\x0c", "broken GIF");
    CHANGE("global2.gif", NULL, 25, "?", "broken GIF");
    CHANGE("global2.gif", NULL, 25, ";", "no image");
    /* One color less, so that the last one of the pixels is none. */
    static const uint8_t index[] = "GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2"
                                   "\x5c\1\0;";
    Bytes b = bytes_of(index, sizeof index - 1);
    if (readable(IMAGE_GIF)) expect_refusal(b, "index", "color 3 of a palette of 2");
    free(b.at);
}

static void test_wrong_webp(void **state) {
    (void)state;
    CHANGE("animated_part.webp", "VP8X", 12, "\xff\xff\xff\xff\xff\xff", "broken WebP");
    CHANGE("animated_part.webp", "VP8X", 12, "\0\0\0\0\0\0", "broken WebP");
    CHANGE("lossless.webp", NULL, 12, "VP8?", "WebP");
    CHANGE("lossless.webp", "VP8L", 8, "?", "WebP");
    CHANGE("lossless.webp", "VP8L", 20, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "WebP");
    CHANGE("lossy.webp", "VP8 ", 14, "\0\0\0\0", "broken WebP");
    CHANGE("lossy.webp", "VP8 ", 14, "\xff\x3f\xff\x3f", "the limit of 89478485");
    CHANGE("animated.webp", "ANMF", 8, "\xff\xff\xff", "broken WebP");
}

static void test_wrong_heif(void **state) {
    (void)state;
    CHANGE("full50.avif", "ispe", 8, "\0\1\0\0\0\1\0\0", "AVIF");
    CHANGE("full50.heic", "ispe", 8, "\0\1\0\0\0\1\0\0", "HEIC");
    CHANGE("full50.avif", "ispe", 8, "\0\0\0\0", "AVIF");
    CHANGE("full50.heic", "ispe", 8, "\x7f\xff\xff\xff\x7f\xff\xff\xff", "HEIC");
    CHANGE("full50.avif", "meta", 0, "mets", "broken AVIF");
    CHANGE("full50.avif", "av01", 0, "zz01", "AVIF");
    CHANGE("full50.heic", "hvc1", 0, "zz01", "HEIC");
    CHANGE("full50.heic", "pitm", 8, "\x77\x77", "HEIC");
    CHANGE("full50.avif", "iloc", 0, "iloz", "AVIF");
}

/* Sizes within the limit of a file that has other pixels. */
static void test_limits(void **state) {
    (void)state;
    static const char *const names[] = {"lossless_large.webp", "large.avif", "large.heic",
                                        "table_full.gif", "rgb24.bmp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!readable(kind_of(names[i]))) continue;
        Bytes b = bytes_golden(GOLDEN, names[i]);
        Error err;
        assert_true(decodes(b, 0, &err));
        if (decodes(b, 400, &err)) fail_msg("%s: more than the limit", names[i]);
        check_message(&err, names[i], (const char *[]){"the limit of 400", NULL});
        free(b.at);
    }
}

static void test_formats_are_listed(void **state) {
    (void)state;
    ImageFormat formats[IMAGE_FORMATS];
    image_formats(formats);
    static const char *const names[] = {"PNG", "JPEG", "WebP", "GIF", "BMP", "AVIF", "HEIC"};
    for (int i = 0; i < IMAGE_FORMATS; i++) {
        assert_string_equal(formats[i].name, names[i]);
        assert_true(formats[i].library[0] != 0);
    }
    assert_true(formats[IMAGE_PNG - 1].readable && formats[IMAGE_BMP - 1].readable);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_webp_equals_pillow),  cmocka_unit_test(test_gif_equals_pillow),
        cmocka_unit_test(test_bmp_equals_pillow),   cmocka_unit_test(test_avif_is_near_pillow),
        cmocka_unit_test(test_heic_is_near_pillow), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_wrong_bytes),         cmocka_unit_test(test_wrong_bmp),
        cmocka_unit_test(test_wrong_gif),           cmocka_unit_test(test_wrong_webp),
        cmocka_unit_test(test_wrong_heif),          cmocka_unit_test(test_limits),
        cmocka_unit_test(test_formats_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
