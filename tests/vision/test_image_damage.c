/* Incomplete images, or with wrong headers: none is padded with gray, nothing harmless is refused,
 * and each message says what to do. And where an orientation may be stored. */
#include <sys/stat.h>
#include <time.h>

#include <zlib.h>

#include "data/sets/image_file.h"
#include "tests/images.h"
#include "vision/formats.h"
#include "vision/preprocess.h"

#define GOLDEN "tests/golden/images/"

/* With `count` bytes at `at` replaced by others. */
static Bytes spliced(Bytes b, size_t at, size_t count, const void *with, size_t size) {
    Bytes out = {malloc(b.size - count + size + 1), b.size - count + size};
    memcpy(out.at, b.at, at);
    memcpy(out.at + at, with, size);
    memcpy(out.at + at + size, b.at + at + count, b.size - at - count);
    return out;
}

/* CRC-32 of the pixels; 0 if the image is refused, with the message in err. */
static uint32_t decoded(Bytes b, Error *err) {
    Image image;
    *err = (Error){""};
    if (image_decode(&image, b.at, b.size, "a.img", NULL, err) != 0) {
        assert_null(image.pixels);
        check_message(err, "image_decode", (const char *[]){"a.img", NULL});
        return 0;
    }
    size_t size = (size_t)image.width * (size_t)image.height * 3;
    uint32_t crc = (uint32_t)crc32(0, image.pixels, (uInt)size);
    image_free(&image);
    return crc;
}

static void expect_refusal(Bytes b, const char *what, const char *word) {
    Error err;
    if (decoded(b, &err) != 0) fail_msg("%s: accepted", what);
    check_message(&err, what, (const char *[]){word, NULL});
}

static void expect_same(Bytes b, Bytes whole, const char *what) {
    Error err, none;
    uint32_t crc = decoded(b, &err);
    if (crc != decoded(whole, &none)) fail_msg("%s: %s", what, crc ? "changed" : err.text);
}

/* The position of the n-th marker (from 0) of this kind after `from`. */
static size_t marker_at(Bytes b, size_t from, uint8_t low, uint8_t high, int n) {
    for (size_t i = from; i + 1 < b.size; i++)
        if (b.at[i] == 0xff && b.at[i + 1] >= low && b.at[i + 1] <= high && n-- == 0) return i;
    fail_msg("no marker %02x..%02x", low, high);
    return 0;
}

enum { SOS = 0xda, EOI = 0xd9, DHT = 0xc4, RST0 = 0xd0, RST7 = 0xd7, DQT = 0xdb };

/* --- JPEG --- */

/* A real file: the upper half of an image, closed by an end marker. */
static void test_early_end_of_a_file(void **state) {
    (void)state;
    size_t size;
    char *bytes = file_bytes("tests/golden/cases/early_eoi.jpg", &size);
    assert_non_null(bytes);
    Bytes b = bytes_of(bytes, size);
    expect_refusal(b, "early_eoi.jpg", "pixels are missing");
    free(b.at), free(bytes);
}

/* An end marker anywhere in the data, except within its last bytes, which are padding. */
static void check_early_end(const char *name) {
    Bytes b = bytes_golden(GOLDEN, name);
    Error err;
    size_t first = marker_at(b, 0, SOS, SOS, 0) + 2;
    for (size_t cut = first; cut + 2 < b.size;
         cut += b.size - cut < 60 || cut - first < 60 ? 1 : 7) {
        Bytes part = spliced(b, cut, b.size - cut, "\xff\xd9", 2);
        if (decoded(part, &err) != 0 && b.size - cut > 6)
            fail_msg("%s: accepted with %zu of %zu bytes and an end", name, cut, b.size);
        free(part.at);
    }
    free(b.at);
}

static void test_early_end_anywhere(void **state) {
    (void)state;
    check_early_end("orientation6.jpg");
    check_early_end("cmyk.jpg");
    check_early_end("ycc420_high.jpg");
    check_early_end("ycc420_restart.jpg");
}

