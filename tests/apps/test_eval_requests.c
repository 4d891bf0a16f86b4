/* `easyfirst eval` with models that have no place of their own for answers, as every public
 * checkpoint: requests do not depend on each other, long prompts become what was asked for, and no
 * line is dropped without a word. */
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

#define TOKENIZER "data/bundled/model/language/sentencepiece.bpe.model"
#define BUNDLED   "data/bundled/model"
#define IMAGES    "data/bundled/images"

enum { PATH = 512 };

static void make_model(Run *r, char model[PATH]) {
    path_in(model, PATH, r, "model");
    run(r, "new", model, "--tokenizer", TOKENIZER, "--width", "64", "--heads", "4", "--layers", "2",
        "--ffn", "128");
    assert_int_equal(r->status, 0);
}

static json_t *json_in(const char *folder, const char *name) {
    char path[2 * PATH];
    json_error_t where;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *json = json_load_file(path, 0, &where);
    if (!json) fail_msg("%s: %s", path, where.text);
    return json;
}

static char *text_in(const char *folder, const char *name) {
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *text = file_bytes(path, NULL);
    if (!text) fail_msg("%s is missing", path);
    return text;
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    char *x = text_in(a, name), *y = text_in(b, name);
    if (strcmp(x, y) != 0) fail_msg("%s differs in %s and %s", name, a, b);
    free(x), free(y);
}

static json_int_t integer_at(const json_t *object, const char *a, const char *b) {
    const json_t *value = json_object_get(object, a);
    if (b) value = json_object_get(value, b);
    if (!json_is_integer(value)) fail_msg("no number %s %s", a, b ? b : "");
    return json_integer_value(value);
}

/* "word " so many times; the caller's to free. */
static char *words(int count) {
    char *text = calloc((size_t)count + 1, 5);
    assert_non_null(text);
    for (int i = 0; i < count; i++) memcpy(text + 5 * (size_t)i, i % 3 ? "ein  " : "zwei ", 5);
    return text;
}

typedef struct Line {
    int prompt, target; /* words of each */
} Line;

static void write_lines(const Run *r, const char *name, const Line *lines, int count, char *path) {
    char *bytes;
    size_t size;
    FILE *f = open_memstream(&bytes, &size);
    for (int i = 0; i < count; i++) {
        char *prompt = words(lines[i].prompt), *target = words(lines[i].target);
        fprintf(f, "{\"inputs\": \"%d: %s\", \"targets\": \"%s\"}\n", i, prompt, target);
        free(prompt), free(target);
    }
    fclose(f);
    write_file(r, name, bytes, size, path, PATH);
    free(bytes);
}

/* ---- A request must not depend on its neighbours. ---- */

/* Prompts and targets that fit one by one, but none of them beside the longest of the others; two
 * that cannot be answered at all. */
static const Line mixed[] = {{3, 1},   {301, 7}, {11, 377}, {2, 201},  {401, 3}, {77, 1},
                             {1, 430}, {640, 2}, {5, 2},    {150, 99}, {4, 700}, {233, 41}};
enum { MIXED = sizeof mixed / sizeof mixed[0], TOO_LONG = 7, ANSWER_TOO_LONG = 10 };

