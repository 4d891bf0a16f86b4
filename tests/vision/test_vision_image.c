/* Images: decoding, orientation, resizing and CLIP's preprocessing, against Pillow's results for
 * the files in tests/golden/images (tests/reference/make_images.py), and everything that can be
 * wrong with an image file. */
#include <math.h>
#include <unistd.h>

#include "tests/test.h"
#include "vision/formats.h"
#include "vision/preprocess.h"
#include "vision/resize.h"

#define GOLDEN "tests/golden/images/"

static uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return crc;
}

static uint32_t crc32_of(const void *bytes, size_t size) {
    return ~crc32_update(~0u, bytes, size);
}

static uint32_t image_crc(const Image *image) {
    return crc32_of(image->pixels, (size_t)image->width * (size_t)image->height * 3);
}

static uint8_t *golden_bytes(const char *name, size_t *size) {
    char path[256];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    char *bytes = file_bytes(path, size);
    if (!bytes) fail_msg("%s is missing", path);
    /* Exactly as many bytes as the file has, so that a sanitizer detects reads past them. */
    uint8_t *exact = malloc(*size);
    memcpy(exact, bytes, *size);
    free(bytes);
    return exact;
}

static void file_write(const char *path, const void *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

/* An image of noise and edges that differs in every sample. */
static Image image_noise(int width, int height, uint64_t seed) {
    TestRandom random = {seed};
    Image image = {width, height, malloc((size_t)width * (size_t)height * 3)};
    for (int64_t i = 0; i < (int64_t)width * height * 3; i++) {
        uint64_t r = test_random_next(&random) >> 40;
        image.pixels[i] = (uint8_t)(r % 4 == 0 ? (r & 4 ? 255 : 0) : r >> 8);
    }
    return image;
}

/* --- against Pillow --- */

static void check_image(const Image *image, int width, int height, uint32_t crc, const char *name,
                        const char *what) {
    if (image->width != width || image->height != height)
        fail_msg("%s, %s: %dx%d pixels, expected %dx%d", name, what, image->width, image->height,
                 width, height);
    if (image_crc(image) != crc)
        fail_msg("%s, %s: CRC-32 %08x, Pillow's is %08x", name, what, image_crc(image), crc);
}

/* Cropping while decoding gives the same. */
static void check_streamed(const char *path, const PreprocessConfig *config, int width, int height,
                           uint32_t crc, const char *name) {
    Error err;
    Image crop;
    int w, h;
    assert_ok(preprocess_read(&crop, &w, &h, path, config, NULL, &err), &err);
    check_image(&crop, 224, 224, crc, name, config->pad ? "padded, streamed" : "crop, streamed");
    assert_int_equal(w, width);
    assert_int_equal(h, height);
    image_free(&crop);
}

/* Checks the lines of expected.tsv whose file names begin with `prefix` (those without a colon, if
 * it is empty); returns their number. */
static int check_images(const char *prefix) {
    char *table = file_bytes(GOLDEN "expected.tsv", NULL), *rest = table;
    assert_non_null(table);
    int count = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char name[64], path[256];
        int w, h, upright_w, upright_h;
        unsigned crc, upright_crc, crop_crc, pad_crc;
        if (*line == '#' || *line == 0) continue;
        assert_int_equal(sscanf(line, "%63[^\t] %d %d %x %d %d %x %x %x", name, &w, &h, &crc,
                                &upright_w, &upright_h, &upright_crc, &crop_crc, &pad_crc),
                         9);
        bool shared = strncmp(name, "shared:", 7) == 0;
        if (shared != (*prefix != 0)) continue;
        snprintf(path, sizeof path, "%s%s", shared ? "../shared/data/images/" : GOLDEN,
                 name + strlen(prefix));
        Error err;
        Image image, crop;
        assert_ok(image_read(&image, path, &(ImageOptions){.ignore_orientation = true}, &err),
                  &err);
        check_image(&image, w, h, crc, name, "as stored");
        image_free(&image);
        assert_ok(image_read(&image, path, NULL, &err), &err);
        check_image(&image, upright_w, upright_h, upright_crc, name, "upright");
        PreprocessConfig config = preprocess_clip_default();
        assert_ok(preprocess_crop(&crop, &image, &config, &err), &err);
        check_image(&crop, 224, 224, crop_crc, name, "crop");
        image_free(&crop);
        check_streamed(path, &config, upright_w, upright_h, crop_crc, name);
        config.pad = true;
        assert_ok(preprocess_crop(&crop, &image, &config, &err), &err);
        check_image(&crop, 224, 224, pad_crc, name, "padded crop");
        image_free(&crop);
        check_streamed(path, &config, upright_w, upright_h, pad_crc, name);
        image_free(&image);
        count++;
    }
    free(table);
    return count;
}

