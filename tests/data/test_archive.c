/* test_archive.c - images and data inside of zip archives, and hostile archives. */
#include "tests/test.h"

#include <unistd.h>

#include <zip.h>

#include "data/files/archive.h"
#include "data/files/file_open.h"
#include "data/sets/gqa.h"
#include "tests/records_data.h"
#include "vision/image.h"

typedef struct Member {
    const char *name;
    const void *bytes;
    size_t size;
} Member;

/* Writes FOLDER/name; the bytes must outlive the call. */
static void write_zip(Data *d, const char *name, const Member *members, int count, bool store) {
    snprintf(d->file, sizeof d->file, "%s/%s", d->folder, name);
    zip_t *zip = zip_open(d->file, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    assert_non_null(zip);
    for (int i = 0; i < count; i++) {
        zip_source_t *source = zip_source_buffer(zip, members[i].bytes, members[i].size, 0);
        assert_true(source && zip_file_add(zip, members[i].name, source, 0) == i);
        zip_set_file_compression(zip, (zip_uint64_t)i, store ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 9);
    }
    assert_int_equal(zip_close(zip), 0);
}

static const char *inside(const Data *d, const char *member) {
    static char path[800];
    snprintf(path, sizeof path, "%s/%s", d->file, member);
    return path;
}

static void test_images(void **state) {
    (void)state;
    Data d;
    Error err;
    size_t size;
    char *png = file_bytes("tests/golden/models/image0.png", &size);
    assert_non_null(png);
    data_begin(&d);
    for (int store = 0; store < 2; store++) {
        Image plain, packed;
        write_zip(&d, "images.zip",
                  (Member[]){{"images/a.png", png, size}, {"images/empty.png", "", 0}}, 2, store);
        assert_ok(image_read(&plain, "tests/golden/models/image0.png", NULL, &err), &err);
        assert_ok(image_read(&packed, inside(&d, "images/a.png"), NULL, &err), &err);
        assert_int_equal(plain.width, packed.width);
        assert_int_equal(plain.height, packed.height);
        assert_memory_equal(plain.pixels, packed.pixels,
                            (size_t)plain.width * (size_t)plain.height * 3);
        image_free(&plain), image_free(&packed);
        assert_refused(image_read(&packed, inside(&d, "images/b.png"), NULL, &err), &err,
                       "images/b.png", "no such file in the archive");
        assert_refused(image_read(&packed, inside(&d, "../a.png"), NULL, &err), &err,
                       "leaves the archive");
        assert_refused(image_read(&packed, inside(&d, "images/empty.png"), NULL, &err), &err,
                       "empty.png");
    }
    /* As a folder of images. */
    char images[700];
    snprintf(images, sizeof images, "%s", inside(&d, "images"));
    d.options.images = images, d.options.check_images = true;
    accept(&d,
           "[{\"image\": \"a.png\", " TALK "}, {\"image\": \"b.png\", " TALK
           "}, {\"image\": \"empty.png\", " TALK "}, {\"image\": \"../images/a.png\", " TALK "}]",
           1, 4);
    expect_problem(&d, "no such image", 1, "b.png");
    expect_problem(&d, "empty image file", 1, "empty.png");
    expect_problem(&d, "image outside of the folder", 1, "a.png");
    free(png);
    data_end(&d);
}

/* Its files, not its folders. */
static void test_names(void **state) {
    (void)state;
    Data d;
    Error err;
    char **names;
    int count;
    data_begin(&d);
    write_zip(&d, "names.zip", (Member[]){{"z/b.png", "b", 1}, {"z/", "", 0}, {"a.png", "a", 1}}, 3,
              true);
    assert_ok(archive_names(d.file, &names, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], inside(&d, "z/b.png"));
    assert_string_equal(names[1], inside(&d, "a.png"));
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
    assert_refused(archive_names(d.folder, &names, &count, &err), &err, "no zip archive");
    data_end(&d);
}

static void test_data(void **state) {
    (void)state;
    static const char one[] = "question,answer\nq,a\n", two[] = "question,answer\nr,b\n";
    Data d;
    data_begin(&d);
    write_zip(&d, "data.zip", (Member[]){{"train/x.csv", one, sizeof one - 1}}, 1, false);
    char path[700];
    snprintf(path, sizeof path, "%s", inside(&d, "train/x.csv"));
    snprintf(d.file, sizeof d.file, "%s", path);
    assert_ok(scan(&d), &d.err);
    expect_turn(&d, 0, 0, "q", "a");
    /* The archive changed. */
    write_zip(&d, "data.zip", (Member[]){{"train/x.csv", two, sizeof two - 1}, {"y", "z", 1}}, 2,
              true);
    snprintf(d.file, sizeof d.file, "%s", path);
    assert_ok(scan(&d), &d.err);
    expect_turn(&d, 0, 0, "r", "b");
    strcat(d.file, "/more");
    assert_refused(scan(&d), &d.err, "no such file in the archive");
    data_end(&d);
}

/* What else GQA says of a question. */
#define ASKED                                                                                    \
    "\"isBalanced\": true, \"groups\": {\"global\": null, \"local\": \"l\"}, \"entailed\": [], " \
    "\"equivalent\": [], \"types\": {\"structural\": \"verify\", \"semantic\": \"obj\", "        \
    "\"detailed\": "                                                                             \
    "\"x\"}, \"annotations\": {\"question\": {}, \"fullAnswer\": {}}, \"semantic\": []"

/* GQA's questions, LLaVA's of them, and LLaVA's conversations, three of each, with their images in an
 * archive of their own. */
static void test_questions(void **state) {
    (void)state;
    static const char gqa[] =
        "{\"07\": {\"question\": \"Is it red?\", \"imageId\": \"n1\", \"answer\": \"yes\", " ASKED
        "},"
        " \"08\": {\"question\": \"What is it?\", \"imageId\": \"n2\", \"answer\": \"a "
        "dog\", " ASKED "},"
        " \"09\": {\"question\": \"Who?\", \"imageId\": \"n3\", \"answer\": \"no\", " ASKED "}}";
    static const char lines[] =
        "{\"question_id\": \"07\", \"image\": \"n1.jpg\", \"text\": \"Is it red?\\nAnswer.\"}\n"
        "{\"question_id\": \"08\", \"image\": \"n2.jpg\", \"text\": \"What is it?\\nAnswer.\"}\n"
        "{\"question_id\": \"09\", \"image\": \"n3.jpg\", \"text\": \"Who?\\nAnswer.\"}\n";
    static const char talks[] = "[{\"id\": \"a\", \"image\": \"gqa/images/n1.jpg\", " TALK "},\n"
                                " {\"id\": \"b\", \"image\": \"gqa/images/n2.jpg\", " TALK "},\n"
                                " {\"id\": \"c\", \"image\": \"gqa/images/n3.jpg\", " TALK "}]";
    static const char *const texts[] = {"Is it red?", "What is it?", "Who?"};
    Data d;
    Error err;
    char path[700], images[700];
    data_begin(&d);
    write_zip(&d, "questions.zip",
              (Member[]){{"testdev_balanced_questions.json", gqa, sizeof gqa - 1},
                         {"llava/gqa.jsonl", lines, sizeof lines - 1},
                         {"llava/mix.json", talks, sizeof talks - 1}},
              3, false);
    for (int llava = 0; llava < 2; llava++) {
        GqaQuestions q;
        Skipped skipped = {.total = 0};
        snprintf(path, sizeof path, "%s",
                 inside(&d, llava ? "llava/gqa.jsonl" : "testdev_balanced_questions.json"));
        assert_ok(gqa_questions_read(&q, path, false, &skipped, &err), &err);
        assert_int_equal(q.count, 3);
        assert_int_equal(skipped.total, 0);
        for (int i = 0; i < 3; i++) {
            char image[20];
            snprintf(image, sizeof image, "n%d.jpg", i + 1);
            assert_string_equal(gqa_image(&q, i), image);
            assert_int_equal(strncmp(gqa_text(&q, i), texts[i], strlen(texts[i])), 0);
        }
        gqa_questions_free(&q);
    }
    snprintf(path, sizeof path, "%s", inside(&d, "llava/mix.json"));
    write_zip(&d, "images.zip",
              (Member[]){{"gqa/images/n1.jpg", "1", 1}, {"gqa/images/n2.jpg", "22", 2}}, 2, true);
    snprintf(images, sizeof images, "%s", d.file);
    d.options.images = images, d.options.check_images = true;
    snprintf(d.file, sizeof d.file, "%s", path);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 2);
    assert_int_equal(records_scanned(d.records), 3);
    expect_record(&d, 1, "b", "gqa/images/n2.jpg", 1);
    expect_problem(&d, "no such image", 1, "n3.jpg");
    data_end(&d);
}