static void test_mixed(void **state) {
    (void)state;
    Run r;
    char model[PATH], path[PATH], single[PATH], out[3][PATH];
    static const char *const sizes[] = {"1", "1111", "100000"};
    run_start(&r);
    make_model(&r, model);
    write_lines(&r, "mixed.jsonl", mixed, MIXED, path);
    for (int i = 0; i < 3; i++) {
        path_in(out[i], PATH, &r, sizes[i]);
        run(&r, "eval", "text", "-q", "-m", model, "--task", "exact", path, "--lengths", "target",
            "--steps", "3", "--batch-tokens", (char *)sizes[i], "--out", out[i]);
        assert_int_equal(r.status, 1); /* an answer of 700 words is no matter of the prompt */
        assert_non_null(strstr(r.err, "skipped, not scored: 1 of 12"));
        assert_non_null(strstr(r.err, "unanswered: prompt that cannot be read: 1 (mixed:11"));
        static const char *const files[] = {"answers.jsonl", "unanswered.jsonl", "result.json",
                                            "mixed.answers.txt"};
        for (int f = 0; f < 4 && i; f++) assert_same_file(out[0], out[i], files[f]);
    }
    json_t *result = json_in(out[0], "result.json");
    assert_int_equal(integer_at(result, "questions", NULL), MIXED);
    assert_int_equal(integer_at(result, "answered", NULL), MIXED - 2);
    assert_int_equal(integer_at(result, "unanswered", NULL), 1);
    assert_int_equal(integer_at(result, "long_prompts", "skipped"), 1);
    json_decref(result);
    char *unanswered = text_in(out[0], "unanswered.jsonl");
    assert_int_equal(count_lines(unanswered), 2);
    free(unanswered);
    /* Each by itself. */
    char *all = text_in(out[2], "mixed.answers.txt"), *at = all;
    for (int i = 0; i < MIXED; i++) {
        if (i == TOO_LONG) continue;
        char *end = strchr(at, '\n'), name[40];
        *end = 0;
        snprintf(name, sizeof name, "one-%d", i);
        path_in(single, PATH, &r, name);
        Line alone[MIXED];
        memcpy(alone, mixed, sizeof alone);
        /* The number in the prompt stays: the others are of one word. */
        for (int k = 0; k < MIXED; k++)
            if (k != i) alone[k] = (Line){0, 1};
        char lines[PATH];
        write_lines(&r, "one.jsonl", alone, i + 1, lines);
        if (i % 4 == 0) {
            run(&r, "eval", "text", "-q", "-m", model, "--task", "exact", lines, "--lengths",
                "target", "--steps", "3", "--out", single);
            char *answers = text_in(single, "one.answers.txt"), *last = answers;
            for (int k = 0; k < i; k++) last = strchr(last, '\n') + 1;
            *strchr(last, '\n') = 0;
            assert_string_equal(last, at);
            free(answers);
        }
        at = end + 1;
    }
    free(all);
    run_end(&r);
}

/* ---- Long prompts. ---- */

