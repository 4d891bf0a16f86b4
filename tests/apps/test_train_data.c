/* The data of `easyfirst train`: files that are not training data, skipped records, long
 * prompts, and data that changed before a run was resumed. */
#include "tests/train_setup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* The run printed all of these on standard error. */
static void expect_printed(const Run *r, const char *const *words, int count) {
    for (int i = 0; i < count; i++)
        if (!strstr(r->err, words[i])) fail_msg("lacks \"%s\": %s", words[i], r->err);
}
#define assert_printed(r, ...)                              \
    expect_printed((r), (const char *const[]){__VA_ARGS__}, \
                   sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* Text without prompts is refused by stages that train on prompts, with what to do. */
static void test_needs_prompts(void **state) {
    (void)state;
    static const char *const stages[] = {"adapt", "instruct", "length", "align", "tune"};
    Run r;
    char german[300], table[300], pairs[300], out[300], pipe[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out");
    write_text_in(&r, "train.de", "Ein Satz.\nNoch einer.\n", german);
    write_text_in(&r, "pairs.tsv", "a\tb\tc\n", table);
    write_text_in(&r, "pairs.jsonl", "{\"inputs\": \"a dog\", \"targets\": \"ein Hund\"}\n", pairs);
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        char *stage = (char *)stages[i];
        run(&r, "train", stage, "-m", TINY_BASE, "--data", german, "--out", out, "--steps", "1");
        assert_message(&r, 1, "train.de", "plain text", stage, "\"inputs\"", "LLaVA",
                       "train pretrain");
    }
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", pairs, "--data", german, "--out", out,
        "--steps", "1");
    assert_message(&r, 1, "train.de", "plain text");
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", pairs, "--valid", german, "--out", out,
        "--steps", "1");
    assert_message(&r, 1, "train.de", "plain text");
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", german, "--text-lines", "--out", out,
        "--steps", "1");
    assert_message(&r, 2, "--text-lines", "pretrain", "\"inputs\"");
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", table, "--out", out, "--steps", "1");
    assert_message(&r, 1, "pairs.tsv", "TSV", "two fields");
    path_in(pipe, sizeof pipe, &r, "pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    alarm(20); /* ends the test where it waits */
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", pipe, "--out", out, "--steps", "1");
    assert_message(&r, 1, "pipe", "FIFO", "save them to a file");
    alarm(0);
    run_ok(&r, "train", "pretrain", "-m", TINY_BASE, "--data", german, "--text-lines", "--out", out,
           "--steps", "1", "--batch-sequences", "2", "--warmup-steps", "0", "-q");
    run_end(&r);
}

/* Four records, of which only two can be used: a list of one image is accepted. */
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
    run_ok(&r, "train", "tune", "-m", TINY_BASE, "--new-projector", "linear", "--data",
           "tests/golden/cases/images_key.json", "--images", set.images, "--out", out, "--steps",
           "1", "--max-bad-fraction", "0.5", "--valid", "tests/golden/cases/images_key.json");
    assert_printed(&r, "2 examples, 2 of them with an image", "1 x <image> without an image",
                   "record 2, id 2", "1 x several <image> marks", "record 3, id 3",
                   "left out   --valid: 1 x several <image> marks");
    temporary_remove(out);
    run(&r, "train", "tune", "-m", TINY_BASE, "--new-projector", "linear", "--data",
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
    run_ok(&r, "train", "tune", "-m", TINY_BASE, "--new-projector", "linear", "--data", share,
           "--out", out, "--steps", "1", "--max-bad-fraction", "0.0075");
    assert_printed(&r, "199 examples", "1 x empty answer", "id 7");
    temporary_remove(out);
    run(&r, "train", "tune", "-m", TINY_BASE, "--new-projector", "linear", "--data", share, "--out",
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

/* Prompts that do not fit are counted with every setting of --long-prompts. */
static void test_long_prompts(void **state) {
    (void)state;
    Run r;
    char out[300], data[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out");
    write_long(&r, data);
    run_ok(&r, "train", "adapt", "-m", TINY_BASE, "--data", data, "--out", out, "--steps", "1");
    assert_printed(&r, "12 examples", "note       3 x prompt too long, beginning left out",
                   "keep-last", "the last ");
    json_t *json = read_json(&r, "out/data.json");
    json_t *note =
        json_object_get(json_object_get(json, "notes"), "prompt too long, beginning left out");
    assert_int_equal(json_integer_value(json_object_get(note, "count")), 3);
    assert_int_equal(json_object_size(json_object_get(json, "skipped")), 0);
    assert_int_equal(json_integer_value(json_object_get(json, "records")), 12);
    json_decref(json);
    temporary_remove(out);
    run_ok(&r, "train", "adapt", "-m", TINY_BASE, "--data", data, "--out", out, "--steps", "1",
           "--long-prompts", "skip", "--max-bad-fraction", "0");
    assert_printed(&r, "9 examples", "note       3 x prompt too long, left out");
    temporary_remove(out);
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", data, "--out", out, "--steps", "1",
        "--long-prompts", "refuse", "-q");
    assert_message(&r, 1, "3 of 12 records", "prompt too long: 3");
    run(&r, "train", "adapt", "-m", TINY_BASE, "--data", data, "--out", out, "--long-prompts",
        "cut");
    assert_int_equal(r.status, 2);
    run_end(&r);
}

static void resume(Run *r, const char *out, const char *first, const char *second) {
    run(r, "train", "--resume", "--out", (char *)out, "--data", (char *)first, "--data",
        (char *)second, "--stop-after", "1", "-q");
}

/* A run is resumed with the same bytes, at any time and path, and with no others. */
static void test_resume(void **state) {
    (void)state;
    Run r;
    char out[300], first[300], second[300], other[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out"), path_in(other, sizeof other, &r, "moved.jsonl");
    write_long(&r, first);
    write_text_in(&r, "second.jsonl",
                  "{\"inputs\": \"a dog\", \"targets\": \"ein Hund\"}\n"
                  "{\"inputs\": \"a cat\", \"targets\": \"ein Bild\"}\n",
                  second);
    run_ok(&r, "train", "adapt", "-m", TINY_BASE, "--data", first, "--data", second, "--out", out,
           "--steps", "9", "--stop-after", "1", "-q");
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    assert_int_equal(utimensat(AT_FDCWD, first, times, 0), 0);
    resume(&r, out, first, second);
    expect(&r, 0, "");
    shell("cp %s %s", second, other);
    resume(&r, out, first, other);
    expect(&r, 0, "");
    /* One byte of it; its place in the order; one file fewer. */
    FILE *f = fopen(other, "r+");
    assert_non_null(f);
    fseek(f, 14, SEEK_SET);
    fputc('A', f);
    assert_int_equal(fclose(f), 0);
    resume(&r, out, first, other);
    assert_message(&r, 1, "moved.jsonl", "contents differ", "--out");
    resume(&r, out, second, first);
    assert_message(&r, 1, "second.jsonl", "contents differ");
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
