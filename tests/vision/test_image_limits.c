/* Images that are large, or small files that claim to be: time and memory stay within what
 * vision/image.h states. Every check of memory runs in a separate process. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jpeglib.h>
#include <zlib.h>

#include "tests/test.h"
#include "vision/preprocess.h"

/* A sanitizer's own memory would distort the measurement. */
#ifdef __SANITIZE_ADDRESS__
enum { MEMORY_IS_MEASURED = 0 };
#else
enum { MEMORY_IS_MEASURED = 1 };
#endif

static char folder[256];

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* --- a PNG of one color --- */

static void put_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void put_chunk(FILE *f, const char *kind, const void *data, size_t size) {
    uint8_t word[4];
    put_u32(word, (uint32_t)size);
    fwrite(word, 1, 4, f);
    fwrite(kind, 1, 4, f);
    fwrite(data, 1, size, f);
    uLong crc = crc32(crc32(0, (const Bytef *)kind, 4), data, (uInt)size);
    put_u32(word, (uint32_t)(size ? crc : crc32(0, (const Bytef *)kind, 4)));
    fwrite(word, 1, 4, f);
}

/* `count` zero bytes, deflated; the caller frees them. */
static uint8_t *packed_zeros(uint64_t count, size_t *size) {
    static const uint8_t zeros[1 << 16];
    size_t capacity = (size_t)(count / 500) + 1000;
    uint8_t *bytes = malloc(capacity);
    z_stream z = {.next_out = bytes, .avail_out = (uInt)capacity};
    assert_int_equal(deflateInit(&z, 6), Z_OK);
    for (uint64_t done = 0; done < count;) {
        uint64_t now = count - done < sizeof zeros ? count - done : sizeof zeros;
        z.next_in = (Bytef *)zeros, z.avail_in = (uInt)now;
        done += now;
        assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
    }
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *size = capacity - z.avail_out;
    deflateEnd(&z);
    return bytes;
}

typedef struct Png {
    uint32_t width, height;
    int depth, colour, channels;
    bool interlaced;
    int orientation;
} Png;

static uint64_t pass_bytes(const Png *p, uint32_t width, uint32_t height) {
    if (!width || !height) return 0;
    return (((uint64_t)width * (uint64_t)(p->channels * p->depth) + 7) / 8 + 1) * height;
}

