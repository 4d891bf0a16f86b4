/* `fill`: the gaps of documents. Each paragraph is filled in as `text --template` fills it, and
 * everything else is copied byte for byte. */
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program.h"

#define BASE "tests/golden/models/tiny-base"

static void start(Run *r) {
    run_start(r);
    setenv("EASYFIRST_MODEL", BASE, 1);
}

/* What `text --template` makes of a paragraph; free() it. */
static char *filled(Run *r, const char *paragraph, const char *prompt) {
    run(r, "text", "-q", "--json", "--template", (char *)paragraph, (char *)prompt);
    assert_int_equal(r->status, 0);
    json_t *answer = json_loads(r->out, JSON_DISABLE_EOF_CHECK, NULL);
    char *text = strdup(json_string_value(json_object_get(answer, "answer")));
    json_decref(answer);
    return text;
}

static void assert_says(const char *text, const char *words) {
    if (!strstr(text, words)) fail_msg("\"%s\" is not in: %s", words, text);
}

static const char first[] = "The ___{2} is on the ___ of it.", second[] = "___, the dog.",
                  third[] = "What is <mask>\nand ___{3}?";

/* ---- Documents. ---- */

static void paragraphs(void **state) {
    (void)state;
    Run r;
    char path[600], document[1024], want[2048];
    start(&r);
    char *a = filled(&r, first, ""), *b = filled(&r, second, ""), *c = filled(&r, third, "");
    /* The given words are there, in their order, and no gap is left. */
    assert_int_equal(strncmp(a, "The ", 4), 0);
    assert_says(a, " is on the ");
    assert_string_equal(a + strlen(a) - 7, " of it.");
    assert_string_equal(b + strlen(b) - 10, ", the dog.");
    static const char form[] = "\n \t\n%s\n\nNo gap here: \xc3\xa9  two spaces. \n\n\n%s  \n\t\n%s";
    snprintf(document, sizeof document, form, first, second, third);
    snprintf(want, sizeof want, form, a, b, c);
    write_file(&r, "a.txt", document, strlen(document), path, sizeof path);
    run(&r, "fill", "-q", path);
    expect(&r, 0, want);
    run_text(&r, document, "fill", "-q", "-");
    expect(&r, 0, want);
    run(&r, "fill", path);
    assert_says(r.err, "3 answers");
    free(a), free(b), free(c);
    run_end(&r);
}

static void prompts(void **state) {
    (void)state;
    Run r;
    start(&r);
    char *with = filled(&r, first, "Where is the dog?"), *without = filled(&r, first, "");
    assert_string_not_equal(with, without);
    run_text(&r, first, "fill", "-q", "--prompt", "Where is the dog?", "-");
    expect(&r, 0, with);
    free(with), free(without);
    run_end(&r);
}

/* Lines that end in CR LF keep that; a paragraph's end is no part of it. */
static void carriage_returns(void **state) {
    (void)state;
    Run r;
    char document[512], want[1024];
    start(&r);
    char *a = filled(&r, first, ""), *b = filled(&r, second, "");
    static const char form[] = "\r\n%s\r\n\r\n%s\r\nlast line\r\n";
    char *both = filled(&r, "___, the dog.\r\nlast line", "");
    snprintf(document, sizeof document, form, first, second);
    run_text(&r, document, "fill", "-q", "-");
    assert_int_equal(r.status, 0);
    snprintf(want, sizeof want, "\r\n%s\r\n\r\n%s\r\n", a, both);
    assert_string_equal(r.out, want);
    assert_says(r.out, "\r\nlast line\r\n");
    free(a), free(b), free(both);
    run_end(&r);
}

static void no_gaps(void **state) {
    (void)state;
    static const char text[] = " One.\n\nTwo __ and a_b_c.\r\n\n\n";
    Run r;
    start(&r);
    run_text(&r, text, "fill", "-q", "-");
    expect(&r, 0, text);
    assert_says(r.err, "no gaps");
    run_text(&r, "", "fill", "-q", "-");
    expect(&r, 0, "");
    /* Escapes are what they stand for, with gaps in the document or without. */
    run_text(&r, "A \\___ line.\n", "fill", "-q", "-");
    expect(&r, 0, "A ___ line.\n");
    run_end(&r);
}

static void json(void **state) {
    (void)state;
    Run r;
    char document[512];
    start(&r);
    char *a = filled(&r, first, ""), *b = filled(&r, second, "");
    snprintf(document, sizeof document, "%s\n\nNothing.\n\n%s\n", first, second);
    run_text(&r, document, "fill", "-q", "--json", "-");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 2);
    const char *line = r.out;
    for (int i = 0; i < 2; i++, line = strchr(line, '\n') + 1) {
        json_t *o = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
        assert_string_equal(json_string_value(json_object_get(o, "answer")), i ? b : a);
        assert_int_equal(json_integer_value(json_object_get(o, "line")), i ? 5 : 1);
        json_decref(o);
    }
    free(a), free(b);
    run_end(&r);
}

