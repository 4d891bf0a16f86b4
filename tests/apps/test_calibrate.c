/* `easyfirst calibrate`, and what `ask` and `eval gqa` say afterwards. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

#define BUNDLED "data/bundled/model"
#define TINY    "tests/golden/models/tiny-base"
#define IMAGES  "data/bundled/images"
#define TRACTOR IMAGES "/tractor.jpg"

static const char *const nouns[] = {"cat",      "tractor",  "boat",   "car",   "dress", "bat",
                                    "lollipop", "house",    "tree",   "apple", "dog",   "lion",
                                    "elephant", "sailboat", "banana", "horse"};
static const char *const images[] = {"tractor", "elephant", "sailboat"};
enum { NOUNS = sizeof nouns / sizeof nouns[0], IMAGE_COUNT = 3, ASKED = NOUNS * IMAGE_COUNT };

typedef struct Bench {
    Run r;
    char model[400], questions[400], out[400];
} Bench;

/* The parts of a model, as links, with settings that may be changed. */
static void model_copy(const Bench *b, const char *from, const char *name, char path[400]) {
    static const char *const parts[] = {"language", "vision", "projector.safetensors",
                                        "length.safetensors"};
    char to[600], source[300];
    path_in(path, 400, &b->r, name);
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 4; i++) {
        snprintf(source, sizeof source, "%s/%s", from, parts[i]);
        snprintf(to, sizeof to, "%s/%s", path, parts[i]);
        char *real = realpath(source, NULL);
        assert_non_null(real);
        assert_int_equal(symlink(real, to), 0);
        free(real);
    }
    size_t size;
    snprintf(source, sizeof source, "%s/easyfirst.json", from);
    char *bytes = file_bytes(source, &size);
    snprintf(to, sizeof to, "%s/easyfirst.json", name);
    write_file(&b->r, to, bytes, size, source, sizeof source);
    free(bytes);
}

static json_t *json_in(const char *folder, const char *name) {
    char path[600];
    json_error_t wrong;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *json = json_load_file(path, 0, &wrong);
    if (!json) fail_msg("%s: %s", path, wrong.text);
    return json;
}

static void bench_open(Bench *b) {
    char path[500];
    run_start(&b->r);
    unsetenv("EASYFIRST_MODEL");
    model_copy(b, BUNDLED, "model", b->model);
    json_t *settings = json_in(b->model, "easyfirst.json");
    json_object_del(settings, "calibration");
    snprintf(path, sizeof path, "%s/easyfirst.json", b->model);
    assert_int_equal(json_dump_file(settings, path, 0), 0);
    json_decref(settings);
    path_in(b->out, sizeof b->out, &b->r, "out");
    json_t *all = json_object();
    for (int i = 0; i < ASKED; i++) {
        char id[16], text[64];
        const char *noun = nouns[i % NOUNS], *image = images[i / NOUNS];
        snprintf(id, sizeof id, "q%d", i);
        snprintf(text, sizeof text, "Is there a %s?", noun);
        json_object_set_new(all, id,
                            json_pack("{s:s, s:s, s:s, s:b}", "question", text, "imageId", image,
                                      "answer", strcmp(noun, image) ? "no" : "yes", "isBalanced",
                                      1));
    }
    char *text = json_dumps(all, 0);
    write_file(&b->r, "questions.json", text, strlen(text), b->questions, sizeof b->questions);
    free(text);
    json_decref(all);
}

static json_t *printed(const Run *r) {
    json_error_t wrong;
    json_t *json = json_loads(r->out, 0, &wrong);
    if (!json) fail_msg("%s: %s\n%s", wrong.text, r->out, r->err);
    return json;
}

static double number(const json_t *json, const char *name) {
    const json_t *value = json_object_get(json, name);
    if (!json_is_number(value)) fail_msg("no number \"%s\"", name);
    return json_number_value(value);
}

static void evaluate(Bench *b, const char *out) {
    run(&b->r, "eval", "gqa", "-q", "-m", b->model, b->questions, "--images", IMAGES, "--out",
        (char *)out, "--steps", "3");
    assert_int_equal(b->r.status, 0);
}