static double exact_of(const json_t *result) {
    const json_t *file =
        json_array_get(json_object_get(json_object_get(result, "score"), "files"), 0);
    const json_t *value = json_object_get(file, "exact_match");
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* A file whose targets are the answers that the model gives, but for the third line, which is too
 * long: it is out, or wrong, or answered from its last tokens. */
static void test_policies(void **state) {
    (void)state;
    static const Line lines[] = {{9, 1}, {20, 1}, {777, 1}, {31, 1}};
    static const char *const policies[] = {"skip", "refuse", "keep-last"};
    Run r;
    char model[PATH], path[PATH], out[PATH];
    run_start(&r);
    make_model(&r, model);
    write_lines(&r, "first.jsonl", lines, 4, path);
    path_in(out, PATH, &r, "first");
    run(&r, "eval", "text", "-q", "-m", model, "--task", "exact", path, "--length", "3",
        "--long-prompts", "keep-last", "--out", out);
    assert_int_equal(r.status, 0);
    char *answers = text_in(out, "first.answers.txt"), *at = answers, *bytes;
    size_t size;
    FILE *f = open_memstream(&bytes, &size);
    for (int i = 0; i < 4; i++) {
        char *prompt = words(lines[i].prompt), *end = strchr(at, '\n');
        *end = 0;
        json_t *line = json_object();
        json_object_set_new(line, "inputs", json_sprintf("%d: %s", i, prompt));
        json_object_set_new(line, "targets", json_string(at));
        json_dumpf(line, f, 0);
        fputc('\n', f);
        json_decref(line);
        free(prompt);
        at = end + 1;
    }
    fclose(f);
    free(answers);
    write_file(&r, "right.jsonl", bytes, size, path, PATH);
    free(bytes);
    for (int p = 0; p < 3; p++) {
        path_in(out, PATH, &r, policies[p]);
        for (int again = 0; again < 2; again++) { /* resumed, all is as it was */
            run(&r, "eval", "text", "-q", "-m", model, "--task", "exact", path, "--length", "3",
                "--long-prompts", (char *)policies[p], "--out", out);
            assert_int_equal(r.status, p == 1);
            json_t *result = json_in(out, "result.json");
            assert_int_equal(integer_at(result, "long_prompts", "skipped"), p == 0);
            assert_int_equal(integer_at(result, "long_prompts", "shortened"), p == 2);
            assert_true((integer_at(result, "long_prompts", "dropped_tokens") > 200) == (p == 2));
            double exact = exact_of(result);
            assert_true(p == 1 ? exact == 75 : exact == 100);
            assert_non_null(strstr(r.err, p == 0   ? "skipped, not scored: 1 of 4"
                                          : p == 1 ? "unanswered: prompt that cannot be read: 1"
                                                   : "shortened: 1 of 4"));
            json_decref(result);
        }
        char *text = text_in(out, "right.targets.txt");
        assert_int_equal(count_lines(text), p == 0 ? 3 : 4);
        free(text);
    }
    /* skip is the default, and a file of nothing else has no score. */
    static const Line long_ones[] = {{777, 1}, {888, 1}};
    write_lines(&r, "long.jsonl", long_ones, 2, path);
    path_in(out, PATH, &r, "long");
    run(&r, "eval", "text", "-q", "-m", model, "--task", "translation", path, "--length", "3",
        "--out", out);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.err, "skipped, not scored: 2 of 2"));
    json_t *result = json_in(out, "result.json");
    json_t *file = json_array_get(json_object_get(json_object_get(result, "score"), "files"), 0);
    assert_int_equal(integer_at(file, "skipped", NULL), 2);
    assert_null(json_object_get(file, "bleu"));
    json_decref(result);
    run_end(&r);
}

/* eval order asks all that fit, and tells the others. */
static void test_order(void **state) {
    (void)state;
    Run r;
    char model[PATH], path[PATH];
    run_start(&r);
    make_model(&r, model);
    write_lines(&r, "mixed.jsonl", mixed, MIXED, path);
    run(&r, "eval", "order", "-q", "-m", model, path, "--lengths", "target", "--steps", "3",
        "--json", "-");
    assert_int_equal(r.status, 1);
    json_t *json = json_loads(r.out, 0, NULL);
    assert_non_null(json);
    assert_int_equal(integer_at(json, "answers", NULL), MIXED - 2);
    assert_int_equal(integer_at(json, "long_prompts", "skipped"), 1);
    json_decref(json);
    run(&r, "eval", "order", "-q", "-m", model, path, "--length", "5", "--long-prompts",
        "keep-last", "--json", "-");
    assert_int_equal(r.status, 0);
    json = json_loads(r.out, 0, NULL);
    assert_int_equal(integer_at(json, "answers", NULL), MIXED);
    assert_int_equal(integer_at(json, "long_prompts", "shortened"), 1);
    json_decref(json);
    run_end(&r);
}

/* ---- Nothing is dropped without a word. ---- */

