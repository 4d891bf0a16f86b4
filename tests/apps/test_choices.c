/* `ask`, `text` and `eval gqa` with answers that are chosen from given ones. */
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define PIC0   MODELS "image0.png"
#define PIC1   MODELS "image1.png"

static const char *const models[] = {MODELS "tiny-base", MODELS "tiny-xl", "data/bundled/model"};
enum { MODEL_COUNT = sizeof models / sizeof models[0] };

static void start(Run *r, const char *model) {
    run_start(r);
    setenv("EASYFIRST_MODEL", model, 1);
}

static json_t *json_of(const char *text) {
    json_t *json = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    if (!json) fail_msg("no JSON: %s", text);
    return json;
}

/* The texts and JSON of ask, and the table, agree. */
static void ask_one_of(void **state) {
    (void)state;
    for (int m = 0; m < MODEL_COUNT; m++) {
        Run r;
        char answer[64], line[128];
        start(&r, models[m]);
        run(&r, "ask", "-q", "--one-of", " left, right ,the dog", PIC0, "Where?");
        expect(&r, 0, NULL);
        snprintf(answer, sizeof answer, "%.*s", (int)strcspn(r.out, "\n"), r.out);
        assert_int_equal(count_lines(r.out), 1);
        run(&r, "ask", "-q", "--json", "--one-of", "left,right,the dog", PIC0, "Where?");
        expect(&r, 0, NULL);
        json_t *json = json_of(r.out), *choices = json_object_get(json, "choices");
        assert_string_equal(json_string_value(json_object_get(json, "answer")), answer);
        assert_null(json_object_get(json, "strategy"));
        assert_null(json_object_get(json, "hypotheses"));
        assert_int_equal(json_array_size(choices), 3);
        double sum = 0, best = 0;
        for (size_t i = 0; i < 3; i++) {
            const json_t *one = json_array_get(choices, i);
            double p = json_real_value(json_object_get(one, "probability"));
            sum += p;
            if (!strcmp(json_string_value(json_object_get(one, "text")), answer)) best = p;
        }
        assert_true(fabs(sum - 1) < 1e-6 && best >= 1.0 / 3 - 1e-6);
        assert_string_equal(json_string_value(json_object_get(json_array_get(choices, 1), "text")),
                            "right");
        run(&r, "ask", "-q", "--all-choices", "--one-of", "left,right,the dog", PIC0, "Where?");
        expect(&r, 0, NULL);
        snprintf(line, sizeof line, "%s\t%.4f\n", answer, best);
        assert_int_equal(strncmp(r.out, line, strlen(line)), 0);
        assert_int_equal(count_lines(r.out), 3);
        run(&r, "ask", "-q", "--all-choices", "--one-of", "yes,no", PIC0, PIC1, "Where?", "Is it?");
        expect(&r, 0, NULL);
        assert_int_equal(count_lines(r.out), 8);
        assert_int_equal(strncmp(r.out, PIC0 "\tWhere?\t", strlen(PIC0) + 8), 0);
        json_decref(json);
        run_end(&r);
    }
}

static void choices_from_a_file(void **state) {
    (void)state;
    Run r;
    char path[512], answer[64], lines[512];
    start(&r, models[1]);
    write_file(&r, "c.txt", "left, or\r\nright\nthe dog", 23, path, sizeof path);
    run(&r, "text", "-q", "--choices", path, "the dog is");
    expect(&r, 0, NULL);
    snprintf(answer, sizeof answer, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    snprintf(lines, sizeof lines, "%s\n\n%s\n", answer, answer);
    run_text(&r, "the dog is\n\nthe dog is\n", "text", "-q", "--choices", path);
    expect(&r, 0, lines);
    run_text(&r, "the dog is\n\nIs it?\n", "text", "-q", "--choices", path, "--all-choices");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 7);
    assert_non_null(strstr(r.out, "the dog is\tleft, or\t"));
    write_file(&r, "c.txt", "left\n\nright\n", 12, path, sizeof path);
    run(&r, "text", "-q", "--choices", path, "A");
    assert_message(&r, 1, "c.txt", "line 2 is empty");
    write_file(&r, "c.txt", "left\0\nright\n", 12, path, sizeof path);
    run(&r, "text", "-q", "--choices", path, "A");
    assert_message(&r, 1, "c.txt", "line 1 has a NUL byte");
    write_file(&r, "c.txt", "", 0, path, sizeof path);
    run(&r, "text", "-q", "--choices", path, "A");
    assert_message(&r, 1, "c.txt", "is empty");
    write_file(&r, "c.txt", "left\nri\x1bght\nleft\n", 17, path, sizeof path);
    run(&r, "text", "-q", "--choices", path, "A");
    assert_message(&r, 1, "c.txt", "choice ");
    assert_null(strchr(r.err, '\x1b'));
    run(&r, "text", "-q", "--choices", "/none/such", "A");
    assert_message(&r, 1, "/none/such");
    run_end(&r);
}