/* Progressive files truncated between two scans have valid but incomplete data. */
static void test_missing_scans(void **state) {
    (void)state;
    static const char *const names[] = {"grey_progressive.jpg", "cmyk_progressive.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Bytes b = bytes_golden(GOLDEN, names[i]);
        int scans = 0;
        for (size_t at = 0; at + 1 < b.size; at++) scans += b.at[at] == 0xff && b.at[at + 1] == SOS;
        assert_true(scans > 4);
        for (int n = 1; n < scans; n++) {
            size_t scan = marker_at(b, 0, SOS, SOS, n), at = scan;
            while (b.at[at - 1] == 0xff || b.at[at] != 0xff || b.at[at + 1] != DHT) at--;
            if (at < marker_at(b, 0, SOS, SOS, n - 1)) at = scan;
            Bytes part = spliced(b, at, b.size - at, "\xff\xd9", 2);
            expect_refusal(part, names[i], "scans");
            free(part.at);
        }
        free(b.at);
    }
}

/* A scan for each component, made from the single scan of a file whose components are equal:
 * without the last scan a color would be missing. */
static void test_missing_component(void **state) {
    (void)state;
    static const uint8_t head[] = {
        0xff, 0xd8, 0xff, 0xdb, 0, 67, 0, /* quantization: all 1 */
    };
    static const uint8_t frame[] = {
        0xff, 0xc0, 0, 17, 8, 0, 8, 0, 8, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
        /* Huffman tables of one code, "0", for 0 (DC) and the end of the block (AC) */
        0xff, 0xc4, 0, 20, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xc4, 0,
        20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    uint8_t file[300];
    size_t size = 0;
    memcpy(file, head, sizeof head), size += sizeof head;
    memset(file + size, 1, 64), size += 64;
    memcpy(file + size, frame, sizeof frame), size += sizeof frame;
    size_t before[4];
    for (uint8_t c = 0; c < 3; c++) {
        const uint8_t scan[] = {0xff, 0xda, 0, 8, 1, (uint8_t)(c + 1), 0, 0, 63, 0, 0x3f};
        before[c] = size;
        memcpy(file + size, scan, sizeof scan), size += sizeof scan;
    }
    before[3] = size;
    for (int c = 1; c <= 3; c++) {
        memcpy(file + before[c], "\xff\xd9", 2);
        Bytes b = bytes_of(file, before[c] + 2);
        Error err;
        if (c < 3)
            expect_refusal(b, "scans of components", "scans");
        else if (decoded(b, &err) == 0)
            fail_msg("%s", err.text);
        free(b.at);
        if (c < 3) memcpy(file + before[c], "\xff\xda", 2);
    }
}

static void test_missing_restart_interval(void **state) {
    (void)state;
    Bytes b = bytes_golden(GOLDEN, "ycc420_restart.jpg");
    size_t first = marker_at(b, 0, RST0, RST7, 0), second = marker_at(b, 0, RST0, RST7, 1);
    Bytes part = spliced(b, first, second - first, "", 0);
    expect_refusal(part, "an interval left out", "pixels are missing");
    free(part.at);
    free(b.at);
}

/* Extra bytes that other programs leave in files are harmless. */
static void test_harmless_jpeg(void **state) {
    (void)state;
    Bytes b = bytes_golden(GOLDEN, "ycc422.jpg");
    size_t end = marker_at(b, 0, EOI, EOI, 0), tables = marker_at(b, 0, DQT, DQT, 0);
    const struct {
        const char *what;
        size_t at;
        const char *bytes;
        size_t size;
    } cases[] = {
        {"bytes after the end", b.size, "PK\3\4 and more", 12},
        {"bytes before the end", end, "\x12\x34\x56", 3},
        {"fill bytes before a marker", tables, "\xff\xff\xff", 3},
        {"bytes between segments", tables, "\x01\x02\x03\x04", 4},
        {"an unknown segment", tables, "\xff\xee\0\4??", 6},
        {"a comment", tables, "\xff\xfe\0\5abc", 7},
        {"a damaged EXIF block", tables,
         "\xff\xe1\0\x0c"
         "Exif\0\0II*\xff",
         14},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Bytes changed = spliced(b, cases[i].at, 0, cases[i].bytes, cases[i].size);
        expect_same(changed, b, cases[i].what);
        free(changed.at);
    }
    free(b.at);
}

/* --- PNG --- */

static size_t chunk_at(Bytes b, const char *kind, int n) {
    for (size_t at = 8; at + 12 <= b.size;) {
        size_t length = (size_t)b.at[at] << 24 | (size_t)b.at[at + 1] << 16 |
                        (size_t)b.at[at + 2] << 8 | b.at[at + 3];
        if (memcmp(b.at + at + 4, kind, 4) == 0 && n-- == 0) return at;
        at += length + 12;
    }
    fail_msg("no chunk %s", kind);
    return 0;
}

static size_t chunk_length(Bytes b, size_t at) {
    return (size_t)b.at[at + 2] << 8 | b.at[at + 3];
}

static void chunk_mend(Bytes b, size_t at) {
    size_t length = chunk_length(b, at);
    uLong crc = crc32(0, b.at + at + 4, (uInt)length + 4);
    for (size_t i = 0; i < 4; i++) b.at[at + 8 + length + i] = (uint8_t)(crc >> (24 - 8 * i));
}

static void check_png_checksums(const char *name) {
    Bytes b = bytes_golden(GOLDEN, name);
    for (int n = 0; n < 2; n++) {
        Bytes changed = spliced(b, 0, 0, "", 0);
        size_t at = chunk_at(b, "IDAT", n);
        changed.at[at + 8 + chunk_length(b, at)] ^= 1;
        expect_refusal(changed, "a wrong CRC of IDAT", "CRC");
        free(changed.at);
    }
    /* zlib's own checksum of the pixels: the last four bytes. */
    Bytes changed = spliced(b, 0, 0, "", 0);
    size_t at = chunk_at(b, "IDAT", 1);
    changed.at[at + 8 + chunk_length(b, at) - 2] ^= 0x10;
    chunk_mend(changed, at);
    expect_refusal(changed, "a wrong checksum of the pixels", "check");
    free(changed.at);

    /* Without its last data chunk, and without everything after the data. */
    size_t size = chunk_length(b, at) + 12;
    changed = spliced(b, at, size, "", 0);
    expect_refusal(changed, "no second IDAT", "broken PNG");
    free(changed.at);
    changed = spliced(b, at + size, b.size - at - size, "", 0);
    expect_same(changed, b, "no IEND");
    free(changed.at);
    changed = spliced(b, at + size, 0, "\0\0\0\1tEXtabcde", 13);
    expect_same(changed, b, "a damaged text after the pixels");
    free(changed.at);
    free(b.at);
}

static void test_png_checksums(void **state) {
    (void)state;
    check_png_checksums("rgb8_7x225.png");
    check_png_checksums("rgba8_interlaced.png");
    check_png_checksums("grey1_interlaced.png");
}

static void test_apple_png(void **state) {
    (void)state;
    Bytes b = bytes_golden(GOLDEN, "rgba8.png");
    Bytes changed = spliced(b, 8, 0, "\0\0\0\4CgBI\x50\0\x20\2\x2b\xd5\xb3\x7f", 16);
    expect_refusal(changed, "CgBI", "Apple");
    free(changed.at);
    free(b.at);
}

/* --- images that are not files --- */

static void test_urls(void **state) {
    (void)state;
    Image image;
    Error err;
    assert_refused(image_read(&image, "https://example.org/a.jpg", NULL, &err), &err,
                   "https://example.org/a.jpg: is a URL", "curl");
    assert_refused(image_read(&image, "HTTP://example.org/", NULL, &err), &err, "is a URL");
    assert_refused(image_read(&image, "file:///tmp/none.png", NULL, &err), &err, "the path alone");
    char data[5000] = "data:image/png;base64,";
    memset(data + strlen(data), 'A', sizeof data - strlen(data) - 1);
    assert_refused(image_read(&image, data, NULL, &err), &err, "data: URL", "base64 -d");
    assert_refused(image_read(&image, "a:b.png", NULL, &err), &err, "no such file");
    memset(data, 'A', 20);
    assert_refused(image_read(&image, data, NULL, &err), &err, "too long");
}

/* Names in data, and what they refer to. */
static void test_names_in_data(void **state) {
    (void)state;
    char folder[256], path[600], text[300], name[1200];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/empty.png", folder);
    fclose(fopen(path, "wb"));
    snprintf(path, sizeof path, "%s/one.png", folder);
    FILE *f = fopen(path, "wb");
    fputc('x', f), fclose(f);
    memset(name, 'n', sizeof name);
    for (size_t i = 0; i < sizeof name; i += 200) name[i] = '/';
    memcpy(name, "head", 4), strcpy(name + sizeof name - 10, "/tail.png");
    const struct {
        const char *image, *words[3];
    } cases[] = {
        {"none.png", {"none.png", "no such file"}},
        {"one.png/x", {"one.png/x", "no such file"}},
        {"https://example.org/a.png", {"a.png", "URL", "download"}},
        {".", {"folder"}},
        {"pipe", {"pipe"}},
        {"empty.png", {"no bytes"}},
        {name, {"head", "/tail.png", "no such file"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *kind = image_file_check(text, sizeof text, folder, cases[i].image);
        assert_non_null(kind);
        for (int w = 0; w < 3 && cases[i].words[w]; w++)
            if (!strstr(text, cases[i].words[w])) fail_msg("%s lacks %s", text, cases[i].words[w]);
    }
    assert_null(image_file_check(text, sizeof text, folder, "one.png"));
    temporary_remove(folder);
}

/* --- XMP --- */

static void test_xmp(void **state) {
    (void)state;
#define TIFF "http://ns.adobe.com/tiff/1.0/"
    static const struct {
        const char *text;
        int orientation;
    } packets[] = {
        {"<a tiff:Orientation=\"6\"/>", 6},
        {"<a tiff:Orientation = '3' />", 3},
        {"<tiff:Orientation>8</tiff:Orientation>", 8},
        {"<tiff:Orientation >\n 2 </tiff:Orientation>", 2},
        {"<a xmlns:q='" TIFF "' q:Orientation='5'/>", 5},
        {"<a xmlns:q = \"" TIFF "\"><q:Orientation>7</q:Orientation>", 7},
        {"<a q:Orientation='5'/>", 0},
        {"<a xmlns:q='http://ns.adobe.com/exif/1.0/' q:Orientation='5'/>", 0},
        {"<a xmlns:qq='" TIFF "' q:Orientation='5'/>", 0},
        {"<a q:Orientation='5' tiff:Orientation='6'/>", 6},
        {"<a tiff:OrientationX='5' tiff:Orientation='4'/>", 4},
        {"<!-- <a tiff:Orientation='5'/> --><a tiff:Orientation='4'/>", 4},
        {"<!-- <a tiff:Orientation='5'/>", 0},
        {"<a tiff:Orientation='66'/>", 1},
        {"<a tiff:Orientation='0'/>", 1},
        {"<a tiff:Orientation='9'/>", 1},
        {"<a tiff:Orientation=''/>", 1},
        {"<a tiff:Orientation='6", 1},
        {"<a tiff:Orientation=6/>", 0},
        {"<a tiff:Orientation", 0},
        {"<tiff:Orientation>", 1},
        {":Orientation='6'", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof packets / sizeof *packets; i++) {
        Bytes b = bytes_of(packets[i].text, strlen(packets[i].text));
        int found = xmp_orientation(b.at, b.size);
        if (found != packets[i].orientation) fail_msg("%s: %d", packets[i].text, found);
        free(b.at);
    }
}

/* Packets that cause repeated searches. */
static void test_slow_xmp(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    enum { SIZE = 1 << 15 }; /* its memmem scans the whole rest, even for a near match */
#else
    enum { SIZE = 1 << 20 };
#endif
    static const char *const parts[] = {" q:Orientation='6'",
                                        "<!-- -->q:Orientation",
                                        "xmlns:q = ",
                                        "<!-- -->",
                                        "q",
                                        "xmlns:q='http://ns.adobe.com/tiff/1.0'"};
    clock_t begin = clock();
    for (int pair = 0; pair < 36; pair++) {
        const char *first = parts[pair / 6], *second = parts[pair % 6];
        Bytes b = {malloc(SIZE), SIZE};
        for (size_t i = 0; i < SIZE; i++)
            b.at[i] =
                (uint8_t)(i < SIZE / 2 ? first[i % strlen(first)] : second[i % strlen(second)]);
        memcpy(b.at + SIZE - 24, "tiff:Orientation=\"6\"   ", 24); /* far away */
        (void)xmp_orientation(b.at, b.size);
        free(b.at);
    }
    /* At most 0.15 s each, most of them far less. */
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 5);
}

/* --- damage everywhere --- */

/* Damaged bytes give an image or a message, the same with both ways of reading. */
static void check_damage(const char *name, uint64_t seed) {
    Bytes b = bytes_golden(GOLDEN, name);
    TestRandom random = {seed};
    for (int i = 0; i < 150; i++) {
        Bytes changed = spliced(b, 0, 0, "", 0);
        for (uint64_t k = test_random_next(&random) >> 61; k < 8; k += 3) {
            size_t at = (test_random_next(&random) >> 20) % b.size;
            changed.at[at] = (uint8_t)(test_random_next(&random) >> 40);
        }
        for (size_t at = 8; i % 4 && changed.at[0] == 0x89 && at + 12 <= b.size;) {
            size_t length = chunk_length(changed, at);
            if (changed.at[at] || changed.at[at + 1] || length > b.size - at - 12) break;
            chunk_mend(changed, at);
            at += length + 12;
        }
        Error err = {""};
        Image image;
        const ImageOptions options = {.max_pixels = 100000};
        if (image_decode(&image, changed.at, changed.size, name, &options, &err) != 0)
            check_message(&err, name, (const char *[]){name, NULL});
        image_free(&image);
        free(changed.at);
    }
    free(b.at);
}

static void test_damage(void **state) {
    (void)state;
    static const char *const names[] = {
        "turned_prefix.png",     "turned_raw.png",    "turned_raw_packed_after.png",
        "turned_raw_xmp.png",    "turned_xmp.png",    "turned_xmp_element_after.png",
        "turned_xmp_packed.png", "turned_large4.png", "turned_large5.png",
        "turned_large7.png",     "turned_xmp.jpg",    "turned_xmp_element.jpg",
        "turned_exif_no_tag.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_damage(names[i], 50 + i);
}

/* A real file: 128x96 stored, shown upright. */
static void test_raw_profile_of_a_file(void **state) {
    (void)state;
    Image image;
    Error err;
    assert_ok(image_read(&image, "tests/golden/cases/exif6_rawprofile.png", NULL, &err), &err);
    assert_int_equal(image.width, 128);
    assert_int_equal(image.height, 96);
    image_free(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_early_end_of_a_file),
        cmocka_unit_test(test_early_end_anywhere),
        cmocka_unit_test(test_missing_scans),
        cmocka_unit_test(test_missing_component),
        cmocka_unit_test(test_missing_restart_interval),
        cmocka_unit_test(test_harmless_jpeg),
        cmocka_unit_test(test_png_checksums),
        cmocka_unit_test(test_apple_png),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_names_in_data),
        cmocka_unit_test(test_xmp),
        cmocka_unit_test(test_slow_xmp),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_raw_profile_of_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