static void test_dropped(void **state) {
    (void)state;
    static const char lines[] =
        "{\"question_id\":\"1\",\"image\":\"tractor.jpg\",\"text\":\"What is it?\"}\n"
        "not json\n"
        "{\"image\":\"tractor.jpg\",\"text\":\"What colour is it?\"}\n"
        "{\"question_id\":\"1\",\"image\":\"tractor.jpg\",\"text\":\"Is it red?\"}\n"
        "{\"question_id\":\"2\",\"image\":\"tractor.jpg\",\"text\":\"Is it \\ud800?\"}\n";
#define OFFICIAL(text)       \
    "{\"question\": \"" text \
    "\", \"imageId\": \"tractor\", \"answer\": \"yes\", \"isBalanced\": true}"
    static const char official[] = "{\"1\": " OFFICIAL("Is it red?") ",\n\"2\": " OFFICIAL(
        "Is it blue?") ",\n\"1\": " OFFICIAL("Is it a cat?") "}\n";
    Run r;
    char path[PATH], out[PATH];
    run_start(&r);
    setenv("EASYFIRST_MODEL", BUNDLED, 1);
    write_file(&r, "q.jsonl", lines, sizeof lines - 1, path, sizeof path);
    path_in(out, PATH, &r, "lines");
    run(&r, "eval", "gqa", "-q", path, "--images", IMAGES, "--out", out);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "left out: line that is not a JSON object: 2 (the first: "));
    assert_non_null(strstr(r.err, "q.jsonl: line 2: "));
    assert_non_null(strstr(r.err, "left out: line without an id: 1 ("));
    assert_non_null(strstr(r.err, "left out: question that occurs twice: 1 ("));
    json_t *result = json_in(out, "result.json");
    assert_int_equal(integer_at(result, "left_out", NULL), 4);
    assert_int_equal(integer_at(result, "questions", NULL), 1);
    json_t *skipped = json_object_get(result, "skipped");
    assert_int_equal(integer_at(skipped, "line without an id", "count"), 1);
    json_decref(result);
    write_file(&r, "q.json", official, sizeof official - 1, path, sizeof path);
    path_in(out, PATH, &r, "official");
    run(&r, "eval", "gqa", "-q", path, "--images", IMAGES, "--out", out);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "left out: question that occurs twice: 1 ("));
    /* A folder of parts is known by what is in its files. */
    char folder[PATH];
    path_in(folder, PATH, &r, "parts"), path_in(out, PATH, &r, "parts-out");
    assert_int_equal(mkdir(folder, 0700), 0);
    for (int change = 0; change < 2; change++) {
        static const char *const parts[] = {"{\"1\": " OFFICIAL("Is it red?") "}",
                                            "{\"1\": " OFFICIAL("Is it blue?") "}"};
        write_file(&r, "parts/1.json", parts[change], strlen(parts[change]), path, sizeof path);
        run(&r, "eval", "gqa", "-q", folder, "--images", IMAGES, "--out", out);
        if (!change) assert_int_equal(r.status, 0);
    }
    assert_message(&r, 1, "other settings", "\"1.json\"");
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

/* GQA's script scores every question; --long-prompts skip leaves those out that do not fit, in both
 * formats. */
static void test_gqa_policies(void **state) {
    (void)state;
    Run r;
    char path[PATH], out[PATH], name[40];
    char *lengthy = words(600);
    run_start(&r);
    setenv("EASYFIRST_MODEL", BUNDLED, 1);
    for (int official = 0; official < 2; official++) {
        json_t *all = json_object();
        char *bytes = NULL;
        size_t size;
        FILE *f = open_memstream(&bytes, &size);
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "%d", i + 1);
            json_t *one = json_pack("{s:s, s:s, s:s, s:b}", official ? "question" : "text",
                                    i == 1 ? lengthy : "Is it red?", official ? "imageId" : "image",
                                    "tractor.jpg", "answer", "no", "isBalanced", 1);
            if (!official) json_object_set_new(one, "question_id", json_string(name));
            if (!official) json_dumpf(one, f, 0), fputc('\n', f);
            json_object_set_new(all, name, one);
        }
        if (official) json_dumpf(all, f, 0);
        fclose(f);
        json_decref(all);
        write_file(&r, official ? "q.json" : "q.jsonl", bytes, size, path, sizeof path);
        free(bytes);
        for (int skip = 0; skip < 2; skip++) {
            snprintf(name, sizeof name, "out-%d-%d", official, skip);
            path_in(out, PATH, &r, name);
            run(&r, "eval", "gqa", "-q", path, "--images", IMAGES, "--out", out,
                skip ? "--long-prompts" : NULL, "skip");
            assert_int_equal(r.status, !skip);
            json_t *result = json_in(out, "result.json");
            assert_int_equal(integer_at(result, "questions", NULL), 3);
            assert_int_equal(integer_at(result, "unanswered", NULL), !skip);
            assert_int_equal(integer_at(result, "long_prompts", "skipped"), skip);
            assert_int_equal(integer_at(result, "score", "questions"), skip ? 2 : 3);
            json_decref(result);
            json_t *predictions = json_in(out, "predictions.json");
            assert_int_equal(json_array_size(predictions), skip ? 2 : 3);
            json_decref(predictions);
        }
    }
    free(lengthy);
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