static void wrong_usage(void **state) {
    (void)state;
    Run r;
    static char *const with[][3] = {
        {"-n", "3", "--length"},
        {"--beam", "2", "--beam"},
        {"--samples", "2", "--samples"},
        {"--temperature", "1", "--temperature"},
        {"--strategy", "ar", "--strategy"},
        {"--steps", "4", "--steps"},
    };
    start(&r, models[0]);
    for (size_t i = 0; i < sizeof with / sizeof with[0]; i++) {
        run(&r, "ask", "--one-of", "a,b", with[i][0], with[i][1], PIC0, "Is it?");
        assert_message(&r, 2, with[i][2], "--one-of");
    }
    run(&r, "ask", "--one-of", "a,b", "--show", PIC0, "Is it?");
    assert_message(&r, 2, "--show");
    run(&r, "ask", "--one-of", "a,b", "--trace", "--json", PIC0, "Is it?");
    assert_message(&r, 2, "--trace");
    run(&r, "ask", "--one-of", "a,b", "--sure-threshold", "0", PIC0, "Is it?");
    assert_message(&r, 2, "--sure-threshold");
    run(&r, "ask", "--one-of", "a,b", "--choices", "f", PIC0, "Is it?");
    assert_message(&r, 2, "--one-of", "--choices");
    run(&r, "text", "--one-of", "a,b", "--json", "--all-choices", "Is it?");
    assert_message(&r, 2, "--all-choices");
    run(&r, "text", "--all-choices", "Is it?");
    assert_message(&r, 2, "--all-choices needs");
    run(&r, "text", "--choices", "-", "Is it?");
    assert_message(&r, 2, "standard input");
    run(&r, "text", "--one-of", "a,,b", "Is it?");
    assert_message(&r, 1, "choice 2 is empty");
    run(&r, "text", "--one-of", "", "Is it?");
    assert_message(&r, 2, "--one-of");
    run(&r, "text", "--one-of", " ,a", "Is it?");
    assert_message(&r, 1, "choice 1 is empty");
    run(&r, "text", "--one-of", "a,b,a", "Is it?");
    assert_message(&r, 1, "--one-of", "choice 3", "same as choice 1");
    run_end(&r);
}

/* A model without a length predictor chooses as well. */
static void without_a_length_predictor(void **state) {
    (void)state;
    Run r;
    start(&r, models[0]);
    unsetenv("EASYFIRST_MODEL");
    run(&r, "text", "-q", "--language", MODELS "tiny-base/language", "A");
    assert_message(&r, 1, "length");
    run(&r, "text", "-q", "--json", "--language", MODELS "tiny-base/language", "--one-of",
        "left,the dog", "A");
    expect(&r, 0, NULL);
    json_t *json = json_of(r.out), *one = json_array_get(json_object_get(json, "choices"), 1);
    assert_true(json_number_value(json_object_get(one, "length_score")) == 0);
    json_decref(json);
    run_end(&r);
}

/* ---- eval gqa --closed. ---- */

static const char questions[] =
    "{\"1\": {\"question\": \"Is it a dog?\", \"imageId\": \"image0.png\", \"answer\": \"yes\"},\n"
    "\"2\": {\"question\": \"Is it left or right?\", \"imageId\": \"image1.png\", \"answer\": "
    "\"left\"},\n"
    "\"3\": {\"question\": \"What is this?\", \"imageId\": \"image1.png\", \"answer\": \"dog\"},\n"
    "\"4\": {\"question\": \"What color is it?\", \"imageId\": \"image0.png\", \"answer\": "
    "\"red\"}}\n";
static const char choices[] =
    "{\"1\": {\"valid\": [\"yes\", \"no\", \"yes\"], \"plausible\": []},\n"
    "\"2\": {\"valid\": [\"left\", \"right\"], \"plausible\": []},\n"
    "\"3\": {\"valid\": [\"dog\", \"cat\", \"two\"], \"plausible\": []}}\n";

static char *answer_of(const Run *r, const char *out, const char *id) {
    char path[512], name[64], *text = NULL;
    snprintf(name, sizeof name, "%s/predictions.json", out);
    path_in(path, sizeof path, r, name);
    json_t *list = json_load_file(path, 0, NULL);
    if (!list) fail_msg("no %s", path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (!strcmp(json_string_value(json_object_get(one, "questionId")), id))
            text = strdup(json_string_value(json_object_get(one, "prediction")));
    }
    json_decref(list);
    return text;
}

static bool one_of(const char *text, const char *a, const char *b, const char *c) {
    return !strcmp(text, a) || !strcmp(text, b) || !strcmp(text, c);
}

