/* Messages: one clean line that keeps its reason, with a path of any length; path_join. */
#include "tests/test.h"

#include "data/files/path.h"
#include "kernels/clean_text.h"

static void test_long_path_keeps_reason(void **state) {
    (void)state;
    char path[5000];
    memset(path, 'a', sizeof path - 1), path[sizeof path - 1] = 0;
    Error err;
    assert_int_equal(error_set(&err, "%s: cannot be read: %s", path, "No such file"), -1);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + strlen(err.text) - 28, "cannot be read: No such file");
    assert_non_null(strstr(err.text, "aaa ... aaa"));
    error_context(&err, "%s", path);
    assert_string_equal(err.text + strlen(err.text) - 12, "No such file");
}

/* A line is never cut inside of a character. */
static void test_cut_between_characters(void **state) {
    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        char path[4001];
        for (int i = 0; i < 4000; i += 4) memcpy(path + i, "\xf0\x9f\x98\x80", 4);
        path[4000] = 0;
        Error err;
        error_set(&err, "%.*s%s: gone", shift, "abc", path);
        for (const char *p = err.text; *p;) {
            size_t size = utf8_next(p, NULL);
            assert_true(size > 0);
            p += size;
        }
    }
}

static void test_message_may_quote_itself(void **state) {
    (void)state;
    Error err;
    error_set(&err, "inner");
    error_set(&err, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
    error_context(&err, "%s", err.text);
    assert_string_equal(err.text, "outer (inner): outer (inner)");
}

static void test_clean(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"plain \xc3\xa4 \xe4\xb8\xad \xf0\x9f\x98\x80",
         "plain \xc3\xa4 \xe4\xb8\xad \xf0\x9f\x98\x80"},
        {"a\x1b[31mb\tc\nd\x7f", "a?[31mb?c?d?"},
        {"\xc2\x9b"
         "31m",
         "?31m"}, /* C1: the one-character form of ESC [ */
        {"\x9b"
         "31m\xff",
         "?31m?"},                           /* and as a lone byte */
        {"\xc0\x9b|\xe0\x80\x9b", "??|???"}, /* overlong forms */
        {"\xe2\x80\xae"
         "abc\xe2\x81\xa9",
         "?abc?"},                 /* bidirectional controls */
        {"x\xe2\x80\xa8y", "x?y"}, /* line separator */
        {"cut \xe4\xb8", "cut ??"},
        {"\xed\xa0\x80", "???"}, /* a surrogate */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        strcpy(text, cases[i][0]);
        clean_text(text);
        assert_string_equal(text, cases[i][1]);
    }
}

static void test_paths(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}, {NULL, "b", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = path_join(cases[i][0], cases[i][1], NULL);
        assert_string_equal(path, cases[i][2]);
        free(path);
    }
    assert_string_equal(path_name("a/b/c"), "c");
    assert_string_equal(path_name("c"), "c");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_path_keeps_reason),
        cmocka_unit_test(test_cut_between_characters),
        cmocka_unit_test(test_message_may_quote_itself),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
