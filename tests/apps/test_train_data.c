/* `easyfirst train` and its data as a user gives them: what it says of files that are no training
 * data, of records that it skips, and of data that changed between two parts of a run. */
#include "tests/llava_set.h"
#include "tests/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#define MODEL "tests/golden/models/tiny-base"

static void write_text(const Run *r, const char *name, const char *text, char path[300]) {
    write_file(r, name, text, strlen(text), path, 300);
}

/* A run that says all of these. */
static void expect_said(const Run *r, const char *const *words, int count) {
    for (int i = 0; i < count; i++)
        if (!strstr(r->err, words[i])) fail_msg("lacks \"%s\": %s", words[i], r->err);
}
#define assert_said(r, ...)                              \
    expect_said((r), (const char *const[]){__VA_ARGS__}, \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* Text without prompts: refused where prompts are learned, with the way on. */
static void test_needs_prompts(void **state) {
    (void)state;
    static const char *const stages[] = {"adapt", "instruct", "length", "align", "tune"};
    Run r;
    char german[300], table[300], pairs[300], out[300], pipe[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out");
    write_text(&r, "train.de", "Ein Satz.\nNoch einer.\n", german);
    write_text(&r, "pairs.tsv", "a\tb\n", table);
    write_text(&r, "pairs.jsonl", "{\"inputs\": \"a dog\", \"targets\": \"ein Hund\"}\n", pairs);
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        char *stage = (char *)stages[i];
        run(&r, "train", stage, "-m", MODEL, "--data", german, "--out", out, "--steps", "1");
        assert_message(&r, 1, "train.de", "plain text", stage, "\"inputs\"", "LLaVA",
                       "train pretrain");
    }
    run(&r, "train", "adapt", "-m", MODEL, "--data", pairs, "--data", german, "--out", out,
        "--steps", "1");
    assert_message(&r, 1, "train.de", "plain text");
    run(&r, "train", "adapt", "-m", MODEL, "--data", pairs, "--valid", german, "--out", out,
        "--steps", "1");
    assert_message(&r, 1, "train.de", "plain text");
    run(&r, "train", "adapt", "-m", MODEL, "--data", german, "--text-lines", "--out", out,
        "--steps", "1");
    assert_message(&r, 2, "--text-lines", "pretrain", "\"inputs\"");
    run(&r, "train", "adapt", "-m", MODEL, "--data", table, "--out", out, "--steps", "1");
    assert_message(&r, 1, "pairs.tsv", "TSV");
    path_in(pipe, sizeof pipe, &r, "pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    alarm(20); /* ends the test where it waits */
    run(&r, "train", "adapt", "-m", MODEL, "--data", pipe, "--out", out, "--steps", "1");
    assert_message(&r, 1, "pipe", "FIFO", "save them to a file");
    alarm(0);
    run(&r, "train", "pretrain", "-m", MODEL, "--data", german, "--text-lines", "--out", out,
        "--steps", "1", "--batch-sequences", "2", "--warmup-steps", "0", "-q");
    expect(&r, 0, "");
    run_end(&r);
}

/* Four records, of which only two can be used: an image list of one is read. */
static void test_skipped_records(void **state) {
    (void)state;
    Run r;
    LlavaSet set;
    char out[300], share[300], image[400], name[400];
    run_start(&r);
    llava_set_make(&set, r.folder, 2);
    path_in(out, sizeof out, &r, "out");
    snprintf(image, sizeof image, "%s/shapes/00000.png", set.images);
    snprintf(name, sizeof name, "%s/a.jpg", set.images);
    assert_int_equal(symlink(image, name), 0);
    run(&r, "train", "tune", "-m", MODEL, "--new-projector", "linear", "--data",
        "tests/golden/cases/images_key.json", "--images", set.images, "--out", out, "--steps", "1",
        "--max-bad-fraction", "0.5", "--valid", "tests/golden/cases/images_key.json");
    expect(&r, 0, "");
    assert_said(&r, "2 examples, 2 of them with an image", "1 x <image> without an image",
                "record 2, id 2", "1 x several <image> marks", "record 3, id 3",
                "left out   --valid: 1 x several <image> marks");
    temporary_remove(out);
    run(&r, "train", "tune", "-m", MODEL, "--new-projector", "linear", "--data",
        "tests/golden/cases/images_key.json", "--images", set.images, "--out", out, "--steps", "1",
        "--max-bad-fraction", "0.49");
    assert_message(&r, 1, "2 of 4 records", "49 %");
    /* One of 200 records has an empty answer: 0.5 %, once. */
    path_in(share, sizeof share, &r, "share.json");
    FILE *f = fopen(share, "w");
    assert_non_null(f);
    for (int i = 0; i < 200; i++)
        fprintf(f,
                "%s{\"id\": %d, \"conversations\": [{\"from\": \"human\", \"value\": \"What?\"}, "
                "{\"from\": \"gpt\", \"value\": \"%s\"}]}",
                i ? ",\n" : "[", i, i == 7 ? "" : "A tractor.");
    fputs("]\n", f);
    assert_int_equal(fclose(f), 0);
    temporary_remove(out);
    run(&r, "train", "tune", "-m", MODEL, "--new-projector", "linear", "--data", share, "--out",
        out, "--steps", "1", "--max-bad-fraction", "0.0075");
    expect(&r, 0, "");
    assert_said(&r, "199 examples", "1 x empty answer", "id 7");
    temporary_remove(out);
    run(&r, "train", "tune", "-m", MODEL, "--new-projector", "linear", "--data", share, "--out",
        out, "--steps", "1", "--max-bad-fraction", "0.0049", "-q");
    assert_message(&r, 1, "1 of 200 records", "empty answer: 1", "0.49 %");
    run_end(&r);
}

static void write_long(const Run *r, char path[300]) {
    path_in(path, 300, r, "long.jsonl");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 12; i++) {
        fputs("{\"inputs\": \"", f);
        for (int w = 0; w < (i % 4 ? 3 : 300); w++) fputs("der Hund ", f);
        fputs("\", \"targets\": \"the dog\"}\n", f);
    }
    assert_int_equal(fclose(f), 0);
}

static json_t *data_json(const char *run_folder) {
    char path[400];
    size_t size;
    snprintf(path, sizeof path, "%s/data.json", run_folder);
    char *text = file_bytes(path, &size);
    assert_non_null(text);
    json_t *json = json_loadb(text, size, 0, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

/* Prompts that do not fit are counted, whatever is done with them. */
static void test_long_prompts(void **state) {
    (void)state;
    Run r;
    char out[300], data[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out");
    write_long(&r, data);
    run(&r, "train", "adapt", "-m", MODEL, "--data", data, "--out", out, "--steps", "1");
    expect(&r, 0, "");
    assert_said(&r, "12 examples", "note       3 x prompt too long, beginning left out",
                "keep-last", "the last ");
    json_t *json = data_json(out);
    json_t *note =
        json_object_get(json_object_get(json, "notes"), "prompt too long, beginning left out");
    assert_int_equal(json_integer_value(json_object_get(note, "count")), 3);
    assert_int_equal(json_object_size(json_object_get(json, "skipped")), 0);
    assert_int_equal(json_integer_value(json_object_get(json, "records")), 12);
    json_decref(json);
    temporary_remove(out);
    run(&r, "train", "adapt", "-m", MODEL, "--data", data, "--out", out, "--steps", "1",
        "--long-prompts", "skip", "--max-bad-fraction", "0");
    expect(&r, 0, "");
    assert_said(&r, "9 examples", "note       3 x prompt too long, left out");
    temporary_remove(out);
    run(&r, "train", "adapt", "-m", MODEL, "--data", data, "--out", out, "--steps", "1",
        "--long-prompts", "refuse", "-q");
    assert_message(&r, 1, "3 of 12 records", "prompt too long: 3");
    run(&r, "train", "adapt", "-m", MODEL, "--data", data, "--out", out, "--long-prompts", "cut");
    assert_int_equal(r.status, 2);
    run_end(&r);
}

static void copy_file(const char *from, const char *to) {
    size_t size;
    char *bytes = file_bytes(from, &size);
    assert_non_null(bytes);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    free(bytes);
}

static void resume(Run *r, const char *out, const char *first, const char *second) {
    run(r, "train", "--resume", "--out", (char *)out, "--data", (char *)first, "--data",
        (char *)second, "--stop-after", "1", "-q");
}

/* A run goes on with the same bytes, whenever they were written and wherever they are; and with no
 * others. */
static void test_resume(void **state) {
    (void)state;
    Run r;
    char out[300], first[300], second[300], other[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out"), path_in(other, sizeof other, &r, "moved.jsonl");
    write_long(&r, first);
    write_text(&r, "second.jsonl",
               "{\"inputs\": \"a dog\", \"targets\": \"ein Hund\"}\n"
               "{\"inputs\": \"a cat\", \"targets\": \"ein Bild\"}\n",
               second);
    run(&r, "train", "adapt", "-m", MODEL, "--data", first, "--data", second, "--out", out,
        "--steps", "9", "--stop-after", "1", "-q");
    expect(&r, 0, "");
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    assert_int_equal(utimensat(AT_FDCWD, first, times, 0), 0);
    resume(&r, out, first, second);
    expect(&r, 0, "");
    copy_file(second, other);
    resume(&r, out, first, other);
    expect(&r, 0, "");
    /* One byte of it; its place in the order; one file less. */
    FILE *f = fopen(other, "r+");
    assert_non_null(f);
    fseek(f, 14, SEEK_SET);
    fputc('A', f);
    assert_int_equal(fclose(f), 0);
    resume(&r, out, first, other);
    assert_message(&r, 1, "moved.jsonl", "contents are not those", "--out");
    resume(&r, out, second, first);
    assert_message(&r, 1, "second.jsonl", "contents are not those");
    run(&r, "train", "--resume", "--out", out, "--data", first, "--stop-after", "1", "-q");
    assert_message(&r, 1, "--data has 1 files", "trained on 2");
    resume(&r, out, first, second);
    expect(&r, 0, "");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_needs_prompts),
        cmocka_unit_test(test_skipped_records),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
