/* `easyfirst eval order` as a person uses it. */
#include <math.h>
#include <sys/stat.h>

#include <jansson.h>

#include "tests/json_values.h"
#include "tests/program.h"

#define CAUSAL "data/causal/"
#define IMAGES "data/bundled/images"

#define PROMPTS                                                                                 \
    "{\"inputs\": \"Translate the sentences into English.  German: Werkzeug zum Lesen von "     \
    "Dateien "                                                                                  \
    "English: \", \"targets\": \"tool for reading files\"}\n"                                   \
    "{\"inputs\": \"Translate the sentences into English.  German: Dieses Paket enthält die "  \
    "Entwicklungsdateien für die Bibliothek. English: \", \"targets\": \"x\"}\n"               \
    "{\"inputs\": \"Translate the sentences into English.  German: Das Programm liest Bilder. " \
    "English: \", \"targets\": \"The program reads images.\"}\n"

static void program_start(Run *r) {
    run_start(r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
}

static json_t *parsed(const char *text) {
    json_error_t wrong;
    json_t *json = json_loads(text, 0, &wrong);
    if (!json) fail_msg("bad JSON (%s): %.200s", wrong.text, text);
    return json;
}

static double value_of(const json_t *result, const char *name) {
    return number(json_object_get(json_object_get(result, "summary"), name), "value");
}

static void test_program_strategies(void **state) {
    (void)state;
    Run r;
    char path[512];
    program_start(&r);
    write_file(&r, "prompts.jsonl", PROMPTS, strlen(PROMPTS), path, sizeof path);
    run(&r, "eval", "order", "-q", path, "--strategy", "ar", "--json", "-");
    expect(&r, 0, NULL);
    json_t *ar = parsed(r.out);
    assert_true(value_of(ar, "kendall") == 1 && value_of(ar, "spearman") == 1);
    assert_true(value_of(ar, "erased") == 0 && value_of(ar, "erasures") == 0);
    assert_true(value_of(ar, "several") == 0 && value_of(ar, "writes_a_step") == 1);
    assert_int_equal(json_array_size(json_object_get(ar, "items")), 3);
    json_decref(ar);
    /* cmlm writes anywhere: 3 answers of 20 tokens and more are near 0. */
    run(&r, "eval", "order", "-q", path, "--strategy", "cmlm", "-n", "40", "--json", "-");
    expect(&r, 0, NULL);
    json_t *cmlm = parsed(r.out);
    assert_near(value_of(cmlm, "kendall"), 0, 0.25, "cmlm");
    assert_true(value_of(cmlm, "erased") == 0);
    json_decref(cmlm);
    char *first = strdup(r.out);
    run(&r, "eval", "order", "-q", path, "--strategy", "cmlm", "-n", "40", "--json", "-");
    expect(&r, 0, first);
    free(first);
    run(&r, "eval", "order", "-q", path, "--limit", "2");
    expect(&r, 0, NULL);
    assert_memory_equal(r.out, "2 answers of ", 13);
    assert_non_null(strstr(r.out, "Kendall's tau-b"));
    run_end(&r);
}

/* Asked now, or by `show` before: the same numbers. */
static void test_program_from(void **state) {
    (void)state;
    static const char *const texts[] = {"Dieses Paket enthält die Dokumentation.",
                                        "Werkzeug zum Lesen von Dateien"};
    Run r;
    char path[512], folder[512], trace[600], prompt[400], lines[2000] = "";
    program_start(&r);
    path_in(folder, sizeof folder, &r, "traces");
    assert_int_equal(mkdir(folder, 0700), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(prompt, sizeof prompt,
                 "Translate the sentences into English.  German: %s English: ", texts[i]);
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines),
                 "{\"inputs\": \"%s\", \"targets\": \"x\"}\n", prompt);
        snprintf(trace, sizeof trace, "%s/%d.json", folder, i);
        run(&r, "show", "-q", "--json", "--steps", "50", "--text", prompt); /* as eval order */
        expect(&r, 0, NULL);
        FILE *file = fopen(trace, "w");
        assert_non_null(file);
        fputs(r.out, file);
        assert_int_equal(fclose(file), 0);
    }
    write_file(&r, "prompts.jsonl", lines, strlen(lines), path, sizeof path);
    run(&r, "eval", "order", "-q", path, "--json", "-");
    expect(&r, 0, NULL);
    json_t *asked = parsed(r.out);
    run(&r, "eval", "order", "-q", "--from", folder, "--json", "-");
    expect(&r, 0, NULL);
    json_t *read = parsed(r.out);
    assert_true(json_equal(json_object_get(asked, "summary"), json_object_get(read, "summary")));
    assert_non_null(json_object_get(json_object_get(read, "summary"), "by_step"));
    json_decref(asked), json_decref(read);
    /* A pipe without a writer does not hold the command up. */
    char fifo[600];
    snprintf(fifo, sizeof fifo, "%s/fifo.json", r.folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    run(&r, "eval", "order", "-q", "--from", fifo);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "fifo.json: is empty"));
    /* One trace is broken: named, left out, and the others counted. */
    snprintf(trace, sizeof trace, "%s/broken.json", folder);
    FILE *file = fopen(trace, "w");
    assert_non_null(file);
    fputs("{\"trace\": [", file);
    assert_int_equal(fclose(file), 0);
    run(&r, "eval", "order", "-q", "--from", folder);
    assert_int_equal(r.status, 1);
    assert_memory_equal(r.out, "2 answers of ", 13);
    assert_non_null(strstr(r.err, "unreadable trace: 1"));
    assert_non_null(strstr(r.err, "broken.json"));
    assert_int_equal(count_lines(r.err), 1);
    run(&r, "eval", "order", "-q", "--from", trace);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "no answer"));
    run_end(&r);
}