static void test_images_equal_pillow(void **state) {
    (void)state;
    assert_true(check_images("") >= 90);
}

static void test_real_images_equal_pillow(void **state) {
    (void)state;
    if (!shared_file("images/waterview.jpg")) skip();
    assert_int_equal(check_images("shared:"), 3);
}

static void test_values_equal_reference(void **state) {
    (void)state;
    char *table = file_bytes(GOLDEN "floats.tsv", NULL), *rest = table, current[128] = "";
    assert_non_null(table);
    float *values = NULL;
    int lines = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char name[64], path[256], now[128];
        int size, pad, index;
        float expected;
        if (*line == '#' || *line == 0) continue;
        assert_int_equal(sscanf(line, "%63[^\t] %d %d %d %f", name, &size, &pad, &index, &expected),
                         5);
        snprintf(now, sizeof now, "%s %d %d", name, size, pad);
        if (strcmp(now, current) != 0) {
            strcpy(current, now);
            snprintf(path, sizeof path, GOLDEN "%s", name);
            Error err;
            Image image;
            PreprocessConfig config = preprocess_clip_default();
            config.size = size, config.pad = pad;
            free(values);
            values = malloc((size_t)size * (size_t)size * 3 * sizeof *values);
            assert_ok(image_read(&image, path, NULL, &err), &err);
            assert_ok(preprocess_image(values, &image, &config, &err), &err);
            image_free(&image);
        }
        if (!(fabsf(values[index] - expected) <= 1e-6f))
            fail_msg("%s, value %d: %.9g, expected %.9g", now, index, values[index], expected);
        lines++;
    }
    assert_int_equal(lines, 240);
    free(values);
    free(table);
}

/* --- orientation --- */

/* Where the pixel at (x, y) of the upright image is stored, from the words of the EXIF standard:
 * which sides of the scene the first row and the first column are. */
static void stored_position(int orientation, int w, int h, int x, int y, int *column, int *row) {
    static const char *sides[9] = {"", "TL", "TR", "BR", "BL", "LT", "RT", "RB", "LB"};
    for (int i = 0; i < 2; i++) {
        int distance = 0; /* of the upright pixel from the named side of the upright image */
        switch (sides[orientation][i]) {
        case 'T':
            distance = y;
            break;
        case 'B':
            distance = h - 1 - y;
            break;
        case 'L':
            distance = x;
            break;
        case 'R':
            distance = w - 1 - x;
            break;
        }
        *(i == 0 ? row : column) = distance;
    }
}

static void check_orientation(int orientation) {
    char path[64];
    snprintf(path, sizeof path, GOLDEN "orientation%d.jpg", orientation);
    Error err;
    Image stored, upright;
    assert_ok(image_read(&stored, path, &(ImageOptions){.ignore_orientation = true}, &err), &err);
    assert_ok(image_read(&upright, path, NULL, &err), &err);
    assert_int_equal(stored.width, 45);
    assert_int_equal(upright.width, orientation >= 5 ? 26 : 45);
    assert_int_equal(upright.height, orientation >= 5 ? 45 : 26);
    for (int y = 0; y < upright.height; y++)
        for (int x = 0; x < upright.width; x++) {
            int column, row;
            stored_position(orientation, upright.width, upright.height, x, y, &column, &row);
            assert_memory_equal(upright.pixels + (y * upright.width + x) * 3,
                                stored.pixels + (row * stored.width + column) * 3, 3);
        }
    image_free(&stored);
    image_free(&upright);
}