/* The answers of the folder, by a reading of its own: Brier score and share of unsure ones. */
static void check_report(const Bench *b, const json_t *report, const json_t *entry) {
    char path[600];
    size_t size;
    snprintf(path, sizeof path, "%s/answers.jsonl", b->out);
    char *bytes = file_bytes(path, &size);
    json_t *questions = json_load_file(b->questions, 0, NULL);
    double brier = 0;
    int count = 0, unsure = 0, right_count = 0, right_unsure = 0, sure_right = 0;
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *answer = json_loads(line, 0, NULL);
        const char *id = json_string_value(json_object_get(answer, "question_id"));
        const char *gold =
            json_string_value(json_object_get(json_object_get(questions, id), "answer"));
        const json_t *metadata = json_object_get(answer, "metadata");
        assert_true(number(metadata, "score") <= 0 && number(metadata, "length") >= 1);
        double z = number(entry, "slope") * number(metadata, "score") + number(entry, "offset");
        double p = 1 / (1 + exp(-z));
        bool right = !strcmp(json_string_value(json_object_get(answer, "text")), gold);
        brier += (p - right) * (p - right);
        bool doubtful = p < number(entry, "threshold");
        count++, unsure += doubtful, right_count += right, right_unsure += doubtful && right;
        sure_right += !doubtful && right;
        json_decref(answer);
    }
    assert_int_equal(count, ASKED);
    assert_true(fabs(number(report, "brier") - brier / count) < 1e-9);
    assert_true(fabs(number(report, "unsure") - (double)unsure / count) < 1e-9);
    assert_true(fabs(number(report, "right_unsure") - (double)right_unsure / right_count) < 1e-9);
    assert_true(fabs(number(report, "sure_accuracy") - (double)sure_right / (count - unsure)) <
                1e-9);
    json_decref(questions);
    free(bytes);
}

static void check_ask(Bench *b, const json_t *entry) {
    char *question = (char *)"What is it?";
    run(&b->r, "ask", "-q", "-m", b->model, "--json", TRACTOR, question);
    json_t *answer = printed(&b->r);
    double z = number(entry, "slope") * number(answer, "score") + number(entry, "offset");
    double p = number(answer, "probability");
    assert_true(fabs(p - 1 / (1 + exp(-z))) < 1e-6);
    assert_int_equal(json_is_true(json_object_get(answer, "sure")),
                     p >= number(entry, "threshold"));
    char *text = strdup(json_string_value(json_object_get(answer, "answer"))), want[600];
    json_decref(answer);
    for (int sure = 0; sure < 2; sure++) {
        char *threshold = (char *)(sure ? "0" : "1");
        run(&b->r, "ask", "-q", "-m", b->model, "--sure-threshold", threshold, TRACTOR, question);
        snprintf(want, sizeof want, "%s%s\n", sure ? "" : "not sure; perhaps: ", text);
        expect(&b->r, 0, want);
        run(&b->r, "ask", "-q", "-m", b->model, "--json", "--trace", "--sure-threshold", threshold,
            TRACTOR, question);
        answer = printed(&b->r);
        assert_int_equal(json_is_true(json_object_get(answer, "sure")), sure);
        assert_true(fabs(number(answer, "probability") - p) < 1e-8);
        assert_non_null(json_object_get(answer, "trace"));
        json_decref(answer);
    }
    run(&b->r, "ask", "-q", "-m", b->model, "--sure-threshold", "1", TRACTOR, question,
        "Is it red?");
    assert_int_equal(count_lines(b->r.out), 2);
    assert_non_null(strstr(b->r.out, "\tWhat is it?\tnot sure; perhaps: "));
    free(text);
}

/* Commands to which a calibration is nothing, or which do not have one. */
static void check_others(Bench *b) {
    run(&b->r, "text", "-q", "-m", b->model, "--json", "What is it?");
    assert_int_equal(b->r.status, 0);
    assert_null(strstr(b->r.out, "probability"));
    run(&b->r, "ask", "-q", "-m", TINY, "--sure-threshold", "0", "--length", "3", TRACTOR, "Why?");
    assert_int_equal(b->r.status, 0); /* nothing to turn off */
    run(&b->r, "ask", "-q", "-m", TINY, "--sure-threshold", "0.5", TRACTOR, "What is it?");
    assert_message(&b->r, 1, "--sure-threshold", "calibration", "easyfirst calibrate");
    run(&b->r, "ask", "-q", "-m", b->model, "--length-predictor", BUNDLED "/length.safetensors",
        "--sure-threshold", "0.5", TRACTOR, "What is it?");
    assert_message(&b->r, 1, "--sure-threshold", "calibration");
    run(&b->r, "ask", "-q", "-m", b->model, "--show", "--sure-threshold", "0.5", TRACTOR, "Why?");
    assert_message(&b->r, 2, "--show", "--sure-threshold");
    run(&b->r, "ask", "-q", "-m", b->model, "--sure-threshold", "1.5", TRACTOR, "Why?");
    assert_message(&b->r, 2, "sure-threshold", "1.5");
}