static void test_program_graphs(void **state) {
    (void)state;
    Run r;
    char path[512];
    program_start(&r);
    path_in(path, sizeof path, &r, "order.json");
    run(&r, "eval", "order", "-q", "--graphs", CAUSAL "images.json", "--images", IMAGES,
        "--strategy", "ar", "--lengths", "target", "--json", path);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "causal graphs: 3 in the file; answers to them: 3, matched: 3"));
    json_error_t wrong;
    json_t *result = json_load_file(path, 0, &wrong);
    assert_non_null(result);
    const json_t *totals = json_object_get(result, "causal_graphs");
    /* From left to right: of the four edges background-pattern. */
    assert_int_equal(whole(totals, "edges"), 4);
    assert_int_equal(whole(totals, "strict"), 1);
    assert_int_equal(whole(totals, "lax"), 1);
    assert_int_equal(whole(totals, "sorts_strict"), 1);
    json_decref(result);
    /* The small model cannot calculate: its answers do not have the segments, and the report says so. */
    run(&r, "eval", "order", "-q", "--graphs", CAUSAL "arithmetic.json");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "answers to them: 2, matched: 0"));
    assert_non_null(strstr(r.out, "not matched: graph 1 has no \"idea 1\""));
    run_end(&r);
}

/* Saves a trace of an answer that is given, but for a word. The tokens of [from, to) are written a step
 * after the others. */
static void save_calculation(Run *r, const char *folder, const char *name, char *answer,
                             size_t from, size_t to) {
    char path[600];
    run(r, "show", "-q", "--json", "--steps", "3", "--text", "How many?", "--template", answer);
    expect(r, 0, NULL);
    json_t *trace = parsed(r->out);
    json_t *first = json_array_get(json_object_get(trace, "trace"), 0);
    json_object_del(json_array_get(json_object_get(trace, "hypotheses"), 0), "fixed");
    for (size_t i = from; i < to; i++) {
        json_t *cell = json_array_get(json_object_get(first, "cells"), i);
        assert_int_equal(json_object_set_new(cell, "masked", json_true()), 0);
        assert_int_equal(json_object_set_new(cell, "score", json_null()), 0);
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(json_dump_file(trace, path, 0), 0);
    json_decref(trace);
}

/* The answers' own calculations: all at once, a formula after its result, none; and those of GSM8K's
 * file, whose graphs are made from its marks. */
static void test_program_calculations(void **state) {
    (void)state;
    static const char lines[] =
        "{\"question\": \"How many?\", \"answer\": \"It is 2+2 = <<2+2=4>>4.\\n#### 4\"}\n"
        "{\"question\": \"Why?\", \"answer\": \"So.\\n#### 1\"}\n";
    Run r;
    char folder[512], path[512];
    program_start(&r);
    path_in(folder, sizeof folder, &r, "traces");
    assert_int_equal(mkdir(folder, 0700), 0);
    save_calculation(&r, folder, "a.json", "2 + 2 = 4 ___{1}", 0, 0);
    save_calculation(&r, folder, "b.json", "2 + 2 = 4 ___{1}", 0, 2);
    save_calculation(&r, folder, "c.json", "so and so ___{1}", 0, 0);
    run(&r, "eval", "order", "-q", "--calculations", "--from", folder);
    expect(&r, 0, NULL);
    assert_non_null(
        strstr(r.out, "causal graphs of the answers' own calculations: 2; answers without: 1"));
    assert_non_null(strstr(r.out, "an order that their graphs allow: 1 of 2 answers"));
    write_file(&r, "gsm8k.jsonl", lines, strlen(lines), path, sizeof path);
    run(&r, "eval", "order", "-q", "--graphs", path, "--lengths", "target");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "causal graphs: 1 in the file; answers to them: 1, matched: 0"));
    assert_non_null(strstr(r.out, "1 lines of the file have no calculation"));
    run(&r, "eval", "order", "-q", "--calculations", path, "--length", "4", "--json", "-");
    expect(&r, 0, NULL);
    json_t *result = parsed(r.out);
    assert_int_equal(whole(json_object_get(result, "causal_graphs"), "left_out"), 2);
    json_decref(result);
    run(&r, "eval", "order", "--calculations", "--graphs", path);
    assert_int_equal(r.status, 2);
    run_end(&r);
}