static void closed_questions(void **state) {
    (void)state;
    for (int m = 0; m < MODEL_COUNT; m++) {
        Run r;
        char asked[512], valid[512], out[3][512], *found[3][4];
        static char *const most[3] = {"2", "3", NULL};
        start(&r, models[m]);
        write_file(&r, "q.json", questions, strlen(questions), asked, sizeof asked);
        write_file(&r, "c.json", choices, strlen(choices), valid, sizeof valid);
        for (int i = 0; i < 3; i++) {
            char name[8];
            snprintf(name, sizeof name, "out%d", i);
            path_in(out[i], sizeof out[i], &r, name);
            run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out[i], "--choices",
                valid, most[i] ? "--closed" : NULL, most[i]);
            expect(&r, 0, NULL);
            for (int q = 0; q < 4; q++)
                found[i][q] = answer_of(&r, name, (char[]){(char)('1' + q), 0});
        }
        for (int i = 0; i < 2; i++) {
            assert_true(one_of(found[i][0], "yes", "no", ""));
            assert_true(one_of(found[i][1], "left", "right", ""));
            assert_string_equal(found[i][0], found[0][0]);
            assert_string_equal(found[i][3], found[2][3]); /* no choices there */
        }
        assert_string_equal(found[0][2], found[2][2]); /* three are too many */
        assert_true(one_of(found[1][2], "dog", "cat", "two"));
        for (int i = 0; i < 3; i++)
            for (int q = 0; q < 4; q++) free(found[i][q]);
        char path[600];
        snprintf(path, sizeof path, "%s/result.json", out[0]);
        json_t *result = json_load_file(path, 0, NULL);
        const json_t *data = json_object_get(json_object_get(result, "settings"), "data");
        assert_int_equal(json_integer_value(json_object_get(data, "closed_questions")), 2);
        json_decref(result);
        run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out[0], "--choices", valid,
            "--closed", "3");
        assert_int_equal(r.status, 1); /* a folder of other settings */
        run_end(&r);
    }
}

static void closed_questions_wrong(void **state) {
    (void)state;
    static const char bad[] = "{\"1\": {\"valid\": [\"yes\", 3]}}\n", none[] = "{\"9\": {}}\n";
    Run r;
    char asked[512], path[512], out[512];
    start(&r, models[0]);
    write_file(&r, "q.json", questions, strlen(questions), asked, sizeof asked);
    path_in(out, sizeof out, &r, "out");
    run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out, "--closed", "2");
    assert_message(&r, 2, "--closed needs --choices");
    write_file(&r, "c.json", bad, strlen(bad), path, sizeof path);
    run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out, "--closed", "2",
        "--choices", path);
    assert_message(&r, 1, "c.json", "question 1", "not a text");
    run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out, "--closed", "2",
        "--choices", path, "--attention");
    assert_message(&r, 2, "--attention");
    write_file(&r, "c.json", none, strlen(none), path, sizeof path);
    run(&r, "eval", "gqa", "-q", asked, "--images", MODELS, "--out", out, "--closed", "2",
        "--choices", path);
    assert_message(&r, 1, "c.json", "none of the questions");
    run_end(&r);
}

static void eval_text_one_of(void **state) {
    (void)state;
    static const char lines[] = "{\"inputs\": \"Is it?\", \"targets\": \"A\"}\n"
                                "{\"inputs\": \"the dog is\", \"targets\": \"B\"}\n";
    Run r;
    char asked[512], out[512], path[600], *answers;
    start(&r, models[2]);
    write_file(&r, "t.jsonl", lines, strlen(lines), asked, sizeof asked);
    path_in(out, sizeof out, &r, "out");
    run(&r, "eval", "text", "-q", "--task", "choice", asked, "--out", out, "--one-of", "A,B");
    expect(&r, 0, NULL);
    snprintf(path, sizeof path, "%s/t.answers.txt", out);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    answers = calloc(1, 64);
    size_t size = fread(answers, 1, 63, file);
    fclose(file);
    assert_int_equal(size, 4);
    for (int i = 0; i < 2; i++) {
        char expected[8];
        run(&r, "text", "-q", "--one-of", "A,B", i ? "the dog is" : "Is it?");
        snprintf(expected, sizeof expected, "%.2s", answers + 2 * i);
        expect(&r, 0, expected);
    }
    free(answers);
    path_in(out, sizeof out, &r, "out2");
    run(&r, "eval", "text", "-q", "--task", "choice", asked, "--out", out, "--one-of", "A,B", "-n",
        "2");
    assert_message(&r, 2, "--one-of", "--length");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ask_one_of),       cmocka_unit_test(choices_from_a_file),
        cmocka_unit_test(wrong_usage),      cmocka_unit_test(without_a_length_predictor),
        cmocka_unit_test(closed_questions), cmocka_unit_test(closed_questions_wrong),
        cmocka_unit_test(eval_text_one_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
