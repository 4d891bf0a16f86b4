/* JSON in bounded memory, what a wrong file is, and opening without waiting. */
#include <malloc.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/json_read.h"
#include "tests/test.h"

static char folder[256];

static int begin(void **state) {
    (void)state;
    temporary_folder(folder, sizeof folder);
    return 0;
}

static int end(void **state) {
    (void)state;
    temporary_remove(folder);
    return 0;
}

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_bytes(const char *name, const void *bytes, size_t size) {
    const char *path = in_folder(name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
    return path;
}

/* `unit` again and again in brackets, `size` bytes at least. */
static char *repeated(const char *unit, size_t size, size_t *length) {
    size_t step = strlen(unit);
    char *text = malloc(size + step + 2);
    assert_non_null(text);
    size_t n = 0;
    text[n++] = '[';
    while (n < size) {
        memcpy(text + n, unit, step);
        n += step;
    }
    text[n - 1] = ']'; /* in place of the last comma */
    *length = n;
    return text;
}

static size_t memory_in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* What is foretold is never less than what jansson takes. */
static void test_weight(void **state) {
    (void)state;
    static const char *const units[] = {
        "[],",
        "{},",
        "1,",
        "\"\",",
        "[1],",
        "true,",
        "\"long text of this\",",
        "{\"a\":1},",
        "{\"a\":{}},",
        "[[[]]],",
        "1.5e3,",
        "{\"a\":\"\",\"b\":[],\"c\":null,\"d\":4,\"e\":5,\"f\":6,\"g\":7},",
        "\"\\\"[[[{{\",",
        "\"\xC3\xA9\xC3\xA9\","};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        size_t size;
        char *text = repeated(units[u], 300007, &size);
        JsonWeight weight = json_weigh(text, size);
        size_t before = memory_in_use();
        json_t *tree = json_loadb(text, size, 0, NULL);
        size_t taken = memory_in_use() - before;
        assert_non_null(tree);
        /* Under the sanitizers nothing is counted as taken. */
        if (weight.memory < taken || (taken && weight.memory > 8 * taken))
            fail_msg("%s: %zu bytes foretold, %zu taken", units[u], weight.memory, taken);
        json_decref(tree);
        free(text);
    }
    assert_int_equal(json_weigh("[[\"[[[[\\\"[[\"],{\"a\":[1]}]", 23).depth, 3);
}

/* 20 MB of brackets are refused at once and without their tree. */
static void test_heavy(void **state) {
    (void)state;
    static const char *const units[] = {"[],", "{},", "\"\",", "1,", "[1,\"a\",{\"b\":2}],"};
    Error err;
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        size_t size, before = memory_in_use();
        char *text = repeated(units[u], 20000000, &size);
        clock_t start = clock();
        json_t *tree;
        assert_refused(json_read_text(&tree, text, size, 0, 0, "big.json", &err), &err, "big.json",
                       "MiB of memory");
        assert_null(tree);
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2);
        free(text);
        assert_true(memory_in_use() < before + (1 << 20));
    }
    /* One long text is light. */
    size_t size = 20000000;
    char *text = malloc(size);
    json_t *tree;
    assert_non_null(text);
    memset(text, 'x', size);
    text[0] = text[size - 1] = '"';
    assert_ok(json_read_text(&tree, text, size, JSON_DECODE_ANY, 0, "text.json", &err), &err);
    assert_int_equal(json_string_length(tree), size - 2);
    json_decref(tree);
    memset(text, '[', 1000);
    assert_refused(json_read_text(&tree, text, 1000, 0, 0, "deep.json", &err), &err,
                   "1000 levels deep", "at most 64");
    free(text);
}

static void test_limits(void **state) {
    (void)state;
    json_t *tree;
    Error err;
    assert_refused(json_read_text(&tree, "[1,2,3,4,5]", 11, 0, 100, "few.json", &err), &err,
                   "few.json", "memory");
    assert_ok(json_read_text(&tree, "[1,2,3,4,5]", 11, 0, 1000, "few.json", &err), &err);
    json_decref(tree);
    const char *path = write_bytes("limit.json", "{\"a\": 1}", 8);
    assert_refused(json_read_file(&tree, path, 7, 0, 0, &err), &err, "limit.json", "8 bytes",
                   "at most 7");
    assert_ok(json_read_file(&tree, path, 8, 0, 0, &err), &err);
    assert_int_equal(json_integer_value(json_object_get(tree, "a")), 1);
    json_decref(tree);
    path = write_bytes("bad.json", "{\"a\":\n 1,}", 10);
    assert_refused(json_read_file(&tree, path, 0, 0, 0, &err), &err, "bad.json", "line 2");
    path = write_bytes("mark.json", "\xEF\xBB\xBF{\"a\": 1}", 11);
    assert_ok(json_read_file(&tree, path, 0, 0, 0, &err), &err);
    json_decref(tree);
}