static void replace_all(char *bytes, size_t size, const char *from, const char *to) {
    size_t length = strlen(from);
    for (size_t i = 0; i + length <= size; i++)
        if (!memcmp(bytes + i, from, length)) memcpy(bytes + i, to, length);
}

static void test_hostile(void **state) {
    (void)state;
    enum { ZEROS = 70 << 20 };
    Data d;
    Error err;
    size_t size;
    uint8_t *read;
    int64_t bytes;
    data_begin(&d);
    /* Two members of one name. */
    write_zip(&d, "twice.zip", (Member[]){{"a1", "x", 1}, {"a2", "y", 1}}, 2, true);
    char *zip = file_bytes(d.file, &size);
    replace_all(zip, size, "a2", "a1");
    write_bytes(&d, "twice2.zip", zip, size);
    free(zip);
    assert_refused(archive_size(inside(&d, "a1"), &bytes, &err), &err, "twice2.zip",
                   "two of its members", "a1");
    /* A bomb, as data and as an image. */
    char *zeros = calloc(ZEROS, 1);
    assert_non_null(zeros);
    write_zip(&d, "bomb.zip", (Member[]){{"bomb", zeros, ZEROS}}, 1, false);
    assert_refused(file_open_input(inside(&d, "bomb"), NULL, NULL, &err) < 0 ? -1 : 0, &err, "bomb",
                   "200 times");
    assert_refused(archive_read(inside(&d, "bomb"), 1 << 20, &read, &size, &err), &err, "bomb",
                   "more than");
    /* A size that is smaller than the truth. */
    write_zip(&d, "lies.zip", (Member[]){{"m", zeros, 1000}}, 1, false);
    free(zeros);
    zip = file_bytes(d.file, &size);
    replace_all(zip, size, "\xE8\x03\0",
                "\x10\0\0"); /* stops at the first 0; two bytes are enough */
    for (size_t i = 0; i + 1 < size; i++)
        if ((uint8_t)zip[i] == 0xE8 && zip[i + 1] == 3) zip[i] = 0x10, zip[i + 1] = 0;
    write_bytes(&d, "lies2.zip", zip, size);
    assert_refused(archive_read(inside(&d, "m"), 1 << 20, &read, &size, &err), &err, "m");
    free(zip);
    /* Cut, and no archive at all. */
    write_zip(&d, "cut.zip", (Member[]){{"m", "abc", 3}}, 1, true);
    zip = file_bytes(d.file, &size);
    write_bytes(&d, "cut2.zip", zip, size - 10);
    free(zip);
    assert_refused(archive_size(inside(&d, "m"), &bytes, &err), &err, "cut2.zip", "cannot be read");
    write_text(&d, "text", "PK, a text");
    assert_false(archive_path(inside(&d, "m")));
    assert_refused(archive_size(inside(&d, "m"), &bytes, &err), &err, "no such file");
    data_end(&d);
}

/* More archives than stay open, from several threads. */
static void test_threads(void **state) {
    (void)state;
    enum { ARCHIVES = 12, READS = 600 };
    Data d;
    int wrong = 0;
    data_begin(&d);
    for (int i = 0; i < ARCHIVES; i++) {
        char name[20], text[20];
        snprintf(name, sizeof name, "%d.zip", i), snprintf(text, sizeof text, "text %d", i);
        write_zip(&d, name, (Member[]){{"m", text, strlen(text)}}, 1, i % 2);
    }
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int i = 0; i < READS; i++) {
        char path[700], text[20];
        uint8_t *bytes;
        size_t size;
        snprintf(path, sizeof path, "%s/%d.zip/m", d.folder, i * 7 % ARCHIVES);
        snprintf(text, sizeof text, "text %d", i * 7 % ARCHIVES);
        bool ok = !archive_read(path, 100, &bytes, &size, NULL);
        wrong += !ok || size != strlen(text) || memcmp(bytes, text, size);
        if (ok) free(bytes);
    }
    assert_int_equal(wrong, 0);
    data_end(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images),    cmocka_unit_test(test_data),
        cmocka_unit_test(test_hostile),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_questions), cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
