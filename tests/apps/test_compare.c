/* `easyfirst eval compare` and `eval report` on folders that are made up: counts, differences and
 * intervals, refusals, the page; and on real ones of the bundled model. */
#include <math.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

enum { COUNT = 40 };

static void shell(const char *format, const char *a, const char *b) {
    char command[1200];
    snprintf(command, sizeof command, format, a, b);
    assert_int_equal(system(command), 0);
}

/* What a made-up evaluation of GQA says of a question. */
typedef struct Made {
    const char *target, *semantic;
    bool right;
} Made;

/* A folder with result.json and scored.jsonl; `count` questions. */
static void make_folder(const Run *r, const char *name, const Made *made, int count, bool backward,
                        char path[400]) {
    char file[400];
    path_in(path, 400, r, name);
    shell("mkdir -p %s%s", path, "");
    snprintf(file, sizeof file, "%s/result.json", name);
    static const char result[] =
        "{\"settings\": {\"command\": \"eval gqa\", \"model\": {\"name\": \"m<1>\"},"
        " \"data\": {\"images\": \"data/bundled/images\"}}, \"score\": {}}";
    char out[400], *text = calloc((size_t)count + 1, 400), *at = text;
    write_file(r, file, result, strlen(result), out, sizeof out);
    for (int k = 0; k < count; k++) {
        int i = backward ? count - 1 - k : k;
        at += sprintf(
            at,
            "{\"question_id\": \"q%d\", \"prompt\": \"Is <b>%d</b>?\", \"target\": "
            "\"%s\", \"answer\": %s, \"image\": \"tractor.jpg\", \"types\": "
            "{\"semantic\": \"%s\", \"detailed\": \"d%d\"}, \"scores\": {\"accuracy\": %d}}\n",
            i, i, made[i].target, made[i].right ? "\"yes & no\"" : "null", made[i].semantic, i % 5,
            made[i].right ? 100 : 0);
    }
    snprintf(file, sizeof file, "%s/scored.jsonl", name);
    write_file(r, file, text, strlen(text), out, sizeof out);
    free(text);
}

/* The first 10 are won, the next 4 lost; of the others every second is right in both. */
static void make_two(Made first[COUNT], Made second[COUNT]) {
    for (int i = 0; i < COUNT; i++) {
        first[i] = (Made){i % 2 ? "x" : "y", i < 12 ? "attr" : "rel", i % 2};
        if (i < 10) first[i].right = false;
        if (i >= 10 && i < 14) first[i].right = true;
        second[i] = first[i];
        if (i < 14) second[i].right = !first[i].right;
    }
}

static json_t *json_out(const Run *r) {
    json_t *json = json_loads(r->out, JSON_DISABLE_EOF_CHECK, NULL);
    if (!json) fail_msg("no JSON: %.200s", r->out);
    return json;
}

static double at(const json_t *json, const char *path) {
    char copy[200];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok(copy, "."); name; name = strtok(NULL, "."))
        json = json_object_get(json, name);
    if (!json_is_number(json)) fail_msg("no number %s", path);
    return json_number_value(json);
}

