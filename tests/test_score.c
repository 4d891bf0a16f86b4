/* `easyfirst score text` as a person uses it: files of lines and of JSON, options, wrong usage. The
 * values are sacrebleu's and rouge-score's (tests/golden/scores). */
#include <math.h>

#include <jansson.h>

#include "tests/program.h"

#define SCORES     "tests/golden/scores/"
#define ANSWERS    SCORES "answers.jsonl"
#define REFERENCES SCORES "references.jsonl"

enum { ARGS_MOST = 16, PATH = 512 };

static json_t *json_line(const char *text) {
    json_error_t problem;
    json_t *json = json_loads(text, JSON_DISABLE_EOF_CHECK, &problem);
    if (!json) fail_msg("bad JSON (%s): %.200s", problem.text, text);
    return json;
}

static void assert_value(const char *name, const json_t *mine, const json_t *theirs) {
    if (json_is_string(theirs)) {
        assert_string_equal(json_string_value(mine), json_string_value(theirs));
        return;
    }
    if (json_is_object(theirs) || json_is_array(theirs)) {
        const char *key;
        json_t *value;
        size_t index;
        json_object_foreach((json_t *)theirs, key, value)
            assert_value(key, json_object_get(mine, key), value);
        json_array_foreach(theirs, index, value)
            assert_value(name, json_array_get(mine, index), value);
        return;
    }
    if (!json_is_number(mine) || !json_is_number(theirs)) fail_msg("%s: no number", name);
    double a = json_number_value(mine), b = json_number_value(theirs);
    if (!(fabs(a - b) <= 1e-9 * fmax(fabs(b), 1e-9))) fail_msg("%s: %.17g, not %.17g", name, a, b);
}

/* The references' first texts, as lines of JSON. */
static void write_first(const Run *r, char *path, size_t size) {
    size_t bytes_size;
    char *bytes = file_bytes(REFERENCES, &bytes_size), *out = calloc(1, bytes_size + 1), *at = out;
    assert_non_null(bytes);
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *record = json_line(line), *targets = json_object_get(record, "targets");
        if (json_is_array(targets)) json_object_set(record, "targets", json_array_get(targets, 0));
        char *text = json_dumps(record, 0);
        at += sprintf(at, "%s\n\n", text); /* empty lines are passed over */
        free(text);
        json_decref(record);
    }
    write_file(r, "first.jsonl", out, (size_t)(at - out), path, size);
    free(bytes);
    free(out);
}

/* Every golden case through the program, as JSON, and the lines that people read. */
static void test_golden(void **state) {
    (void)state;
    Run r;
    char first[PATH];
    json_error_t problem;
    size_t index, i;
    json_t *expected = json_load_file(SCORES "expected.json", 0, &problem), *test, *option;
    assert_non_null(expected);
    run_start(&r);
    write_first(&r, first, sizeof first);
    json_array_foreach(json_object_get(expected, "cases"), index, test) {
        const char *metric = json_string_value(json_object_get(test, "metric"));
        bool one = json_integer_value(json_object_get(test, "references")) == 1;
        bool pairs = !strcmp(metric, "pairs"), line = metric[0] == 'b' || metric[0] == 'c';
        json_t *values = json_object_get(test, "values");
        char *args[ARGS_MOST] = {"score",    "text",
                                 "--metric", pairs ? "exact,number,f1" : (char *)metric,
                                 ANSWERS,    one ? first : REFERENCES};
        size_t count = 6;
        json_array_foreach(json_object_get(test, "options"), i, option) args[count++] =
            (char *)json_string_value(option);
        assert_true(count < ARGS_MOST - 1);
        if (line) {
            char text[512];
            const char *score = json_string_value(json_object_get(values, "line"));
            size_t name = strcspn(score, " ");
            run_files(&r, "/dev/null", NULL, args);
            snprintf(text, sizeof text, "%.*s|%s%s\n", (int)name, score,
                     json_string_value(json_object_get(values, "signature")), score + name);
            expect(&r, 0, text);
        }
        args[count] = "--json";
        run_files(&r, "/dev/null", NULL, args);
        expect(&r, 0, NULL);
        json_t *json = json_line(r.out);
        assert_value(metric, line ? json_object_get(json, metric) : json, values);
        json_decref(json);
    }
    json_decref(expected);
    run_end(&r);
}

static void put_text(const Run *r, const char *name, const char *text, char path[PATH]) {
    write_file(r, name, text, strlen(text), path, PATH);
}