#define ORIENTATION_TEST(n)                          \
    static void test_orientation_##n(void **state) { \
        (void)state;                                 \
        check_orientation(n);                        \
    }
ORIENTATION_TEST(1)
ORIENTATION_TEST(2)
ORIENTATION_TEST(3)
ORIENTATION_TEST(4)
ORIENTATION_TEST(5)
ORIENTATION_TEST(6)
ORIENTATION_TEST(7)
ORIENTATION_TEST(8)

/* On the heap and of exactly this size, so that a sanitizer detects reads past it. */
static int orientation_of(const void *block, size_t size) {
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, block, size);
    int orientation = exif_orientation(exact, size, NULL);
    free(exact);
    return orientation;
}

static void test_exif_blocks(void **state) {
    (void)state;
    static const char little[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    static const char big[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
    assert_int_equal(orientation_of(little, 22), 6);
    assert_int_equal(orientation_of(big, 22), 8);
    for (size_t size = 0; size < 22; size++) {
        assert_int_equal(orientation_of(little, size), 1);
        assert_int_equal(orientation_of(big, size), 1);
    }
    static const struct {
        size_t at;
        uint8_t value;
    } damages[] = {
        {0, 'X'}, {1, 'M'}, {2, 43}, {3, 1},  {4, 9},  {7, 0xff}, {8, 0},  {10, 0},
        {12, 2},  {12, 7},  {14, 0}, {14, 2}, {17, 1}, {18, 0},   {18, 9}, {19, 1},
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        char block[22];
        memcpy(block, little, 22);
        block[damages[i].at] = (char)damages[i].value;
        if (orientation_of(block, 22) != 1) fail_msg("damage at %zu passed", damages[i].at);
    }
    /* Directories that claim 65535 entries, at any place. */
    TestRandom random = {7};
    for (int i = 0; i < 3000; i++) {
        char block[64];
        size_t size = test_random_next(&random) % sizeof block;
        for (size_t at = 0; at < size; at++) block[at] = (char)(test_random_next(&random) >> 50);
        if (size >= 8) memcpy(block, i % 2 ? "II*\0" : "MM\0*", 4);
        if (size >= 8) memset(block + 4, 0, 4), block[i % 2 ? 4 : 7] = (char)(i % 70);
        int orientation = orientation_of(block, size);
        assert_in_range(orientation, 1, 8);
    }
}

/* --- bad files --- */

static void test_kinds_are_named(void **state) {
    (void)state;
#define KIND(bytes, word) \
    { bytes, sizeof(bytes) - 1, word }
    static const struct {
        const char *bytes;
        size_t size;
        const char *word;
    } kinds[] = {
        KIND("GIF89a\x01\0\x01\0\x80\0\0", "GIF"),
        KIND("RIFF\x24\0\0\0WEBPVP8 ", "WebP"),
        KIND("RIFF\x24\0\0\0WAVEfmt ", "sound"),
        KIND("BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "BMP"),
        KIND("II*\0\x08\0\0\0\0\0", "TIFF"),
        KIND("MM\0*\0\0\0\x08\0\0", "TIFF"),
        KIND("\0\0\0\x18"
             "ftypheic\0\0\0\0mif1heic",
             "HEIC"),
        KIND("\0\0\0\x18"
             "ftypmif1\0\0\0\0mif1heic",
             "HEIC"),
        KIND("\0\0\0\x1c"
             "ftypavif\0\0\0\0mif1avif",
             "AVIF"),
        KIND("\0\0\0\x14"
             "ftypisom\0\0\x02\0isom",
             "MP4"),
        KIND("%PDF-1.7\n%\xe2\xe3", "PDF"),
        KIND("\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        KIND("\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        KIND("PK\3\4\x14\0\0\0\x08\0", "ZIP"),
        KIND("P6\n2 2\n255\n............", "PNM"),
        KIND("<!DOCTYPE html><title>404</title>", "web page"),
        KIND("\xef\xbb\xbf\n <HTML><body>", "web page"),
        KIND("<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        KIND("version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        KIND("Not found. Gr\xc3\xbc\xc3\x9f Gott\n", "text"),
        KIND("<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "rsvg-convert"),
        KIND("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        KIND("{\"error\": \"not found\"}", "JSON"),
        KIND("iVBORw0KGgoAAAANSUhEUgAAAAE=\n", "base64 -d"),
        KIND("data:image/jpeg;base64,/9j/4AAQSkZJRg==", "base64 -d"),
        KIND("\0\0\0\0\0\0\0\0\0\0", "zero bytes"),
        KIND("qoif\0\0\0\x01\0\0\0\x01", "QOI"),
        KIND("BZh91AY&SY\xff\0", "bzip2"),
        KIND("BM is a text that begins like a BMP", "text"),
        KIND("\x89PNG\n\x1a\n\0\0\0\rIHDR", "damaged"),
        KIND("\x01\x02\x03\x04\x05\x06\x07\x08\x09", "01 02 03 04 05 06 07 08"),
        KIND("", "empty"),
        KIND("\xff", "1 byte"),
        KIND("\x89PNG", "4 bytes"),
    };
#undef KIND
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        Error err;
        Image image = {1, 1, NULL};
        assert_refused(image_decode(&image, kinds[i].bytes, kinds[i].size, "a.jpg", NULL, &err),
                       &err, "a.jpg", kinds[i].word);
        assert_null(image.pixels);
        assert_int_equal(image.width, 0);
    }
}

static void test_files(void **state) {
    (void)state;
    Error err;
    Image image;
    char folder[256], path[300];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/none.png", folder);
    assert_refused(image_read(&image, path, NULL, &err), &err, path, "no such file");
    assert_refused(image_read(&image, folder, NULL, &err), &err, folder, "folder");
    snprintf(path, sizeof path, "%s/empty.jpg", folder);
    file_write(path, "", 0);
    assert_refused(image_read(&image, path, NULL, &err), &err, path, "empty");
    snprintf(path, sizeof path, "%s/tiff.jpg", folder);
    file_write(path, "II*\0\x08\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_refused(image_read(&image, path, NULL, &err), &err, path, "TIFF", "PNG, JPEG, WebP");

    /* The content counts, not the name; and a file larger than the first read. */
    size_t size;
    uint8_t *bytes = golden_bytes("rgb8_224x224.png", &size);
    assert_true(size > 1 << 16);
    snprintf(path, sizeof path, "%s/png.jpg", folder);
    file_write(path, bytes, size);
    assert_ok(image_read(&image, path, NULL, &err), &err);
    uint32_t crc = image_crc(&image);
    image_free(&image);

    assert_non_null(freopen(path, "rb", stdin));
    assert_ok(image_read(&image, "-", NULL, &err), &err);
    assert_int_equal(image_crc(&image), crc);
    image_free(&image);
    image_free(&image); /* twice is allowed */
    assert_non_null(freopen("/dev/null", "rb", stdin));
    assert_refused(image_read(&image, "-", NULL, &err), &err, "standard input", "empty");
    free(bytes);
    temporary_remove(folder);
}

/* Every prefix of a file is refused as truncated, unless at most the `end` bytes after all pixels
 * are missing; between these is a `margin` of bytes that may be needed or not. */
static void check_truncations(const char *name, size_t end, size_t margin) {
    size_t size;
    uint8_t *bytes = golden_bytes(name, &size);
    for (size_t cut = 1; cut < size; cut += cut < 700 || size - cut < 40 ? 1 : 13) {
        uint8_t *part = malloc(cut);
        memcpy(part, bytes, cut);
        Error err = {""};
        Image image;
        if (image_decode(&image, part, cut, name, NULL, &err) != 0) {
            check_message(&err, name, (const char *[]){name, "truncated", NULL});
            assert_null(image.pixels);
            if (size - cut <= end) fail_msg("%s: the first %zu bytes refused", name, cut);
        } else if (size - cut > end + margin) {
            fail_msg("%s: read from %zu of %zu bytes", name, cut, size);
        }
        image_free(&image);
        free(part);
    }
    free(bytes);
}

static void test_truncated_png(void **state) {
    (void)state;
    /* The end marker's 12 bytes and the two checksums of the data hold no pixels. libpng may need
     * part of the latter. */
    check_truncations("rgb8_interlaced_37x29.png", 12, 12);
    check_truncations("palette8_alpha.png", 12, 12);
    check_truncations("rgb8_1x1.png", 12, 12);
}

static void test_truncated_jpeg(void **state) {
    (void)state;
    check_truncations("orientation6.jpg", 0, 0);
    check_truncations("grey_progressive.jpg", 0, 0);
    check_truncations("cmyk.jpg", 0, 0);
    check_truncations("one.jpg", 0, 0);
}

/* Recomputes the checksums of a PNG, so that damage gets past them. */
static void png_mend(uint8_t *bytes, size_t size) {
    for (size_t at = 8; at + 12 <= size;) {
        size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 |
                        (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > size - at - 12) return;
        uint32_t crc = crc32_of(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
}

/* Damaged bytes give an image or a message, and never more pixels than allowed. */
static void check_damage(const char *name, uint64_t seed) {
    size_t size;
    uint8_t *bytes = golden_bytes(name, &size), *damaged = malloc(size);
    TestRandom random = {seed};
    ImageOptions options = {.max_pixels = 200000};
    for (int i = 0; i < 300; i++) {
        memcpy(damaged, bytes, size);
        int flips = 1 + (int)(test_random_next(&random) % 4);
        for (int k = 0; k < flips; k++) {
            /* Half of them at the beginning, where the headers are. */
            uint64_t r = test_random_next(&random) >> 8;
            size_t at = r & 1 ? (r >> 1) % size : (r >> 1) % (size < 200 ? size : 200);
            damaged[at] = (uint8_t)(test_random_next(&random) >> 33);
        }
        if (i % 4 != 0 && damaged[0] == 0x89) png_mend(damaged, size);
        Error err = {""};
        Image image;
        if (image_decode(&image, damaged, size, name, &options, &err) != 0) {
            check_message(&err, name, (const char *[]){name, NULL});
            assert_null(image.pixels);
        } else {
            assert_true((int64_t)image.width * image.height <= options.max_pixels);
            (void)image_crc(&image); /* all pixels can be read */
        }
        image_free(&image);
    }
    free(damaged);
    free(bytes);
}

static void test_damaged_png(void **state) {
    (void)state;
    check_damage("rgb8_interlaced_37x29.png", 1);
    check_damage("palette4.png", 2);
    check_damage("palette8_alpha.png", 3);
    check_damage("grey2_key.png", 4);
    check_damage("exif_before.png", 5);
    check_damage("rgb16_key.png", 6);
}

static void test_damaged_jpeg(void **state) {
    (void)state;
    check_damage("orientation6.jpg", 11);
    check_damage("grey_progressive.jpg", 12);
    check_damage("cmyk_progressive.jpg", 13);
    check_damage("ycck_420.jpg", 14);
    check_damage("ycc440.jpg", 15);
    check_damage("one.jpg", 16);
}

static void test_too_many_pixels(void **state) {
    (void)state;
    Error err;
    Image image;
    size_t size;
    uint8_t *bytes = golden_bytes("rgb8_1x1.png", &size);
    memcpy(bytes + 16, "\0\0\xea\x60\0\0\xea\x60", 8);
    png_mend(bytes, size);
    assert_refused(image_decode(&image, bytes, size, "bomb.png", NULL, &err), &err, "bomb.png",
                   "60000x60000", "89478485");
    free(bytes);

    bytes = golden_bytes("one.jpg", &size);
    for (size_t i = 0; i + 9 < size; i++)
        if (bytes[i] == 0xff && bytes[i + 1] == 0xc0) memcpy(bytes + i + 5, "\xea\x60\xea\x60", 4);
    assert_refused(image_decode(&image, bytes, size, "bomb.jpg", NULL, &err), &err, "bomb.jpg",
                   "60000x60000", "89478485");
    free(bytes);

    /* A JPEG above the limit is decoded at half its size, up to four times the limit. */
    bytes = golden_bytes("orientation6.jpg", &size);
    ImageOptions options = {.max_pixels = 45 * 26};
    assert_ok(image_decode(&image, bytes, size, "a", &options, &err), &err);
    assert_int_equal(image.width, 26);
    image_free(&image);
    options.max_pixels--;
    assert_ok(image_decode(&image, bytes, size, "a", &options, &err), &err);
    assert_int_equal(image.width, 13);
    assert_int_equal(image.height, 23);
    image_free(&image);
    options.max_pixels = 45 * 26 / 4 + 1;
    assert_ok(image_decode(&image, bytes, size, "a", &options, &err), &err);
    image_free(&image);
    options.max_pixels = 45 * 26 / 4 - 1;
    assert_refused(image_decode(&image, bytes, size, "a", &options, &err), &err, "45x26", "1170",
                   "four times", "291");
    free(bytes);

    bytes = golden_bytes("exif_before.png", &size);
    options.max_pixels = 21 * 13 - 1;
    assert_refused(image_decode(&image, bytes, size, "a", &options, &err), &err, "21x13", "273",
                   "272");
    free(bytes);
}

/* A small progressive file that repeats its first scan forever is refused. */
static void test_too_many_scans(void **state) {
    (void)state;
    size_t size, scan = 0;
    uint8_t *bytes = golden_bytes("grey_progressive.jpg", &size);
    for (size_t i = 0; i + 1 < size; i++)
        if (bytes[i] == 0xff && bytes[i + 1] == 0xda && !scan) scan = i;
    assert_true(scan > 0);
    size_t length = 1, total = scan;
    while (bytes[scan + length] != 0xff || bytes[scan + length + 1] != 0xc4) length++;
    uint8_t *many = malloc(scan + 101 * length + 2);
    memcpy(many, bytes, scan);
    for (int i = 0; i < 101; i++, total += length) memcpy(many + total, bytes + scan, length);
    memcpy(many + total, "\xff\xd9", 2);
    Error err;
    Image image;
    assert_refused(image_decode(&image, many, total + 2, "a.jpg", NULL, &err), &err, "a.jpg",
                   "100 scans");
    free(many);
    free(bytes);
}

static void test_two_components(void **state) {
    (void)state;
    static const char header[] = "\xff\xd8\xff\xc0\0\x0e\x08\0\x08\0\x08\x02\x01\x11\0\x02\x11\0"
                                 "\xff\xda\0\x0a\x02\x01\0\x02\0\0\x3f\0";
    Error err;
    Image image;
    assert_refused(image_decode(&image, header, sizeof header - 1, "a.jpg", NULL, &err), &err,
                   "a.jpg", "2 components");
}

/* --- resize --- */

/* A double-precision bicubic of one direction, straight from the definition: every output sums all
 * inputs, clipped to the range of a sample but not rounded. Samples of a line are `step` apart,
 * lines in_line and out_line. */
static void resize_lines(double *out, const double *in, int size_in, int size_out, int lines,
                         int step, int in_line, int out_line) {
    double scale = (double)size_in / size_out, stretch = scale > 1 ? scale : 1;
    for (int o = 0; o < size_out; o++)
        for (int line = 0; line < lines; line++)
            for (int c = 0; c < 3; c++) {
                double sum = 0, norm = 0;
                for (int i = 0; i < size_in; i++) {
                    double t = fabs((i + 0.5 - (o + 0.5) * scale) / stretch), w = 0;
                    if (t <= 1)
                        w = 1.5 * t * t * t - 2.5 * t * t + 1;
                    else if (t < 2)
                        w = -0.5 * t * t * t + 2.5 * t * t - 4 * t + 2;
                    sum += w * in[line * in_line + i * step + c];
                    norm += w;
                }
                double v = sum / norm;
                out[line * out_line + o * step + c] = v < 0 ? 0 : v > 255 ? 255 : v;
            }
}

static void check_resize(int w, int h, int width, int height) {
    Error err;
    Image in = image_noise(w, h, (uint64_t)(w * 1000 + h)), out;
    assert_ok(image_resize_bicubic(&out, &in, width, height, 0, 0, width, height, &err), &err);
    double *exact = malloc((size_t)(w * h) * 3 * sizeof *exact);
    double *middle = malloc((size_t)(width * h) * 3 * sizeof *middle);
    double *result = malloc((size_t)(width * height) * 3 * sizeof *result);
    for (int i = 0; i < w * h * 3; i++) exact[i] = in.pixels[i];
    resize_lines(middle, exact, w, width, h, 3, w * 3, width * 3);
    resize_lines(result, middle, h, height, width, width * 3, 3, 3);
    /* Half a level by the rounding at the end, and half a level times the sum of the weights'
     * magnitudes (at most 1.3) by that between the passes. */
    for (int i = 0; i < width * height * 3; i++)
        if (!(fabs(out.pixels[i] - result[i]) <= 0.5 + 0.65 + 1e-3))
            fail_msg("%dx%d to %dx%d, sample %d: %d, expected %g", w, h, width, height, i,
                     out.pixels[i], result[i]);
    free(exact);
    free(middle);
    free(result);
    image_free(&in);
    image_free(&out);
}

static void test_resize_is_bicubic(void **state) {
    (void)state;
    check_resize(37, 23, 16, 10);
    check_resize(23, 37, 61, 80);
    check_resize(64, 48, 64, 48);
    check_resize(1, 1, 9, 5);
    check_resize(2, 3, 3, 2);
    check_resize(5, 90, 41, 3);
    check_resize(131, 7, 1, 29);
    check_resize(100, 3, 99, 4);
}

static void test_same_size_changes_nothing(void **state) {
    (void)state;
    Error err;
    Image in = image_noise(33, 21, 5), out;
    assert_ok(image_resize_bicubic(&out, &in, 33, 21, 0, 0, 33, 21, &err), &err);
    assert_memory_equal(in.pixels, out.pixels, 33 * 21 * 3);
    image_free(&in);
    image_free(&out);
}

/* Cropping while resizing, and resizing a canvas that is not built, equal the separate steps, at
 * random sizes and positions. */
static void test_cut_and_canvas_are_exact(void **state) {
    (void)state;
    TestRandom random = {99};
#define DRAW(n) ((int)(test_random_next(&random) >> 33) % (n))
    for (int round = 0; round < 150; round++) {
        Error err;
        Image in = image_noise(1 + DRAW(round % 3 ? 60 : 8), 1 + DRAW(60), (uint64_t)round + 1);
        Canvas canvas = {.left = DRAW(40), .top = DRAW(40), .colour = {122, 116, 104}};
        if (round % 4 == 0) canvas.left = 0;
        if (round % 5 == 0) canvas.top = 0;
        canvas.width = canvas.left + in.width + (round % 3 ? DRAW(40) : 0);
        canvas.height = canvas.top + in.height + (round % 7 ? DRAW(40) : 0);
        Image sheet = {canvas.width, canvas.height, NULL}, whole, cut;
        sheet.pixels = malloc((size_t)(sheet.width * sheet.height) * 3);
        for (int i = 0; i < sheet.width * sheet.height; i++)
            memcpy(sheet.pixels + i * 3, canvas.colour, 3);
        for (int y = 0; y < in.height; y++)
            memcpy(sheet.pixels + ((canvas.top + y) * sheet.width + canvas.left) * 3,
                   in.pixels + y * in.width * 3, (size_t)in.width * 3);
        int w = 1 + DRAW(90), h = 1 + DRAW(90), cw = 1 + DRAW(w), ch = 1 + DRAW(h);
        int left = DRAW(w - cw + 1), top = DRAW(h - ch + 1);
        assert_ok(image_resize_bicubic(&whole, &sheet, w, h, 0, 0, w, h, &err), &err);
        assert_ok(image_resize_on_canvas(&cut, &in, &canvas, w, h, left, top, cw, ch, &err), &err);
        for (int y = 0; y < ch; y++)
            assert_memory_equal(cut.pixels + y * cw * 3, whole.pixels + ((top + y) * w + left) * 3,
                                (size_t)cw * 3);
        image_free(&cut);
        assert_ok(image_resize_bicubic(&cut, &sheet, w, h, left, top, cw, ch, &err), &err);
        for (int y = 0; y < ch; y++)
            assert_memory_equal(cut.pixels + y * cw * 3, whole.pixels + ((top + y) * w + left) * 3,
                                (size_t)cw * 3);
        image_free(&cut);
        image_free(&whole);
        image_free(&sheet);
        image_free(&in);
    }
#undef DRAW
}

static void test_resize_refuses(void **state) {
    (void)state;
    Error err;
    Image in = image_noise(4, 3, 1), out, none = {0};
    assert_refused(image_resize_bicubic(&out, &none, 2, 2, 0, 0, 2, 2, &err), &err, "empty");
    assert_refused(image_resize_bicubic(&out, &in, 0, 2, 0, 0, 1, 1, &err), &err, "0x2");
    assert_refused(image_resize_bicubic(&out, &in, 8, 8, 5, 0, 4, 8, &err), &err, "4x8", "(5, 0)");
    assert_refused(image_resize_bicubic(&out, &in, 8, 8, 0, INT32_MAX, 1, 1, &err), &err, "8x8");
    assert_refused(image_resize_bicubic(&out, &in, 8, 8, -1, 0, 4, 8, &err), &err, "(-1, 0)");
    Canvas small = {.width = 5, .height = 4, .left = 2};
    assert_refused(image_resize_on_canvas(&out, &in, &small, 8, 8, 0, 0, 8, 8, &err), &err, "4x3",
                   "5x4");
    assert_null(out.pixels);
    image_free(&in);
}

static void test_preprocess_refuses(void **state) {
    (void)state;
    Error err;
    uint8_t sample[3] = {0};
    Image out, none = {0}, narrow = {1, INT32_MAX, sample}, one = {1, 1, sample};
    PreprocessConfig config = preprocess_clip_default();
    assert_refused(preprocess_crop(&out, &none, &config, &err), &err, "empty");
    assert_refused(preprocess_crop(&out, &narrow, &config, &err), &err, "1x2147483647", "narrow");
    config.size = 0;
    assert_refused(preprocess_crop(&out, &one, &config, &err), &err, "size 0");
    config = preprocess_clip_default();
    config.std[1] = 0;
    assert_refused(preprocess_image(NULL, &one, &config, &err), &err, "std 0", "channel 1");
    config.std[1] = NAN;
    assert_refused(preprocess_image(NULL, &one, &config, &err), &err, "channel 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images_equal_pillow),
        cmocka_unit_test(test_real_images_equal_pillow),
        cmocka_unit_test(test_values_equal_reference),
        cmocka_unit_test(test_orientation_1),
        cmocka_unit_test(test_orientation_2),
        cmocka_unit_test(test_orientation_3),
        cmocka_unit_test(test_orientation_4),
        cmocka_unit_test(test_orientation_5),
        cmocka_unit_test(test_orientation_6),
        cmocka_unit_test(test_orientation_7),
        cmocka_unit_test(test_orientation_8),
        cmocka_unit_test(test_exif_blocks),
        cmocka_unit_test(test_kinds_are_named),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_truncated_png),
        cmocka_unit_test(test_truncated_jpeg),
        cmocka_unit_test(test_damaged_png),
        cmocka_unit_test(test_damaged_jpeg),
        cmocka_unit_test(test_too_many_pixels),
        cmocka_unit_test(test_too_many_scans),
        cmocka_unit_test(test_two_components),
        cmocka_unit_test(test_resize_is_bicubic),
        cmocka_unit_test(test_same_size_changes_nothing),
        cmocka_unit_test(test_cut_and_canvas_are_exact),
        cmocka_unit_test(test_resize_refuses),
        cmocka_unit_test(test_preprocess_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