/* A paragraph that the model cannot read as a whole is filled in by parts; nothing of it is lost. */
static void long_paragraphs(void **state) {
    (void)state;
    enum { TIMES = 40 };
    Run r;
    char document[TIMES * 48] = "";
    start(&r);
    for (int i = 0; i < TIMES; i++)
        strcat(document, i % 10 == 4 ? "The dog is ___{2} the house. " : "The dog is left of it. ");
    run_text(&r, document, "fill", "-q", "-");
    assert_int_equal(r.status, 0);
    const char *at = r.out;
    for (int i = 0; i < TIMES; i++) {
        const char *words = i % 10 == 4 ? "The dog is " : "The dog is left of it. ";
        if (strncmp(at, words, strlen(words)) != 0) fail_msg("part %d: %.80s", i, at);
        at += strlen(words);
        if (i % 10 != 4) continue;
        at = strstr(at, " the house. ");
        assert_non_null(at);
        at += strlen(" the house. ");
    }
    assert_int_equal(*at, 0);
    assert_null(strstr(r.out, "___"));
    run_end(&r);
}

/* ---- What cannot be filled in. ---- */

static void gaps_that_do_not_fit(void **state) {
    (void)state;
    Run r;
    char document[512], want[1024], path[600];
    start(&r);
    char *a = filled(&r, first, "");
    static const char impossible[] = "It ___{900} is.";
    snprintf(document, sizeof document, "%s\n\n%s\n", impossible, first);
    snprintf(want, sizeof want, "%s\n\n%s\n", impossible, a);
    write_file(&r, "a.txt", document, strlen(document), path, sizeof path);
    run(&r, "fill", "-q", path);
    expect(&r, 1, want);
    assert_says(r.err, "a.txt: line 1: ");
    run(&r, "fill", "-q", "--in-place", path);
    assert_int_equal(r.status, 1);
    assert_says(r.err, "is unchanged");
    size_t size;
    char *kept = file_bytes(path, &size);
    assert_string_equal(kept, document);
    free(kept), free(a);
    run_end(&r);
}

static void wrong_documents(void **state) {
    (void)state;
    Run r;
    char path[600];
    start(&r);
    run_text(&r, "One ___.\n\nTwo \xff ___.\n", "fill", "-q", "-");
    assert_int_equal(r.status, 1);
    assert_says(r.err, "line 3");
    assert_says(r.err, "UTF-8");
    run_input(&r, "a ___\0b", 7, (char *[]){"fill", "-q", "-", NULL});
    assert_message(&r, 1, "NUL byte", "at 5");
    path_in(path, sizeof path, &r, "none.txt");
    run(&r, "fill", "-q", path);
    assert_message(&r, 1, "none.txt", "No such file");
    run(&r, "fill", "-q", "--in-place", "-");
    assert_message(&r, 2, "--in-place", "standard input");
    run(&r, "fill", "-q", "--in-place", "--json", path);
    assert_message(&r, 2, "--json", "--in-place");
    run(&r, "fill", "-q", path, path);
    assert_message(&r, 2, "one file at a time");
    run(&r, "fill", "-q");
    assert_message(&r, 2, "no file");
    run(&r, "fill", "-q", "-n", "4", path);
    assert_message(&r, 2, "--length", "___{3}");
    run_end(&r);
}

/* ---- In place. ---- */

/* The new document replaces the old one as a whole, with its mode: a reader that has the old one
 * open keeps it, and a symbolic link stays one. */
static void in_place(void **state) {
    (void)state;
    Run r;
    char path[600], soft[600], old[512];
    struct stat before, after;
    start(&r);
    char *a = filled(&r, first, "");
    snprintf(old, sizeof old, "%s", first);
    write_file(&r, "a.txt", first, strlen(first), path, sizeof path);
    path_in(soft, sizeof soft, &r, "soft");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(symlink("a.txt", soft), 0);
    assert_int_equal(stat(path, &before), 0);
    int reader = open(path, O_RDONLY);
    assert_true(reader >= 0);
    run(&r, "fill", "-q", "--in-place", soft);
    expect(&r, 0, "");
    char seen[512] = "";
    assert_int_equal(read(reader, seen, sizeof seen - 1), strlen(old));
    assert_string_equal(seen, old);
    close(reader);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_int_not_equal(after.st_ino, before.st_ino);
    assert_int_equal(lstat(soft, &after), 0);
    assert_true(S_ISLNK(after.st_mode));
    size_t size;
    char *now = file_bytes(path, &size);
    assert_string_equal(now, a);
    free(now), free(a);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paragraphs),
        cmocka_unit_test(prompts),
        cmocka_unit_test(carriage_returns),
        cmocka_unit_test(no_gaps),
        cmocka_unit_test(json),
        cmocka_unit_test(long_paragraphs),
        cmocka_unit_test(wrong_documents),
        cmocka_unit_test(gaps_that_do_not_fit),
        cmocka_unit_test(in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