static uint64_t png_bytes(const Png *p) {
    static const uint8_t adam7[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                        {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    uint64_t sum = 0;
    if (!p->interlaced) return pass_bytes(p, p->width, p->height);
    for (int i = 0; i < 7; i++)
        sum += pass_bytes(p, (p->width + adam7[i][2] - 1 - adam7[i][0]) / adam7[i][2],
                          (p->height + adam7[i][3] - 1 - adam7[i][1]) / adam7[i][3]);
    return sum;
}

/* Black, or fully transparent; `more` (may be NULL) writes chunks before the pixels. */
static const char *png_write(const char *name, const Png *p, void (*more)(FILE *)) {
    const char *path = in_folder(name);
    FILE *f = fopen(path, "wb");
    uint8_t header[13];
    uint8_t exif[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0";
    assert_non_null(f);
    fwrite("\x89PNG\r\n\x1a\n", 1, 8, f);
    put_u32(header, p->width), put_u32(header + 4, p->height);
    header[8] = (uint8_t)p->depth, header[9] = (uint8_t)p->colour;
    header[10] = header[11] = 0, header[12] = p->interlaced;
    put_chunk(f, "IHDR", header, sizeof header);
    if (p->orientation) exif[19] = (uint8_t)p->orientation, put_chunk(f, "eXIf", exif, 22);
    if (more) more(f);
    size_t size;
    uint8_t *data = packed_zeros(png_bytes(p), &size);
    put_chunk(f, "IDAT", data, size);
    put_chunk(f, "IEND", "", 0);
    fclose(f);
    free(data);
    return path;
}

/* --- a JPEG written row by row --- */

typedef struct Jpeg {
    int width, height;
    bool progressive;
    void (*row)(uint8_t *grey, int width, int y);
} Jpeg;

static const char *jpeg_write(const char *name, const Jpeg *j) {
    const char *path = in_folder(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    struct jpeg_compress_struct jpeg = {0};
    struct jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, f);
    jpeg.image_width = (JDIMENSION)j->width, jpeg.image_height = (JDIMENSION)j->height;
    jpeg.input_components = 1, jpeg.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&jpeg);
    if (j->progressive) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    uint8_t *row = calloc(1, (size_t)j->width);
    for (int y = 0; y < j->height; y++) {
        if (j->row) j->row(row, j->width, y);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    fclose(f);
    free(row);
    return path;
}

/* --- reading in a separate process --- */

typedef struct Reading {
    bool pad, whole;      /* whole: by image_read */
    int max_mib, max_s;   /* more than a process that reads one pixel; CPU seconds */
    const char *words[3]; /* of the message, if it is to be refused */
} Reading;

static void read_in_child(const char *path, const Reading *r) {
    PreprocessConfig config = preprocess_clip_default();
    config.pad = r->pad;
    Image image;
    Error err = {""};
    int status = r->whole ? image_read(&image, path, NULL, &err)
                          : preprocess_read(&image, NULL, NULL, path, &config, NULL, &err);
    int wrong = (status != 0) != (r->words[0] != NULL);
    for (int i = 0; i < 3 && r->words[i]; i++) wrong |= !strstr(err.text, r->words[i]);
    if (wrong) fprintf(stderr, "%s: %s\n", path, status ? err.text : "was read");
    _exit(wrong);
}

/* Peak memory in kilobytes. */
static long read_measured(const char *path, const Reading *r, double *seconds) {
    struct rusage usage;
    int status;
    pid_t child = fork();
    if (child == 0) read_in_child(path, r);
    assert_int_equal(wait4(child, &status, 0, &usage), child);
    if (status != 0) fail_msg("%s: status %x", path, status);
    *seconds = (double)usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6 +
               (double)usage.ru_stime.tv_sec + usage.ru_stime.tv_usec * 1e-6;
    return usage.ru_maxrss;
}

static void check_reading(const char *path, const Reading *r) {
    double seconds, ignored;
    long base = read_measured("tests/golden/images/rgb8_1x1.png", &(Reading){0}, &ignored);
    long kib = read_measured(path, r, &seconds) - base;
    if (MEMORY_IS_MEASURED && kib > (long)r->max_mib * 1024)
        fail_msg("%s: %ld KiB more, at most %d MiB expected", path, kib, r->max_mib);
    if (MEMORY_IS_MEASURED && seconds > r->max_s)
        fail_msg("%s: %.1f s, at most %d expected", path, seconds, r->max_s);
    if (strncmp(path, folder, strlen(folder)) == 0) unlink(path);
}

static void test_extreme_sides(void **state) {
    (void)state;
    const char *path = png_write("wide.png", &(Png){80000000, 1, 8, 0, 1}, NULL);
    check_reading(path,
                  &(Reading){.max_mib = 8, .max_s = 2, .words = {path, "80000000x1", "1000000"}});
    path = png_write("tall.png", &(Png){1, 1000001, 1, 0, 1}, NULL);
    check_reading(path, &(Reading){.max_mib = 8, .max_s = 2, .words = {path, "1x1000001"}});
    path = png_write("wide.png", &(Png){1000000, 2, 1, 0, 1}, NULL);
    check_reading(path, &(Reading){.max_mib = 100, .max_s = 4});
    path = png_write("wide.png", &(Png){1000000, 2, 1, 0, 1}, NULL);
    check_reading(path, &(Reading){.pad = true, .max_mib = 100, .max_s = 4});
    path = png_write("wide.png", &(Png){1000000, 1, 1, 0, 1, false, 6}, NULL);
    check_reading(path, &(Reading){.pad = true, .max_mib = 120, .max_s = 4});
    path = png_write("wide.png", &(Png){3, 1000000, 1, 0, 1, true, 8}, NULL);
    check_reading(path, &(Reading){.pad = true, .max_mib = 120, .max_s = 4});
}

static void test_memory_of_large_png(void **state) {
    (void)state;
    /* All pixels would be 46 MiB. */
    for (int orientation = 1; orientation <= 6; orientation += 5) {
        Png p = {4003, 4001, 8, 6, 4, false, orientation};
        check_reading(png_write("large.png", &p, NULL), &(Reading){.max_mib = 12, .max_s = 4});
        p.interlaced = true;
        check_reading(png_write("large.png", &p, NULL), &(Reading){.max_mib = 26, .max_s = 4});
    }
    Png p = {4003, 4001, 16, 6, 4};
    check_reading(png_write("large.png", &p, NULL), &(Reading){.max_mib = 12, .max_s = 4});
    check_reading(png_write("large.png", &p, NULL),
                  &(Reading){.whole = true, .max_mib = 56, .max_s = 4});
}

static void hostile_chunks(FILE *f) {
    size_t size;
    uint8_t *zeros = packed_zeros(100000000, &size), *chunk = malloc(size + 64);
    static const char *const heads[] = {"Raw profile type exif\0\0", "Raw profile type APP1\0\0",
                                        "Raw profile type xmp\0\0"};
    for (int i = 0; i < 30; i++) {
        size_t head = strlen(heads[i % 3]) + 2;
        memcpy(chunk, heads[i % 3], head);
        memcpy(chunk + head, zeros, size);
        put_chunk(f, "zTXt", chunk, head + size);
        memcpy(chunk, "XML:com.adobe.xmp\0\1\0\0\0", 22);
        memcpy(chunk + 22, zeros, size);
        put_chunk(f, "iTXt", chunk, 22 + size);
        put_chunk(f, "iCCP", chunk, size);
    }
    free(chunk);
    free(zeros);
}

static void test_hostile_chunks(void **state) {
    (void)state;
    Png p = {10, 10, 8, 2, 3};
    check_reading(png_write("chunks.png", &p, hostile_chunks),
                  &(Reading){.max_mib = 40, .max_s = 2});
}

static void derivative(uint8_t *grey, int width, int y) {
    for (int x = 0; x < width; x++) grey[x] = (uint8_t)((x + 2 * y) * 255LL / (12001 + 2 * 9001));
}

/* 108 megapixels, as phones produce: read at half the size. */
static void test_phone_jpeg(void **state) {
    (void)state;
    PreprocessConfig config = preprocess_clip_default();
    Image crop;
    Error err;
    int width, height;
    const char *path = jpeg_write("phone.jpg", &(Jpeg){12001, 9001, false, derivative});
    assert_ok(preprocess_read(&crop, &width, &height, path, &config, NULL, &err), &err);
    assert_int_equal(width, 6001);
    assert_int_equal(height, 4501);
    for (int y = 0; y < 224; y += 7)
        for (int x = 0; x < 224; x += 7) {
            double scale = 9001 / 224.0, at = (x + 0.5 + (298 - 224) / 2) * scale;
            double expected = (at + 2 * (y + 0.5) * scale) * 255 / (12001 + 2 * 9001);
            assert_true(abs(crop.pixels[(y * 224 + x) * 3] - (int)(expected + 0.5)) <= 2);
        }
    image_free(&crop);
    check_reading(path, &(Reading){.max_mib = 40, .max_s = 4});
}

static void test_progressive_memory(void **state) {
    (void)state;
    /* Coefficients of 2 bytes for 9000x9000 pixels are 154 MiB: too much for a file of 80 KB. */
    const char *path = jpeg_write("flat.jpg", &(Jpeg){9000, 9000, true, NULL});
    check_reading(path,
                  &(Reading){.max_mib = 16, .max_s = 2, .words = {path, "progressive", "128"}});
    path = jpeg_write("flat.jpg", &(Jpeg){4000, 4000, true, NULL});
    check_reading(path, &(Reading){.max_mib = 60, .max_s = 2});
}

/* An endless file and a huge one are refused quickly. */
static void test_huge_files(void **state) {
    (void)state;
    const char *path = in_folder("huge.jpg");
    FILE *f = fopen(path, "wb");
    fwrite("\xff\xd8\xff\xe0\0\x04\0\0\xff", 1, 9, f);
    assert_int_equal(ftruncate(fileno(f), 10000000000), 0);
    fclose(f);
    check_reading(path,
                  &(Reading){.max_mib = 8, .max_s = 2, .words = {path, "1024 MiB", "too large"}});
    check_reading("/dev/zero",
                  &(Reading){.max_mib = 8, .max_s = 2, .words = {"/dev/zero", "zero bytes"}});
}

/* --- pipes --- */

static pid_t write_later(const char *fifo, const char *from, int open_ms, int write_ms) {
    pid_t child = fork();
    if (child != 0) return child;
    usleep((useconds_t)open_ms * 1000);
    FILE *f = fopen(fifo, "wb");
    usleep((useconds_t)write_ms * 1000);
    size_t size;
    char *bytes = from ? file_bytes(from, &size) : NULL;
    if (bytes) fwrite(bytes, 1, size, f);
    fclose(f);
    _exit(0);
}

static void test_pipes(void **state) {
    (void)state;
    static const char from[] = "tests/golden/images/rgb8_224x224.png";
    char fifo[300];
    snprintf(fifo, sizeof fifo, "%s/pipe", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    Image file, image;
    Error err;
    assert_ok(image_read(&file, from, NULL, &err), &err);
    for (int late = 0; late < 2; late++) {
        pid_t child = write_later(fifo, from, late ? 0 : 150, late ? 150 : 0);
        assert_ok(image_read(&image, fifo, NULL, &err), &err);
        assert_memory_equal(image.pixels, file.pixels, 224 * 224 * 3);
        image_free(&image);
        waitpid(child, NULL, 0);
    }
    image_free(&file);
    pid_t child = write_later(fifo, NULL, 50, 0);
    assert_refused(image_read(&image, fifo, NULL, &err), &err, fifo, "empty");
    waitpid(child, NULL, 0);
    assert_refused(image_read(&image, fifo, NULL, &err), &err, fifo, "nothing writes");
}

static int start(void **state) {
    (void)state;
    temporary_folder(folder, sizeof folder);
    return 0;
}

static int end(void **state) {
    (void)state;
    temporary_remove(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extreme_sides),
        cmocka_unit_test(test_memory_of_large_png),
        cmocka_unit_test(test_hostile_chunks),
        cmocka_unit_test(test_phone_jpeg),
        cmocka_unit_test(test_progressive_memory),
        cmocka_unit_test(test_huge_files),
        cmocka_unit_test(test_pipes),
    };
    return cmocka_run_group_tests(tests, start, end);
}
