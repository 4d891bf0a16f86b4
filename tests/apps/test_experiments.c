/* The experiments of data/prep in the least: their generators give the same bytes again, the program
 * reads what they write, and their results have numbers, intervals and commands. */
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

/* Runs a script in the run's folder; its output is in r/log. */
static void script(const Run *r, const char *words) {
    char command[1600], path[400];
    const char *program = getenv("EASYFIRST");
    size_t size;
    snprintf(command, sizeof command,
             "tree=$PWD; cd '%s' && EASYFIRST=\"$tree/%s\" PYTHONDONTWRITEBYTECODE=1 python3 "
             "\"$tree\"/data/prep/%s >log 2>&1",
             r->folder, program ? program : "build/easyfirst", words);
    if (program && program[0] == '/')
        snprintf(command, sizeof command,
                 "tree=$PWD; cd '%s' && PYTHONDONTWRITEBYTECODE=1 python3 \"$tree\"/data/prep/%s "
                 ">log 2>&1",
                 r->folder, words);
    if (!system(command)) return;
    path_in(path, sizeof path, r, "log");
    char *log = file_bytes(path, &size);
    fail_msg("%s: %.*s", words, log ? (int)size : 0, log ? log : "");
}

static char *text_of(const Run *r, const char *name) {
    char path[400];
    size_t size;
    path_in(path, sizeof path, r, name);
    char *bytes = file_bytes(path, &size), *text = bytes ? strndup(bytes, size) : NULL;
    if (!text) fail_msg("%s is missing", path);
    free(bytes);
    return text;
}

static void assert_same_files(const Run *r, const char *a, const char *b, bool same) {
    char *x = text_of(r, a), *y = text_of(r, b);
    assert_int_equal(!strcmp(x, y), same);
    free(x), free(y);
}

static json_t *result_of(const Run *r, const char *name) {
    char path[400];
    json_error_t wrong;
    path_in(path, sizeof path, r, name);
    json_t *result = json_load_file(path, 0, &wrong);
    if (!result) fail_msg("%s: %s", path, wrong.text);
    return result;
}

/* Rows with a value in its interval, and commands of the program. */
static void check_result(const Run *r, const char *name, size_t rows, const char *command) {
    json_t *result = result_of(r, name), *row;
    size_t i;
    bool found = false;
    assert_int_equal(json_array_size(json_object_get(result, "rows")), rows);
    json_array_foreach(json_object_get(result, "rows"), i, row) {
        const double value = json_number_value(json_object_get(row, "value"));
        assert_true(json_is_number(json_object_get(row, "low")) &&
                    json_is_number(json_object_get(row, "high")));
        assert_true(json_number_value(json_object_get(row, "low")) <= value + 1e-9);
        assert_true(json_number_value(json_object_get(row, "high")) >= value - 1e-9);
        assert_non_null(json_string_value(json_object_get(row, "name")));
    }
    json_array_foreach(json_object_get(result, "commands"), i, row) {
        assert_memory_equal(json_string_value(row), "easyfirst ", 10);
        found |= strstr(json_string_value(row), command) != NULL;
    }
    assert_true(found);
    json_decref(result);
}

static bool no_python(void) {
    return system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null") != 0;
}

