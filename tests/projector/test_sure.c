/* How sure an answer is: the entry "calibration" of easyfirst.json, and what the library makes of
 * it. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "projector/model_config.h"
#include "tests/projector/easyfirst_test.h"

#define BASE MODELS "tiny-base"

static char folder[300]; /* tiny-base's parts, with settings of its own */

static void settings_write(const char *calibration) {
    char path[400];
    snprintf(path, sizeof path, "%s/easyfirst.json", folder);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out, "{\"format\": 1, \"pad\": false, \"calibration\": %s}\n", calibration);
    assert_int_equal(fclose(out), 0);
}

static int folder_make(void **state) {
    (void)state;
    static const char *const parts[] = {"language", "vision", "projector.safetensors",
                                        "length.safetensors"};
    temporary_folder(folder, sizeof folder);
    for (int i = 0; i < 4; i++) {
        char from[200], to[400];
        snprintf(from, sizeof from, BASE "/%s", parts[i]);
        snprintf(to, sizeof to, "%s/%s", folder, parts[i]);
        char *real = realpath(from, NULL);
        if (real) assert_int_equal(symlink(real, to), 0);
        free(real);
    }
    return 0;
}

static int folder_remove(void **state) {
    (void)state;
    temporary_remove(folder);
    return 0;
}

static void test_entries(void **state) {
    (void)state;
    ModelSettings s;
    Error err;
    settings_write("{\"slope\": 2.5, \"offset\": -1, \"threshold\": 1}");
    assert_ok(model_settings_read(&s, folder, &err), &err);
    assert_true(s.calibration.present && calibration_holds(&s.calibration, "ask") &&
                calibration_holds(&s.calibration, "gqa") &&
                !calibration_holds(&s.calibration, "translate") &&
                !calibration_holds(&s.calibration, NULL));
    assert_true(fabs(calibration_probability(&s.calibration, "ask", 0.4, 7) - 0.5) < 1e-15);
    assert_true(isnan(calibration_probability(&s.calibration, "ask", -INFINITY, 7)));
    json_decref(s.json);
    settings_write("{\"slope\": 1e6, \"offset\": 0, \"length\": -1e6, \"threshold\": 0, "
                   "\"prompts\": [\"summarize\"]}");
    assert_ok(model_settings_read(&s, folder, &err), &err);
    assert_false(calibration_holds(&s.calibration, "ask"));
    assert_true(calibration_probability(&s.calibration, "summarize", -1e30, 1000) == 0);
    assert_true(calibration_probability(&s.calibration, "summarize", 1e30, 1) == 1);
    json_decref(s.json);
    settings_write("null");
    assert_ok(model_settings_read(&s, folder, &err), &err);
    assert_false(s.calibration.present);
    json_decref(s.json);
}

static void test_hostile(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"7", "object"},
        {"[]", "object"},
        {"{}", "no \"slope\""},
        {"{\"slope\": null, \"offset\": 1, \"threshold\": 0.5}", "no \"slope\""},
        {"{\"slope\": 1, \"threshold\": 0.5}", "no \"offset\""},
        {"{\"slope\": 1, \"offset\": 1}", "no \"threshold\""},
        {"{\"slope\": \"1\", \"offset\": 1, \"threshold\": 0.5}", "must be a number"},
        {"{\"slope\": 1e400, \"offset\": 1, \"threshold\": 0.5}", "real number overflow"},
        {"{\"slope\": 1e7, \"offset\": 1, \"threshold\": 0.5}", "\"slope\" is 1e+07"},
        {"{\"slope\": 1, \"offset\": NaN, \"threshold\": 0.5}", "invalid token"},
        {"{\"slope\": 1, \"offset\": -1e300, \"threshold\": 0.5}", "\"offset\" is -1e+300"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 1.5}", "\"threshold\" is 1.5"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": -0.5}", "expected 0 to 1"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": true}", "must be a number"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"length\": []}", "must be a number"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"bias\\u001b[2J\\n\": 2}", "unknown"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"prompts\": []}", "must be a list"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"prompts\": \"ask\"}", "must be a list"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"prompts\": [1]}", "no text"},
        {"{\"slope\": 1, \"offset\": 1, \"threshold\": 0, \"prompts\": [\"a\\nsk\"]}", "expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ef_error error;
        ef_model *model = NULL;
        settings_write(bad[i][0]);
        check_failed(ef_model_open(folder, NULL, &model, &error), &error, model, bad[i][1]);
        assert_non_null(strstr(error.text, "easyfirst.json"));
        assert_null(strchr(error.text, '\033'));
    }
}

static void check_probability(ef_model *model, const ef_image *image, double slope, double offset,
                              double length) {
    ef_error err;
    ef_answers *answers;
    ef_request requests[] = {{.task = EF_ASK, .text = "Is it red?", .image = image, .length = 3},
                             {.task = EF_COMPLETE, .text = "It is", .length = 3},
                             {.task = EF_ASK, .text = "", .image = image, .length = 3},
                             {.task = EF_SUMMARIZE, .text = "It is red.", .length = 2}};
    check_ok(ef_answer(model, requests, 4, NULL, &answers, &err), &err);
    double z = slope * ef_answer_score(answers, 0) + offset + length * 3;
    assert_true(fabs(ef_answer_probability(answers, 0) - 1 / (1 + exp(-z))) < 1e-12);
    assert_true(ef_answer_probability(answers, 0) > 0);
    for (size_t i = 1; i < 5; i++) assert_true(isnan(ef_answer_probability(answers, i)));
    ef_answers_close(answers);
}

static void test_library(void **state) {
    (void)state;
    ef_error err;
    ef_answers *answers;
    ef_image *image = open_image(MODELS "image0.png");
    settings_write("{\"slope\": 0.3, \"offset\": 0.75, \"length\": -0.125, \"threshold\": 0.625}");
    ef_model *model = open_model(folder);
    assert_true(ef_model_sure_threshold(model) == 0.625);
    check_probability(model, image, 0.3, 0.75, -0.125);
    ef_model_close(model);
    /* The parts that it was fitted to are the folder's own. */
    ef_model_options options = ef_model_options_default();
    options.device = "cpu", options.projector = BASE "/projector.safetensors";
    check_ok(ef_model_open(folder, &options, &model, &err), &err);
    assert_true(isnan(ef_model_sure_threshold(model)));
    const ef_request ask = {.task = EF_ASK, .text = "Is it red?", .image = image, .length = 3};
    check_ok(ef_answer(model, &ask, 1, NULL, &answers, &err), &err);
    assert_non_null(ef_answer_text(answers, 0));
    assert_true(isnan(ef_answer_probability(answers, 0)));
    ef_answers_close(answers);
    ef_model_close(model);
    assert_true(isnan(ef_answer_probability(NULL, 0)) && isnan(ef_model_sure_threshold(NULL)));
    ef_image_close(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
