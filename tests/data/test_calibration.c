/* The logistic fit of scores to right and wrong, against scipy's; its threshold and measures. */
#include <math.h>

#include <jansson.h>

#include "data/metrics/calibration.h"
#include "tests/test.h"

enum { MOST = 100 };

static double number_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number \"%s\"", name);
    return json_number_value(value);
}

static void assert_near(const char *what, double got, double want, double limit) {
    if (!(fabs(got - want) <= limit * fmax(1, fabs(want))))
        fail_msg("%s: %.12g, not %.12g", what, got, want);
}

static int64_t answers_of(const json_t *test, CalibrationAnswer *answers) {
    const json_t *list = json_object_get(test, "answers"), *one;
    size_t i;
    assert_true(json_array_size(list) <= MOST);
    json_array_foreach((json_t *)list, i, one) answers[i] =
        (CalibrationAnswer){.score = json_number_value(json_array_get(one, 0)),
                            .length = (int)json_integer_value(json_array_get(one, 1)),
                            .right = json_integer_value(json_array_get(one, 2)) != 0};
    return (int64_t)json_array_size(list);
}

static double probability(const CalibrationFit *fit, const CalibrationAnswer *a) {
    return 1 / (1 + exp(-(fit->slope * a->score + fit->offset + fit->length * a->length)));
}

static void check_measures(const json_t *test, const CalibrationFit *fit,
                           const CalibrationAnswer *answers, int64_t n) {
    double p[MOST], threshold;
    CalibrationReport r;
    Error err;
    for (int64_t i = 0; i < n; i++) p[i] = probability(fit, &answers[i]);
    assert_ok(calibration_threshold(&threshold, p, answers, n, 0.1, &err), &err);
    assert_near("threshold", threshold, number_of(test, "threshold"), 1.5e-6);
    calibration_measure(&r, p, answers, n, threshold);
    assert_near("Brier", r.brier, number_of(test, "brier"), 1e-6);
    assert_near("ECE", r.ece, number_of(test, "ece"), 1e-6);
    int64_t counted = 0;
    for (int b = 0; b < CALIBRATION_BINS; b++) counted += r.bins[b].count;
    assert_int_equal(counted, n);
    assert_int_equal(r.count, n);
    assert_true((double)r.unsure_right <= 0.1 * (double)r.right);
}

static void test_fits(void **state) {
    (void)state;
    json_error_t wrong;
    json_t *tests = json_load_file("tests/golden/scores/calibration.json", 0, &wrong), *test;
    if (!tests) fail_msg("calibration.json: %s", wrong.text);
    assert_true(json_array_size(tests) >= 7);
    size_t i;
    json_array_foreach(tests, i, test) {
        CalibrationAnswer answers[MOST];
        CalibrationFit fit;
        Error err;
        int64_t n = answers_of(test, answers);
        assert_ok(calibration_fit(&fit, answers, n, false, &err), &err);
        print_message("%s: %d steps, loss %.4f\n", json_string_value(json_object_get(test, "name")),
                      fit.steps, fit.loss);
        assert_near("slope", fit.slope, number_of(test, "slope"), 1e-6);
        assert_near("offset", fit.offset, number_of(test, "offset"), 1e-6);
        assert_true(fit.length == 0);
        check_measures(test, &fit, answers, n);
        assert_ok(calibration_fit(&fit, answers, n, true, &err), &err);
        const json_t *with = json_object_get(test, "with_length");
        if (!with) with = test; /* all of one length: as without it */
        assert_near("slope with length", fit.slope, number_of(with, "slope"), 1e-6);
        assert_near("offset with length", fit.offset, number_of(with, "offset"), 1e-6);
        assert_near("length", fit.length, with == test ? 0 : number_of(with, "length"), 1e-6);
    }
    json_decref(tests);
}

/* Predictors that determine nothing, or each other: finite weights, the right probabilities. */
static void test_degenerate(void **state) {
    (void)state;
    CalibrationAnswer answers[MOST];
    CalibrationFit fit, pair;
    Error err;
    for (int i = 0; i < MOST; i++)
        answers[i] = (CalibrationAnswer){.score = -0.7, .length = 1, .right = i % 4 > 0};
    assert_ok(calibration_fit(&fit, answers, MOST, true, &err), &err);
    assert_true(fit.slope == 0 && fit.length == 0);
    assert_near("share of right ones", probability(&fit, &answers[0]), 0.75, 0.01);
    for (int i = 0; i < MOST; i++)
        answers[i].length = 1 + (i * 7) % 5, answers[i].score = -0.25 * answers[i].length;
    assert_ok(calibration_fit(&fit, answers, MOST, false, &err), &err);
    assert_ok(calibration_fit(&pair, answers, MOST, true, &err), &err);
    for (int i = 0; i < MOST; i++)
        assert_near("of two alike", probability(&pair, &answers[i]), probability(&fit, &answers[i]),
                    1e-6);
    assert_true(fabs(pair.slope) < 1e3 && fabs(pair.length) < 1e3);
    /* A threshold of which more or fewer right ones may lie below. */
    double p[4] = {0.125, 0.25, 0.5, 0.75}, threshold;
    const double shares[] = {0, 0.24, 0.25, 0.5, 1}, wanted[] = {0.125, 0.125, 0.25, 0.5, 0.75};
    for (int i = 0; i < 4; i++) answers[i].right = true;
    for (int i = 0; i < 5; i++) {
        assert_ok(calibration_threshold(&threshold, p, answers, 4, shares[i], &err), &err);
        assert_near("threshold", threshold, wanted[i], 0);
    }
    p[0] = 0, p[3] = 1; /* the ends are in the first and the last bin */
    CalibrationReport r;
    calibration_measure(&r, p, answers, 4, 0);
    assert_int_equal(r.bins[0].count, 1);
    assert_int_equal(r.bins[9].count, 1);
    assert_int_equal(r.unsure, 0);
}

static void test_refused(void **state) {
    (void)state;
    CalibrationAnswer answers[12];
    CalibrationFit fit;
    Error err;
    for (int i = 0; i < 12; i++)
        answers[i] = (CalibrationAnswer){.score = -i, .length = 1, .right = i < 6};
    assert_refused(calibration_fit(&fit, answers, 9, false, &err), &err, "9 answers", "least 10");
    assert_refused(calibration_fit(&fit, answers, 0, false, &err), &err, "0 answers");
    answers[4].score = NAN;
    assert_refused(calibration_fit(&fit, answers, 12, false, &err), &err, "answer 5", "nan");
    answers[4].score = -INFINITY;
    assert_refused(calibration_fit(&fit, answers, 12, false, &err), &err, "answer 5", "inf");
    answers[4].score = -4;
    for (int right = 0; right < 2; right++) {
        for (int i = 0; i < 12; i++) answers[i].right = right;
        assert_refused(calibration_fit(&fit, answers, 12, false, &err), &err,
                       right ? "every one of 12" : "none of 12", "right and wrong");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_degenerate),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