static void test_graphs(void **state) {
    (void)state;
    if (no_python()) skip();
    Run r;
    char path[400], answers[400], bytes[600];
    run_start(&r);
    script(&r, "star_graphs.py a --degree 3 --length 4 --train 30 --test 5");
    script(&r, "star_graphs.py b --degree 3 --length 4 --train 30 --test 5");
    script(&r, "star_graphs.py c --degree 3 --length 4 --train 30 --test 5 --seed 2");
    script(&r, "star_graphs.py d --degree 3 --length 4 --train 7 --test 5");
    assert_same_files(&r, "a/train.txt", "b/train.txt", true);
    assert_same_files(&r, "a/test.txt", "b/test.txt", true);
    assert_same_files(&r, "a/train.txt", "c/train.txt", false);
    assert_same_files(&r, "a/test.txt", "d/test.txt", true);
    /* The program's reader checks that a path is one, and gives it as the target. */
    path_in(path, sizeof path, &r, "a/test.txt");
    path_in(answers, sizeof answers, &r, "eval");
    run(&r, "eval", "text", "-m", "data/bundled/model", "--task", "exact", path, "--lengths",
        "target", "--steps", "1", "--out", answers, "-q");
    expect(&r, 0, NULL);
    char *targets = text_of(&r, "eval/test.txt.targets.txt"), *test = text_of(&r, "a/test.txt");
    assert_int_equal(count_lines(targets), 5);
    char *at = test;
    for (char *line = strtok(targets, "\n"); line; line = strtok(NULL, "\n")) {
        at = strchr(at, '=') + 1; /* the targets are the paths, of four nodes */
        assert_memory_equal(at, line, strlen(line));
        int commas = 0;
        for (const char *c = line; *c; c++) commas += *c == ',';
        assert_int_equal(commas, 3);
    }
    /* Of a right path, one in which a node is another, and one that stops, the first counts. */
    snprintf(bytes, sizeof bytes, "5,2,8\n5,9,8\n5,2\n");
    write_file(&r, "answers.txt", bytes, strlen(bytes), answers, sizeof answers);
    snprintf(bytes, sizeof bytes, "5,2,8\n5,2,8\n5,2,8\n");
    write_file(&r, "paths.txt", bytes, strlen(bytes), path, sizeof path);
    run(&r, "score", "text", "--metric", "exact", "--json", answers, path);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "33.3333"));
    free(targets), free(test);
    run_end(&r);
}

static void test_facts(void **state) {
    (void)state;
    if (no_python()) skip();
    Run r;
    run_start(&r);
    script(&r, "reversal.py one --facts-only --pairs 6 --both 3");
    script(&r, "reversal.py two --facts-only --pairs 6 --both 3");
    assert_same_files(&r, "one/facts/train.jsonl", "two/facts/train.jsonl", true);
    char *train = text_of(&r, "one/facts/train.jsonl"),
         *turned = text_of(&r, "one/facts/reversed.jsonl");
    assert_int_equal(count_lines(train), 6 + 2 * 3);
    assert_int_equal(count_lines(turned), 6);
    /* What is asked the other way round is not learned in those words. */
    for (char *line = strtok(turned, "\n"); line; line = strtok(NULL, "\n")) {
        char *prompt = strstr(line, "\"inputs\": \"") + 11;
        *strchr(prompt, '"') = 0;
        assert_null(strstr(train, prompt));
    }
    free(train), free(turned);
    run_end(&r);
}

static void test_trained(void **state) {
    (void)state;
    if (no_python()) skip();
    Run r;
    run_start(&r);
    script(&r, "planning.py p --small --graphs 40 --questions 6 --steps 8 --width 32 --threads 1");
    check_result(&r, "p/planning.json", 3, "train adapt");
    script(&r, "reversal.py v --small --pairs 4 --both 4 --steps 4 --width 32 --threads 1");
    check_result(&r, "v/reversal.json", 6, "eval text");
    char *svg = text_of(&r, "p/planning.svg"), *table = text_of(&r, "v/reversal.md");
    assert_non_null(strstr(svg, "</svg>"));
    assert_int_equal(count_lines(table), 5);
    free(svg), free(table);
    run_end(&r);
}

static void test_instruction(void **state) {
    (void)state;
    if (no_python()) skip();
    Run r;
    char path[400], words[1200], model[400];
    run_start(&r);
    write_file(&r, "a.de", "Handbuch\nEmacs\n", 15, path, sizeof path);
    write_file(&r, "a.en", "manual\nEmacs\n", 13, path, sizeof path);
    write_file(&r, "d.tsv", "Werkzeug\ttool\n", 14, path, sizeof path);
    assert_non_null(realpath("data/bundled/model", model));
    snprintf(
        words, sizeof words,
        "instruction.py out '%s' --source a.de --target a.en --demonstrations d.tsv --threads 1",
        model);
    script(&r, words);
    check_result(&r, "out/instruction.json", 5, "--other-prompts");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_trained),
        cmocka_unit_test(test_instruction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
