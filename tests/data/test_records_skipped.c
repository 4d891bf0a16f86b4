/* test_records_skipped.c - records and files that are not what training can use: skipped and named,
 * counted once, never trained on as something else. */
#include "tests/test.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/records_data.h"

#define PARTS(question, answer)                                                           \
    "\"conversations\": [{\"from\": \"human\", \"value\": \"" question "\"}, {\"from\": " \
    "\"gpt\", \"value\": \"" answer "\"}]"

/* A record with contents that cannot be used is skipped, not trained on in part. */
static void test_nothing_is_ignored(void **state) {
    (void)state;
    static const struct {
        const char *record, *kind, *words;
    } cases[] = {
        {"{\"images\": [\"a.jpg\", \"b.jpg\"], " TALK "}", "several images", "2 entries"},
        {"{\"image\": [\"a.jpg\", \"b.jpg\"], " TALK "}", "several images", "\"image\""},
        {"{\"image\": \"a.jpg\", \"images\": [\"b.jpg\"], " TALK "}", "several images", "b.jpg"},
        {"{\"images\": [{\"path\": \"a.jpg\"}], " TALK "}", "wrong type", "an object"},
        {"{\"images\": 5, " TALK "}", "wrong type", "\"images\" is a number"},
        {"{" PARTS("<image>\\nq", "a") "}", "<image> without an image", "have 1"},
        {"{\"image\": \"\", " PARTS("<image>q", "a") "}", "<image> without an image", "have 1"},
        {"{\"inputs\": \"<image>\", \"targets\": \"a\"}", "<image> without an image", "line 1"},
        {"{\"image\": \"a.jpg\", " PARTS("<image>\\n<image>q", "a") "}", "several <image> marks",
         "have 2"},
        {"{\"image\": \"a.jpg\", " PARTS("q", "the <image>") "}", "<image> in an answer",
         "answer 1"},
        {"{\"video\": \"a.mp4\", " TALK "}", "field that is not read", "\"video\", a string"},
        {"{\"videos\": [1], " TALK "}", "field that is not read", "an array"},
        {"{\"audio\": {\"x\": 1}, " TALK "}", "field that is not read", "\"audio\""},
        {"{\"system\": \"Be kind\", " TALK "}", "field that is not read", "\"system\""},
        {"{\"inputs\": \"q\", \"targets\": \"a\", \"context\": \"c\"}", "field that is not read",
         "\"context\""},
        {"{\"inputs\": \"q\", \"targets\": \"a\", " TALK "}", "two kinds in one", "line 1"},
        {"{\"inputs\": \"q\", \"targets\": \"a\", \"inputs\": \"r\"}", "repeated key", "inputs"},
        {"{\"conversations\": [{\"from\": \"gpt\", \"value\": \"a\", \"weight\": 0}]}",
         "field that is not read", "\"weight\" at place 1"},
    };
    static const char *const good[] = {
        "{\"images\": [\"a.jpg\"], " PARTS("<image>\\nq", "a") "}",
        "{\"image\": \"a.jpg\", \"images\": [\"a.jpg\"], " TALK "}",
        "{\"image\": \"a.jpg\", " TALK "}", /* no mark is needed */
        "{\"image\": null, \"images\": null, \"video\": null, \"system\": \"\", \"audio\": "
        "[], " TALK "}",
        "{\"conversations\": null, \"inputs\": \"q\", \"targets\": \"a\", \"source\": \"x\"}",
    };
    Data d;
    data_begin(&d);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[600];
        snprintf(text, sizeof text, "%s\n{" TALK "}\n", cases[i].record);
        accept(&d, text, 1, 2);
        assert_int_equal(d.skipped.total, 1);
        expect_problem(&d, cases[i].kind, 1, cases[i].words);
        snprintf(text, sizeof text, "[%s, {" TALK "}]", cases[i].record);
        accept(&d, text, 1, 2);
        assert_int_equal(d.skipped.total, 1);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        accept(&d, good[i], 1, 1);
        assert_int_equal(d.skipped.kind_count, 0);
        expect_record(&d, 0, "", i < 3 ? "a.jpg" : NULL, 1);
    }
    data_end(&d);
}