static void test_program_questions(void **state) {
    (void)state;
    static const char official[] =
        "{\"1\": {\"question\": \"What colour is the elephant?\", \"imageId\": \"elephant\", "
        "\"answer\": \"gray\", \"isBalanced\": true},\n"
        "\"2\": {\"question\": \"What is it?\", \"imageId\": \"nothing\", \"answer\": \"x\", "
        "\"isBalanced\": true},\n"
        "\"3\": {\"question\": \"Is there a tractor?\", \"imageId\": \"tractor\", \"answer\": "
        "\"yes\", \"isBalanced\": true}}\n";
    static const char llava[] =
        "{\"question_id\": 7, \"image\": \"elephant.jpg\", \"text\": \"What colour is it?\"}\n";
    static const char talk[] =
        "[{\"id\": \"a\", \"image\": \"sailboat.jpg\", \"conversations\": [{\"from\": \"human\", "
        "\"value\": \"<image>\\nIs there a boat?\"}, {\"from\": \"gpt\", \"value\": \"yes\"}, "
        "{\"from\": \"human\", \"value\": \"How many things are there?\"}, {\"from\": \"gpt\", "
        "\"value\": \"three\"}]}]";
    Run r;
    char path[512];
    program_start(&r);
    write_file(&r, "q.json", official, strlen(official), path, sizeof path);
    run(&r, "eval", "order", "-q", path, "--images", IMAGES);
    assert_int_equal(r.status, 1);
    assert_memory_equal(r.out, "2 answers of ", 13);
    assert_non_null(strstr(r.err, "unreadable image: 1"));
    assert_non_null(strstr(r.err, "nothing.jpg"));
    run(&r, "eval", "order", "-q", path);
    assert_message(&r, 1, "--images");
    write_file(&r, "l.jsonl", llava, strlen(llava), path, sizeof path);
    run(&r, "eval", "order", "-q", path, "--images", IMAGES);
    expect(&r, 0, NULL);
    assert_memory_equal(r.out, "1 answer of ", 12);
    write_file(&r, "t.json", talk, strlen(talk), path, sizeof path);
    run(&r, "eval", "order", "-q", path, "--images", IMAGES, "--json", "-");
    expect(&r, 0, NULL);
    json_t *result = parsed(r.out);
    const json_t *items = json_object_get(result, "items");
    assert_int_equal(json_array_size(items), 2);
    const json_t *second = json_array_get(items, 1);
    assert_string_equal(json_string_value(json_object_get(second, "id")), "a:2");
    assert_string_equal(json_string_value(json_object_get(second, "image")), "sailboat.jpg");
    json_decref(result);
    run_end(&r);
}

static void test_program_usage(void **state) {
    (void)state;
    Run r;
    char path[512];
    program_start(&r);
    run(&r, "eval", "order");
    assert_message(&r, 2, "nothing to measure");
    run(&r, "eval", "order", "a", "b");
    assert_message(&r, 2, "one file");
    run(&r, "eval", "order", "--from", "x", "a");
    assert_message(&r, 2, "--from");
    run(&r, "eval", "order", "--fixed-share", "101", "a");
    assert_message(&r, 2, "--fixed-share");
    run(&r, "eval", "order", "-q", "no/such.jsonl");
    assert_message(&r, 1, "no/such.jsonl");
    run(&r, "eval", "order", "-q", "--from", r.folder);
    assert_message(&r, 1, ".json");
    write_file(&r, "plain.txt", "hello\n", 6, path, sizeof path);
    run(&r, "eval", "order", "-q", path);
    assert_message(&r, 1, "plain.txt", "not JSON");
    write_file(&r, "empty.txt", "", 0, path, sizeof path);
    run(&r, "eval", "order", "-q", path);
    assert_message(&r, 1, "empty.txt", "is empty");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_strategies), cmocka_unit_test(test_program_from),
        cmocka_unit_test(test_program_graphs),     cmocka_unit_test(test_program_calculations),
        cmocka_unit_test(test_program_questions),  cmocka_unit_test(test_program_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