/* Files of another kind, and bytes that are no record. */
static void test_kinds(void **state) {
    (void)state;
    static const char array[] =
        "[{\"inputs\": \"a\", \"targets\": \"b\"},\n{\"inputs\": \"c\", \"targets\": \"d\"}]\n";
    static const char pairs[] = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
    static char *const cases[] = {"tests/golden/cases/wrapped.json",
                                  "tests/golden/cases/utf16.json",
                                  "tests/golden/cases/fake.parquet"};
    static const char *const kinds[] = {"{\"data\": [...]}", "UTF-16", "Parquet"};
    Run r;
    char path[PATH], out[PATH];
    run_start(&r);
    path_in(out, PATH, &r, "out");
    for (int i = 0; i < 3; i++) {
        run(&r, "eval", "gqa", "-m", "no/model", cases[i], "--images", IMAGES, "--out", out);
        assert_message(&r, 1, cases[i], kinds[i]);
        run(&r, "eval", "text", "-m", "no/model", "--task", "exact", cases[i], "--out", out);
        assert_message(&r, 1, cases[i], i ? kinds[i] : "\"inputs\"");
        run(&r, "score", "gqa", cases[i], cases[i]);
        assert_int_equal(r.status, 1);
    }
    write_file(&r, "array.jsonl", array, sizeof array - 1, path, sizeof path);
    run(&r, "eval", "text", "-m", "no/model", "--task", "exact", path, "--out", out);
    assert_message(&r, 1, "no/model"); /* an array is read, too */
    write_file(&r, "pairs.jsonl", pairs, sizeof pairs - 1, path, sizeof path);
    run(&r, "eval", "text", "-m", "no/model", "--task", "exact", path, "--out", out);
    assert_message(&r, 1, "pairs.jsonl", "none of its 1 lines", "\"inputs\" is missing");
    /* 20 MB of brackets, as a file and as a line. */
    enum { SIZE = 20000000 };
    char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    for (size_t i = 0; i < SIZE; i++) bytes[i] = "[],"[i % 3];
    memcpy(bytes, "{\"inputs\": [", 12);
    write_file(&r, "big.jsonl", bytes, SIZE, path, sizeof path);
    run(&r, "eval", "text", "-m", "no/model", "--task", "exact", path, "--out", out);
    assert_message(&r, 1, "big.jsonl", "the line has more than");
    write_file(&r, "less.jsonl", bytes, SIZE / 2, path, sizeof path);
    run(&r, "eval", "text", "-m", "no/model", "--task", "exact", path, "--out", out);
    assert_message(&r, 1, "less.jsonl", "MiB of memory");
    run(&r, "eval", "gqa", "-m", "no/model", path, "--images", IMAGES, "--out", out);
    assert_message(&r, 1, "less.jsonl", "no questions");
    run(&r, "eval", "order", "-m", "no/model", "--graphs", path);
    assert_message(&r, 1, "less.jsonl", "MiB of memory");
    memset(bytes, '[', SIZE);
    write_file(&r, "big.jsonl", bytes, SIZE, path, sizeof path);
    run(&r, "score", "gqa", path, path);
    assert_message(&r, 1, "big.jsonl");
    free(bytes);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed),        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_order),        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_gqa_policies), cmocka_unit_test(test_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