static void test_counts(void **state) {
    (void)state;
    Run r;
    Made first[COUNT], second[COUNT];
    char a[400], b[400];
    run_start(&r);
    make_two(first, second);
    make_folder(&r, "a", first, COUNT, false, a);
    make_folder(&r, "b", second, COUNT, true, b); /* another order */
    run(&r, "eval", "compare", a, b, "--json");
    expect(&r, 0, NULL);
    json_t *json = json_out(&r);
    assert_true(at(json, "won") == 10 && at(json, "lost") == 4 && at(json, "same") == 26);
    int right = 0;
    for (int i = 0; i < COUNT; i++) right += first[i].right;
    assert_true(fabs(at(json, "scores.accuracy.baseline") - 100.0 * right / COUNT) < 1e-6);
    assert_true(fabs(at(json, "scores.accuracy.difference") - 100.0 * 6 / COUNT) < 1e-6);
    /* 10 to 4 of 14 that changed: McNemar's exact p is 0.1796. */
    assert_true(fabs(at(json, "scores.accuracy.p_randomization") - 0.1796) < 0.015);
    /* The difference of a resample is a sum of 40 draws of +1 (1/4), -1 (1/10) and 0. */
    double sd = 100 * sqrt((14.0 / 40 - 0.15 * 0.15) / 40);
    assert_true(fabs(at(json, "scores.accuracy.low") - (15 - 1.96 * sd)) < 3);
    assert_true(fabs(at(json, "scores.accuracy.high") - (15 + 1.96 * sd)) < 3);
    assert_true(at(json, "by.semantic.attr.accuracy.won") == 10);
    assert_true(at(json, "by.semantic.attr.accuracy.lost") == 2);
    assert_true(at(json, "by.semantic.attr.accuracy.questions") == 12);
    assert_true(at(json, "by.semantic.rel.accuracy.lost") == 2);
    /* Two rows: Holm doubles the smaller p, and the other is not below that. */
    double attr = at(json, "by.semantic.attr.accuracy.p_randomization"),
           rel = at(json, "by.semantic.rel.accuracy.p_randomization");
    const double small = fmin(1, 2 * fmin(attr, rel));
    assert_true(fabs(at(json, "by.semantic.attr.accuracy.p_holm") -
                     (attr < rel ? small : fmax(small, attr))) < 1e-6);
    assert_true(fabs(at(json, "by.semantic.rel.accuracy.p_holm") -
                     (rel < attr ? small : fmax(small, rel))) < 1e-6);
    assert_null(
        json_object_get(json_object_get(json_object_get(json, "scores"), "accuracy"), "p_holm"));
    assert_string_equal(json_string_value(json_object_get(json, "correction")), "Holm");
    /* Five rows: in the order of their p each is at least the one before it, at most 1, and not below p. */
    double p[5], holm[5];
    for (int i = 0; i < 5; i++) {
        char path[100];
        snprintf(path, sizeof path, "by.detailed.d%d.accuracy.p_randomization", i);
        p[i] = at(json, path);
        snprintf(path, sizeof path, "by.detailed.d%d.accuracy.p_holm", i);
        holm[i] = at(json, path);
    }
    for (int i = 0; i < 5; i++) {
        int below = 0;
        double wanted = 0;
        for (int k = 0; k < 5; k++) {
            int rank = 0; /* of k among all five */
            for (int j = 0; j < 5; j++) rank += p[j] < p[k] || (p[j] == p[k] && j < k);
            if (p[k] <= p[i]) wanted = fmax(wanted, fmin(1, (5 - rank) * p[k])), below++;
        }
        assert_true(below >= 1 && fabs(holm[i] - wanted) < 1e-6);
    }
    json_decref(json);
    run(&r, "eval", "compare", a, b);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "questions 40: the second one won 10, lost 4, 26 are the same"));
    assert_non_null(strstr(r.out, "by semantic type"));
    assert_non_null(strstr(r.out, "p (Holm)"));
    assert_non_null(strstr(r.out, "by detailed type"));
    assert_non_null(strstr(r.out, "corrected by Holm's method"));
    /* Against itself. */
    run(&r, "eval", "compare", a, a, "--json");
    expect(&r, 0, NULL);
    json = json_out(&r);
    assert_true(at(json, "won") == 0 && at(json, "lost") == 0);
    assert_true(at(json, "scores.accuracy.p_bootstrap") == 1);
    json_decref(json);
    run_end(&r);
}

static void test_refused(void **state) {
    (void)state;
    Run r;
    Made first[COUNT], second[COUNT];
    char a[400], b[400], c[400], d[400], none[400];
    run_start(&r);
    make_two(first, second);
    make_folder(&r, "a", first, COUNT, false, a);
    make_folder(&r, "b", second, COUNT - 1, false, b);
    second[3].target = "z";
    make_folder(&r, "c", second, COUNT, false, c);
    make_folder(&r, "d", first, COUNT, false, d);
    path_in(none, sizeof none, &r, "none");
    run(&r, "eval", "compare", a, b);
    assert_message(&r, 1, "40 scored questions", "39", "same questions");
    run(&r, "eval", "compare", a, c);
    assert_message(&r, 1, "question q3", "another target");
    run(&r, "eval", "compare", a, none);
    assert_message(&r, 1, "none is not the folder", "finished evaluation");
    shell("rm %s/scored.jsonl%s", d, "");
    run(&r, "eval", "compare", a, d);
    assert_message(&r, 1, "scored.jsonl", "asks nothing twice");
    shell("echo '{\"settings\": {\"command\": \"eval text\"}, \"score\": {\"task\": \"number\"}}'"
          " > %s/result.json%s",
          c, "");
    run(&r, "eval", "compare", a, c);
    assert_message(&r, 1, "evaluation of gqa", "of number", "cannot be compared");
    run_end(&r);
}

/* The page: self-contained, escaped, with images, and the same again. */
static void test_page(void **state) {
    (void)state;
    Run r;
    Made first[COUNT], second[COUNT];
    char a[400], b[400], page[400], again[400];
    run_start(&r);
    make_two(first, second);
    make_folder(&r, "a", first, COUNT, false, a);
    make_folder(&r, "b", second, COUNT, false, b);
    path_in(page, sizeof page, &r, "page.html"), path_in(again, sizeof again, &r, "again.html");
    run(&r, "eval", "compare", a, b, "--report", page, "--answers", "3");
    expect(&r, 0, NULL);
    run(&r, "eval", "compare", a, b, "--report", again, "--answers", "3");
    size_t size, size_again;
    char *text = file_bytes(page, &size), *other = file_bytes(again, &size_again);
    assert_non_null(text);
    assert_true(size == size_again && !memcmp(text, other, size));
    assert_non_null(strstr(text, "Is &lt;b&gt;0&lt;/b&gt;?"));
    assert_non_null(strstr(text, "model m&lt;1&gt;"));
    assert_non_null(strstr(text, "<th>p, Holm</th>"));
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http://"));
    assert_null(strstr(text, "https://"));
    int cards = 0, images = 0;
    for (char *p = text; (p = strstr(p, "<li class=\"card\">")); p++) cards++;
    for (char *p = text; (p = strstr(p, "src=\"data:image/")); p++) images++;
    assert_int_equal(cards, 6);
    assert_int_equal(images, 6);
    free(text), free(other);
    run(&r, "eval", "report", a, page);
    expect(&r, 0, "");
    text = file_bytes(page, &size);
    assert_non_null(strstr(text, "The 23 worst answers, by accuracy"));
    free(text);
    run_end(&r);
}