/* What files are that are taken for JSON. */
static void test_kinds(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *word;
    } kinds[] = {
        {"", 0, "empty"},
        {"PAR1\0\0\0\0PAR1", 12, "Parquet"},
        {"\x1F\x8B\x08\0", 4, "gzip"},
        {"PK\x03\x04..", 6, "zip"},
        {"\xFF\xFE[\0{\0", 6, "UTF-16"},
        {"\xFE\xFF\0[\0{", 6, "UTF-16"},
        {"[\0{\0\"\0", 6, "UTF-16"},
        {"\0[\0{\0\"", 6, "UTF-16"},
        {"\xFF\xFE\0\0[\0\0\0", 8, "UTF-32"},
        {" \n<!DOCTYPE html>\n<html>", 24, "HTML"},
        {"\xEF\xBB\xBF<HTML lang=en>", 17, "HTML"},
        {"version https://git-lfs.example/spec/v1\n", 40, "git lfs pull"},
        {"Entry not found", 15, "server's error"},
        {"{\"error\":\"no\"}", 14, "server's error"},
        {"{ \"error\" : \"no\"}", 17, "server's error"},
        {"\x80\x02}q\0.", 6, "pickle"},
        {"\x08\0\0\0\0\0\0\0{}      ", 16, "safetensors"},
        {"\x89PNG\r\n", 6, "PNG"},
        {"BZh91AY", 7, "bunzip2"},
        {"ARROW1\0\0", 8, "Arrow"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *hint = file_kind_hint(kinds[i].bytes, kinds[i].size);
        if (!hint || !strstr(hint, kinds[i].word))
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, hint ? hint : "(none)", kinds[i].word);
        json_t *tree;
        Error err;
        if (kinds[i].bytes[0] == '{') continue; /* sound JSON */
        assert_refused(json_read_text(&tree, kinds[i].bytes, kinds[i].size, 0, 0, "x.json", &err),
                       &err, "x.json", kinds[i].word);
    }
    static const char *const sound[] = {
        "{\"a\": \"error\"}", "[1]",   "some words", "{\"errors\": 1}",
        "\xEF\xBB\xBF{}",     "Entry", "P"};
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++)
        assert_null(file_kind_hint(sound[i], strlen(sound[i])));
    char tar[300] = "name";
    memcpy(tar + 257, "ustar", 5);
    assert_non_null(strstr(file_kind_hint(tar, sizeof tar), "tar archive"));
}

/* A pipe without a writer, a folder, a device: refused at once. */
static void test_opening(void **state) {
    (void)state;
    Error err;
    json_t *tree;
    int64_t size;
    const char *pipe = in_folder("pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    alarm(5); /* ends the test where it waits */
    assert_refused(file_open_input(pipe, "save it to a file", NULL, &err) < 0 ? -1 : 0, &err,
                   "a pipe (FIFO); save it to a file");
    assert_refused(json_read_file(&tree, pipe, 0, 0, 0, &err), &err, "pipe (FIFO)",
                   "a file on disk");
    alarm(0);
    assert_refused(json_read_file(&tree, folder, 0, 0, 0, &err), &err, "a folder");
    assert_refused(json_read_file(&tree, "/dev/null", 0, 0, 0, &err), &err, "a device");
    assert_refused(json_read_file(&tree, in_folder("none"), 0, 0, 0, &err), &err,
                   "No such file or directory");
    int fd = file_open_input(write_bytes("seven", "1234567", 7), NULL, &size, &err);
    assert_true(fd >= 0);
    assert_int_equal(size, 7);
    assert_null(file_kind_of(fd));
    close(fd);
    fd = file_open_input("tests/golden/cases/fake.parquet", NULL, NULL, &err);
    assert_true(fd >= 0);
    assert_non_null(strstr(file_kind_of(fd), "Parquet"));
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight),  cmocka_unit_test(test_heavy),
        cmocka_unit_test(test_limits),  cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_opening),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