static void test_whole(void **state) {
    (void)state;
    Bench b;
    char path[600], again[500];
    bench_open(&b);
    evaluate(&b, b.out);
    json_t *before = json_in(b.model, "easyfirst.json");
    run(&b.r, "calibrate", "-m", b.model, "--dry-run", "--json", b.out, b.questions);
    json_t *dry = printed(&b.r), *now = json_in(b.model, "easyfirst.json");
    assert_true(json_equal(before, now)); /* nothing is written */
    json_decref(now);
    run(&b.r, "calibrate", "-m", b.model, b.out, b.questions);
    assert_int_equal(b.r.status, 0);
    assert_non_null(strstr(b.r.out, "sigmoid("));
    assert_non_null(strstr(b.r.out, "ECE"));
    now = json_in(b.model, "easyfirst.json");
    json_t *entry = json_incref(json_object_get(now, "calibration"));
    static const char *const keys[] = {"slope", "offset", "threshold"};
    for (int i = 0; i < 3; i++) {
        double told = number(json_object_get(dry, "calibration"), keys[i]);
        assert_true(fabs(number(entry, keys[i]) - told) <= 1e-12 * fabs(told));
    }
    assert_int_equal(json_object_size(entry), 4);
    json_object_del(now, "calibration");
    assert_true(json_equal(before, now)); /* all else is as it was */
    const json_t *report = json_object_get(dry, "report");
    assert_true(number(report, "right_unsure") <= 0.03);
    assert_true(number(report, "brier") < 0.25);
    check_report(&b, report, entry);
    /* The same questions, asked again: the same report. */
    path_in(again, sizeof again, &b.r, "again");
    evaluate(&b, again);
    assert_non_null(strstr(b.r.out, "\nCalibration\nBrier score"));
    json_t *result = json_in(again, "result.json");
    const json_t *measured = json_object_get(json_object_get(result, "score"), "calibration");
    assert_int_equal(number(measured, "answers"), ASKED);
    assert_true(fabs(number(measured, "brier") - number(report, "brier")) < 1e-8);
    assert_true(fabs(number(measured, "ece") - number(report, "ece")) < 1e-8);
    assert_true(fabs(number(measured, "unsure") - number(report, "unsure")) < 1e-8);
    json_decref(result);
    result = json_in(b.out, "result.json"); /* from before */
    assert_null(json_object_get(json_object_get(result, "score"), "calibration"));
    json_decref(result);
    check_ask(&b, entry);
    check_others(&b);
    const int longest = (int)number(entry, "longest"); /* nothing is known of longer ones */
    snprintf(path, sizeof path, "%d", longest);
    run(&b.r, "ask", "-q", "-m", b.model, "--json", "--length", path, TRACTOR, "What is it?");
    assert_non_null(strstr(b.r.out, "probability"));
    snprintf(path, sizeof path, "%d", longest + 1);
    run(&b.r, "ask", "-q", "-m", b.model, "--json", "--length", path, TRACTOR, "What is it?");
    assert_int_equal(b.r.status, 0);
    assert_null(strstr(b.r.out, "probability"));
    /* With the length, and again: the list of prompts that somebody added stays. */
    snprintf(path, sizeof path, "%s/easyfirst.json", b.model);
    json_object_set_new(entry, "prompts", json_pack("[s]", "gqa"));
    json_object_set(now, "calibration", entry);
    assert_int_equal(json_dump_file(now, path, 0), 0);
    run(&b.r, "calibrate", "-m", b.model, "--with-length", "--max-right-unsure", "0.5", b.out,
        b.questions);
    assert_int_equal(b.r.status, 0);
    json_decref(now);
    now = json_in(b.model, "easyfirst.json");
    const json_t *second = json_object_get(now, "calibration");
    assert_int_equal(json_object_size(second), 6);
    assert_true(number(second, "threshold") > number(entry, "threshold"));
    assert_int_equal(json_array_size(json_object_get(second, "prompts")), 1);
    run(&b.r, "ask", "-q", "-m", b.model, "--json", TRACTOR, "What is it?"); /* not for `ask` */
    assert_null(strstr(b.r.out, "probability"));
    json_decref(before), json_decref(now), json_decref(dry), json_decref(entry);
    run_end(&b.r);
}