/* Two real evaluations of translations; scores and intervals are those of `score text`. */
static void test_translations(void **state) {
    (void)state;
    Run r;
    char data[400], a[400], b[400], answers[600], other[600], targets[600];
    static const char *const texts[] = {"the dog runs", "a red house", "he sees the tree",
                                        "we are here",  "it is late",  "open the door"};
    char text[2000], *end = text;
    run_start(&r);
    for (int i = 0; i < 6; i++)
        end += sprintf(end, "{\"inputs\": \"Translate %d: %s\", \"targets\": \"%s\"}\n", i,
                       texts[(i + 1) % 6], texts[i]);
    write_file(&r, "de.jsonl", text, strlen(text), data, sizeof data);
    path_in(a, sizeof a, &r, "a"), path_in(b, sizeof b, &r, "b");
    run(&r, "eval", "text", "--task", "translation", data, "--length", "3", "--steps", "1", "-q",
        "--out", a);
    expect(&r, 0, NULL);
    run(&r, "eval", "text", "--task", "translation", data, "--length", "5", "--steps", "3", "-q",
        "--out", b);
    expect(&r, 0, NULL);
    run(&r, "eval", "compare", a, b, "--json");
    expect(&r, 0, NULL);
    json_t *mine = json_out(&r);
    snprintf(answers, sizeof answers, "%s/de.answers.txt", a);
    snprintf(other, sizeof other, "%s/de.answers.txt", b);
    snprintf(targets, sizeof targets, "%s/de.targets.txt", a);
    run(&r, "score", "text", "--json", "--baseline", answers, other, targets);
    expect(&r, 0, NULL);
    json_t *theirs = json_out(&r);
    static const char *const keys[] = {"baseline", "system",      "difference",     "low",
                                       "high",     "p_bootstrap", "p_randomization"};
    for (int k = 0; k < 7; k++) {
        char x[100], y[100];
        snprintf(x, sizeof x, "scores.chrf.%s", keys[k]);
        snprintf(y, sizeof y, "paired.chrf.%s", keys[k]);
        assert_true(fabs(at(mine, x) - at(theirs, y)) < 1e-6);
    }
    json_decref(mine), json_decref(theirs);
    /* Another tokenizer of BLEU would make the scores another measure. */
    run(&r, "eval", "text", "--task", "translation", data, "--length", "5", "--steps", "3", "-q",
        "--out", b, "--tokenize", "char");
    expect(&r, 0, NULL);
    run(&r, "eval", "compare", a, b);
    assert_message(&r, 1, "tokenizer", "13a", "char");
    run_end(&r);
}

/* The score so far is the score at the end. */
static void test_running(void **state) {
    (void)state;
    Run r;
    char data[400], out[400], log[400];
    static const char text[] = "{\"inputs\": \"12?\", \"targets\": \"12\"}\n"
                               "{\"inputs\": \"What?\", \"targets\": \"(B)\"}\n";
    run_start(&r);
    write_file(&r, "c.jsonl", text, strlen(text), data, sizeof data);
    path_in(out, sizeof out, &r, "out"), path_in(log, sizeof log, &r, "log");
    char command[2000];
    snprintf(command, sizeof command,
             "%s eval text --task choice %s --one-of A,B --out %s >/dev/null 2>%s",
             getenv("EASYFIRST") ? getenv("EASYFIRST") : "build/easyfirst", data, out, log);
    assert_int_equal(system(command), 0);
    size_t size;
    char *lines = file_bytes(log, &size), expected[100];
    snprintf(out + strlen(out), 20, "/result.json");
    json_t *result = json_load_file(out, 0, NULL);
    const json_t *files = json_object_get(json_object_get(result, "score"), "files");
    snprintf(expected, sizeof expected, "2 of 2 lines  accuracy %.1f so far",
             at(json_array_get(files, 0), "accuracy"));
    if (!strstr(lines, expected)) fail_msg("no \"%s\" in %s", expected, lines);
    json_decref(result);
    free(lines);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_page),    cmocka_unit_test(test_translations),
        cmocka_unit_test(test_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