/* However much is wrong with a record, it is one. */
static void test_counted_once(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    accept(&d,
           "[{" PARTS("q", " ") "}, {\"conversations\": [{\"from\": \"gpt\", \"value\": \"\"}, "
                                "{\"from\": \"gpt\", \"value\": \" \"}, {\"from\": \"gpt\", "
                                "\"value\": \"kept\"}]}, {" TALK "}]",
           2, 3);
    assert_int_equal(d.skipped.total, 2);
    expect_problem(&d, "empty answer", 3, "record 1");
    assert_int_equal(d.skipped.kind_count, 1);
    assert_true(records_flawed(d.records, 0) && !records_flawed(d.records, 1));
    assert_refused(skipped_check(&d.skipped, 3, 0.5, &d.err), &d.err, "2 of 3 records");
    data_end(&d);
}

/* Files that are not what they were given as. */
static void test_other_files(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    snprintf(d.file, sizeof d.file, "tests/golden/cases/utf16.json");
    assert_refused(scan(&d), &d.err, "utf16.json", "UTF-16", "iconv");
    snprintf(d.file, sizeof d.file, "tests/golden/cases/fake.parquet");
    assert_refused(scan(&d), &d.err, "fake.parquet", "Parquet");
    snprintf(d.file, sizeof d.file, "tests/golden/cases/wrapped.json");
    assert_refused(scan(&d), &d.err, "wrapped.json", "\"data\" is the array of records");
    refuse(&d, "{\"version\": 1, \"rows\": [{" TALK "}]}", "\"rows\" is the array of records");
    refuse(&d, "{\n \"id\": 1,\n " TALK "}\n", "a JSON object over several lines");
    refuse(&d, "\x1F\x8B\x08 packed", "gzip");
    refuse(&d, "<!DOCTYPE html><html>", "HTML");
    refuse(&d, "{\"error\": \"gone\"}", "server's error");
    accept(&d, "{\"inputs\": \"cut\n{\"inputs\": \"a\", \"targets\": \"b\"}\n", 1, 2);
    static const char *const names[][2] = {
        {"t.csv", "CSV"}, {"t.TSV", "TSV"}, {"t.jsonl", "neither { nor ["}, {"t.yaml", "YAML"}};
    for (size_t i = 0; i < 4; i++) {
        write_text(&d, names[i][0], "a\tb\n1,2\n");
        assert_refused(scan(&d), &d.err, names[i][0], names[i][1]);
    }
    /* Plain text has no prompts. */
    d.options.prompts_for = "train adapt";
    refuse(&d, "One line.\nAnother.\n", "plain text", "train adapt needs pairs", "\"inputs\"",
           "LLaVA", "train pretrain");
    accept(&d, "{\"inputs\": \"a\", \"targets\": \"b\"}\n", 1, 1);
    d.options.prompts_for = NULL;
    snprintf(d.file, sizeof d.file, "%s/pipe", d.folder);
    assert_int_equal(mkfifo(d.file, 0600), 0);
    alarm(5); /* ends the test where it waits */
    assert_refused(scan(&d), &d.err, "a pipe (FIFO)", "save them to a file");
    alarm(0);
    data_end(&d);
}

/* Records of millions of values: skipped, in bounded memory. */
static void test_heavy_records(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { SIZE = 12 << 20 };
    char *text = malloc(SIZE + 7000), *p = text;
    assert_non_null(text);
    p += sprintf(p, "[{" TALK "}, {\"id\": \"big\", \"x\": [0");
    while (p < text + SIZE) p = stpcpy(p, ",[]");
    p += sprintf(p, "]}, ");
    memset(p, '[', 3000), memset(p + 3000, ']', 3000);
    p += 6000;
    sprintf(p, ", {\"inputs\": \"a\", \"targets\": \"b\"}]");
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    accept(&d, text, 2, 4);
    getrusage(RUSAGE_SELF, &after);
    expect_problem(&d, "too large", 2, "record 2: JSON whose values would take");
    assert_int_equal(d.skipped.total, 2);
#ifndef __SANITIZE_ADDRESS__
    assert_true(after.ru_maxrss - before.ru_maxrss < 100 << 10);
#endif
    free(text);
    data_end(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_ignored),
        cmocka_unit_test(test_counted_once),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_heavy_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