/* Takes the scores out of a folder's answers, as runs before they were recorded left them. */
static void strip_scores(const Bench *b) {
    char path[600];
    size_t size;
    snprintf(path, sizeof path, "%s/answers.jsonl", b->out);
    char *bytes = file_bytes(path, &size);
    for (char *at = bytes; (at = strstr(at, "\"score\"")); at++) memcpy(at, "\"scare\"", 7);
    write_file(&b->r, "out/answers.jsonl", bytes, size, path, sizeof path);
    free(bytes);
}

static void test_refused(void **state) {
    (void)state;
    Bench b;
    char other[400], path[600];
    bench_open(&b);
    evaluate(&b, b.out);
    run(&b.r, "calibrate", b.out, b.questions);
    assert_message(&b.r, 2, "-m");
    run(&b.r, "calibrate", "-m", b.model, b.out);
    assert_message(&b.r, 2, "EVALUATION QUESTIONS");
    run(&b.r, "calibrate", "-m", b.model, "--max-right-unsure", "2", b.out, b.questions);
    assert_message(&b.r, 2, "max-right-unsure");
    run(&b.r, "calibrate", "-m", b.model, b.r.folder, b.questions);
    assert_message(&b.r, 1, "settings.json");
    run(&b.r, "calibrate", "-m", b.model, b.out, TRACTOR);
    assert_message(&b.r, 1, "tractor.jpg", "not the file of questions", "questions.json");
    model_copy(&b, TINY, "tiny", other);
    run(&b.r, "calibrate", "-m", other, b.out, b.questions);
    assert_message(&b.r, 1, "another model", "changed since");
    run(&b.r, "calibrate", "-m", "no/such/model", b.out, b.questions);
    assert_message(&b.r, 1, "no/such/model");
    strip_scores(&b);
    run(&b.r, "calibrate", "-m", b.model, b.out, b.questions);
    assert_message(&b.r, 1, "no scores", "another folder");
    snprintf(path, sizeof path, "%s/answers.jsonl", b.out);
    assert_int_equal(truncate(path, 0), 0);
    run(&b.r, "calibrate", "-m", b.model, b.out, b.questions);
    assert_message(&b.r, 1, "answers.jsonl", "empty");
    json_t *settings = json_in(b.model, "easyfirst.json");
    assert_null(json_object_get(settings, "calibration"));
    json_decref(settings);
    run_end(&b.r);
}

/* Training changes how sure a model may be. */
static void test_trained(void **state) {
    (void)state;
    Bench b;
    char model[400], data[400], out[400], path[600];
    static const char line[] = "{\"inputs\": \"What is it?\", \"targets\": \"a dog\"}\n";
    run_start(&b.r);
    model_copy(&b, TINY, "tiny", model);
    snprintf(path, sizeof path, "%s/easyfirst.json", model);
    json_t *settings = json_in(model, "easyfirst.json");
    json_object_set_new(settings, "calibration",
                        json_pack("{s:i, s:i, s:f}", "slope", 1, "offset", 2, "threshold", 0.5));
    assert_int_equal(json_dump_file(settings, path, 0), 0);
    write_file(&b.r, "data.jsonl", line, sizeof line - 1, data, sizeof data);
    path_in(out, sizeof out, &b.r, "run");
    run(&b.r, "train", "adapt", "-q", "-m", model, "--data", data, "--steps", "1", "--out", out);
    assert_int_equal(b.r.status, 0);
    json_t *trained = json_in(out, "model/easyfirst.json");
    assert_null(json_object_get(trained, "calibration"));
    assert_true(
        json_equal(json_object_get(trained, "attention"), json_object_get(settings, "attention")));
    json_decref(settings), json_decref(trained);
    run_end(&b.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_trained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