static void test_lines(void **state) {
    (void)state;
    Run r;
    char answers[PATH], references[PATH], more[PATH];
    run_start(&r);
    put_text(&r, "a.txt", "\xef\xbb\xbfthe cat sat\r\n\nB", answers);
    put_text(&r, "b.txt", "the cat sat\n\n(B)\n", references);
    put_text(&r, "c.txt", "a cat sat\nx\nB\n", more);
    run(&r, "score", "text", "--metric", "exact,choice,number,f1", answers, references);
    expect(&r, 0,
           "exact = 66.67 (as it is)\n"
           "exact_plain = 100.00 (without case and punctuation)\n"
           "exact_squad = 100.00 (also without articles)\n"
           "number = 0.00 (the last integer)\n"
           "choice = 100.00 (the letter)\n"
           "f1 = 66.67 (of words, without case, punctuation and articles)\n");
    run(&r, "score", "text", answers, references, more);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "BLEU|nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp = "));
    assert_int_equal(count_lines(r.out), 2);
    /* No line has four words: the mean over the orders that there are, and over all four. */
    run_text(&r, "the cat sat\n\n(B)\n", "score", "text", "--metric", "bleu", "-", references);
    expect(&r, 0,
           "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp = 0.00 100.0/100.0/100.0/0.0 "
           "(BP = 1.000 ratio = 1.000 hyp_len = 6 ref_len = 6)\n");
    run_text(&r, "the cat sat\n\n(B)\n", "score", "text", "--metric", "bleu", "--effective-order",
             references, "-");
    expect(&r, 0,
           "BLEU|nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp = 100.00 100.0/100.0/100.0/0.0 "
           "(BP = 1.000 ratio = 1.000 hyp_len = 6 ref_len = 6)\n");
    /* An answer that begins like JSON is a text. */
    run_text(&r, "{\"x\": 1}\n\n(B)\n", "score", "text", "--metric", "rouge", "-", references);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 4);
    /* A prompt that could not be answered has an empty answer. */
    run_text(&r, "{\"answer\": \"the cat sat\"}\n{\"error\": \"no\"}\n{\"answer\": \"C\"}\n",
             "score", "text", "--metric", "choice", "-", references);
    expect(&r, 0, "choice = 66.67 (the letter)\n");
    run_end(&r);
}

static void test_wrong(void **state) {
    (void)state;
    Run r;
    char one[PATH], two[PATH], bad[PATH], nul[PATH], none[PATH], odd[PATH];
    run_start(&r);
    put_text(&r, "one.txt", "a\n", one);
    put_text(&r, "two.txt", "a\nb\n", two);
    put_text(&r, "bad.jsonl", "{\"targets\": \"a\"}\n{\"targets\": \n", bad);
    put_text(&r, "odd.jsonl", "{\"targets\": \"a\"}\n{\"targets\": 3}\n", odd);
    write_file(&r, "nul.txt", "a\0b\n", 4, nul, sizeof nul);
    put_text(&r, "none.txt", "", none);
    run(&r, "score");
    assert_message(&r, 2, "\"text\" or \"gqa\"", "--help");
    run(&r, "score", "texts", one, one);
    assert_message(&r, 2, "\"texts\"", "--help");
    run(&r, "score", "text", one);
    assert_message(&r, 2, "references", "--help");
    run(&r, "score", "text", "--metric", "bleu,rogue", one, one);
    assert_message(&r, 2, "rogue", "did you mean rouge");
    run(&r, "score", "text", "--metric", "bleu,", one, one);
    assert_message(&r, 2, "--metric");
    run(&r, "score", "text", "--tokenize", "14a", one, one);
    assert_message(&r, 2, "--tokenize", "13a|intl|none|char|zh");
    run(&r, "score", "text", "--smooth-value", "0.5", one, one);
    assert_message(&r, 2, "--smooth-value");
    run(&r, "score", "text", "-", "-");
    assert_message(&r, 2, "standard input");
    run(&r, "score", "text", one, two);
    assert_message(&r, 1, "one.txt", "1 lines", "two.txt", "2");
    run(&r, "score", "text", one, "no/such/file");
    assert_message(&r, 1, "no/such/file");
    run(&r, "score", "text", one, r.folder);
    assert_message(&r, 1, r.folder);
    run(&r, "score", "text", two, bad);
    assert_message(&r, 1, "bad.jsonl", "line 2");
    run(&r, "score", "text", two, odd);
    assert_message(&r, 1, "odd.jsonl", "line 2", "\"targets\"");
    run(&r, "score", "text", nul, one);
    assert_message(&r, 1, "nul.txt", "line 1", "NUL");
    run(&r, "score", "text", none, none);
    assert_message(&r, 1, "none.txt", "no lines");
    run(&r, "score", "text", REFERENCES, ANSWERS);
    assert_int_equal(r.status, 0); /* each is taken for plain lines */
    run(&r, "score", "--help");
    expect(&r, 0, NULL);
    run(&r, "score", "text", "--help");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "usage: easyfirst score text "));
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
