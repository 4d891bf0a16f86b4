/* Confidence intervals and paired tests: numpy's random numbers bit for bit, sacrebleu's intervals
 * and p values (tests/golden/scores/resample.json, made by tests/reference/make_resample.py), and
 * means against computations of their own. */
#include <math.h>

#include <jansson.h>

#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/numpy_random.h"
#include "tests/test.h"

enum { LINES = 61 };

typedef struct Golden {
    json_t *json;
    const char *systems[2][LINES], *columns[2][LINES];
    References references;
} Golden;

static int golden_open(void **state) {
    static Golden g;
    Error err;
    json_error_t where;
    g.json = json_load_file("tests/golden/scores/resample.json", 0, &where);
    if (!g.json) return -1;
    for (size_t i = 0; i < LINES; i++) {
        const json_t *texts = json_array_get(json_object_get(g.json, "references"), i);
        g.systems[0][i] = json_string_value(json_array_get(json_object_get(g.json, "first"), i));
        g.systems[1][i] = json_string_value(json_array_get(json_object_get(g.json, "second"), i));
        for (size_t c = 0; c < 2; c++)
            g.columns[c][i] = json_string_value(json_array_get(texts, c));
    }
    const char *const *columns[] = {g.columns[0], g.columns[1]};
    *state = &g;
    return references_from_columns(&g.references, columns, 2, LINES, &err);
}

static int golden_close(void **state) {
    Golden *g = *state;
    references_free(&g->references);
    json_decref(g->json);
    return 0;
}

static double real(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number %s", name);
    return json_number_value(value);
}

static void test_draws(void **state) {
    const Golden *g = *state;
    const json_t *rows = json_object_get(g->json, "draws"), *row, *list;
    const char *count;
    size_t i, k;
    assert_int_equal(json_array_size(rows), 5);
    json_array_foreach(rows, i, row) {
        NumpyRandom random;
        uint64_t seed = strtoull(json_string_value(json_object_get(row, "seed")), NULL, 10);
        numpy_random_seed(&random, seed);
        for (k = 0; k < 5; k++) {
            const char *text = json_string_value(json_array_get(json_object_get(row, "next"), k));
            assert_true(numpy_random_next(&random) == strtoull(text, NULL, 10));
        }
        json_object_foreach(json_object_get(row, "below"), count, list) {
            numpy_random_seed(&random, seed);
            assert_int_equal(json_array_size(list), 21);
            for (k = 0; k < 21; k++)
                assert_int_equal(numpy_random_below(&random, (uint32_t)strtoul(count, NULL, 10)),
                                 json_integer_value(json_array_get(list, k)));
        }
        numpy_random_seed(&random, seed);
        list = json_object_get(row, "bits");
        for (k = 0; k < 70; k++)
            assert_int_equal(numpy_random_bit(&random),
                             json_integer_value(json_array_get(list, k)));
    }
}

static const BleuOptions bleu_kinds[] = {
    {.tokenize = 0}, {.lowercase = true, .smooth = BLEU_FLOOR, .tokenize = TOKENIZE_INTL}};
static const ChrfOptions chrf_kinds[] = {{.words = false}, {.words = true}};
static const char *const names[] = {"bleu", "bleu-lc-floor", "chrf", "chrf++"};

static void stats_of(const Golden *g, int metric, int system, LineStats *stats) {
    Error err;
    if (metric < 2)
        assert_ok(bleu_stats(g->systems[system], &g->references, &bleu_kinds[metric], stats, &err),
                  &err);
    else
        assert_ok(
            chrf_stats(g->systems[system], &g->references, &chrf_kinds[metric - 2], stats, &err),
            &err);
}

/* sacrebleu's own sums are of 24 bits. */
static void assert_near(double value, double expected) {
    if (!(fabs(value - expected) <= 2e-6 * fabs(expected)))
        fail_msg("%.12g, expected %.12g", value, expected);
}

static void test_sacrebleu(void **state) {
    const Golden *g = *state;
    Error err;
    for (int m = 0; m < 4; m++) {
        LineStats stats[2];
        Interval interval;
        Paired paired;
        const json_t *golden = json_object_get(json_object_get(g->json, "intervals"), names[m]);
        const json_t *tests = json_object_get(json_object_get(g->json, "paired"), names[m]), *one;
        for (int s = 0; s < 2; s++) stats_of(g, m, s, &stats[s]);
        assert_near(line_stats_score(&stats[0]), real(golden, "score"));
        assert_ok(resample_interval(stats, 1, NULL, &interval, &err), &err);
        assert_near(interval.mean, real(golden, "mean"));
        assert_near(interval_half(&interval), real(golden, "half"));
        size_t i;
        assert_int_equal(json_array_size(tests), 3);
        json_array_foreach(tests, i, one) {
            bool bootstrap = !strcmp(json_string_value(json_object_get(one, "test")), "bs");
            int samples = (int)real(one, "samples");
            ResampleOptions options = {.samples = bootstrap ? samples : 10,
                                       .trials = bootstrap ? 10 : samples};
            assert_ok(resample_pair(&stats[0], &stats[1], 1, &options, &paired, &err), &err);
            assert_near(paired.scores[0], real(one, "base"));
            assert_near(paired.scores[1], real(one, "score"));
            assert_true((bootstrap ? paired.p_bootstrap : paired.p_random) == real(one, "p"));
            if (!bootstrap) continue;
            assert_near(paired.intervals[1].mean, real(one, "mean"));
            assert_near(interval_half(&paired.intervals[1]), real(one, "half"));
        }
        for (int s = 0; s < 2; s++) line_stats_free(&stats[s]);
    }
}

/* The number of right answers in a resample is binomial: the interval of an accuracy is that of
 * the binomial distribution's quantiles, within the error of 20,000 resamples. */
static void test_accuracy(void **state) {
    enum { COUNT = 157, RIGHT = 103, SAMPLES = 20000 };
    (void)state;
    Error err;
    LineStats stats;
    Interval interval;
    assert_ok(mean_stats_open(&stats, COUNT + 9, &err), &err);
    /* Nine more do not count; they make the denominator of a resample random. */
    for (int i = 0; i < COUNT + 9; i++)
        mean_stats_set(&stats, i, i >= COUNT ? NAN : i * 7 % COUNT < RIGHT);
    assert_true(fabs(line_stats_score(&stats) - 100.0 * RIGHT / COUNT) < 1e-12);
    stats.count = COUNT;
    ResampleOptions options = {.samples = SAMPLES, .seed = 99};
    assert_ok(resample_interval(&stats, 1, &options, &interval, &err), &err);
    double p = (double)RIGHT / COUNT, mass = pow(1 - p, COUNT), sum = 0;
    int low = -1, high = -1;
    for (int k = 0; k <= COUNT && high < 0; k++) {
        sum += mass;
        if (low < 0 && sum > 0.025) low = k;
        if (sum > 0.975) high = k;
        mass *= (double)(COUNT - k) / (k + 1) * p / (1 - p);
    }
    assert_true(fabs(interval.low - 100.0 * low / COUNT) <= 100.5 / COUNT);
    assert_true(fabs(interval.high - 100.0 * high / COUNT) <= 100.5 / COUNT);
    assert_true(fabs(interval.mean - 100 * p) < 0.1);
    line_stats_free(&stats);
}

/* Of rights and wrongs, randomization is McNemar's exact test: 14 became right, 5 wrong. */
static void test_mcnemar(void **state) {
    enum { COUNT = 200, WON = 14, LOST = 5 };
    (void)state;
    Error err;
    LineStats a, b;
    Paired paired;
    assert_ok(mean_stats_open(&a, COUNT, &err), &err);
    assert_ok(mean_stats_open(&b, COUNT, &err), &err);
    for (int i = 0; i < COUNT; i++) {
        bool won = i < WON, lost = i >= 100 && i < 100 + LOST;
        bool right = i % 3 == 0;
        mean_stats_set(&a, i, won ? 0 : lost ? 1 : right);
        mean_stats_set(&b, i, won ? 1 : lost ? 0 : right);
    }
    double choose = 1, tail = 0;
    for (int k = 0; k <= LOST; k++) {
        tail += choose;
        choose = choose * (WON + LOST - k) / (k + 1);
    }
    double exact = 2 * ldexp(tail, -(WON + LOST));
    assert_ok(resample_pair(&a, &b, 1, &(ResampleOptions){.trials = 40000}, &paired, &err), &err);
    assert_true(fabs(paired.scores[1] - paired.scores[0] - 100.0 * (WON - LOST) / COUNT) < 1e-9);
    if (!(fabs(paired.p_random - exact) < 0.006))
        fail_msg("p = %g, exact %g", paired.p_random, exact);
    line_stats_free(&a), line_stats_free(&b);
}

/* Five lines differ, all in favor of the second system: 2 of the 32 ways to exchange them have so
 * large a difference. A system against itself is never better. */
static void test_few_lines(void **state) {
    enum { COUNT = 41 };
    (void)state;
    Error err;
    LineStats a, b;
    Paired paired;
    assert_ok(mean_stats_open(&a, COUNT, &err), &err);
    assert_ok(mean_stats_open(&b, COUNT, &err), &err);
    for (int i = 0; i < COUNT; i++) {
        mean_stats_set(&a, i, i < 20 ? 1.0 / 3 : 0.1);
        mean_stats_set(&b, i, i % 8 == 3 ? 0.7 : i < 20 ? 1.0 / 3 : 0.1);
    }
    assert_ok(resample_pair(&a, &b, 1, NULL, &paired, &err), &err);
    assert_true(fabs(paired.p_random - 2.0 / 32) < 0.01);
    assert_true(paired.difference.low >= 0 && paired.difference.high > paired.difference.low);
    assert_ok(resample_pair(&a, &a, 1, NULL, &paired, &err), &err);
    assert_true(paired.difference.low == 0 && paired.difference.high == 0);
    assert_true(paired.p_random == 1 && paired.p_bootstrap == 1);
    /* A mean over two equal parts has the score of one, and a narrower interval. */
    LineStats parts[] = {a, b};
    Interval one, both;
    assert_ok(resample_interval(parts, 1, NULL, &one, &err), &err);
    assert_ok(resample_interval((LineStats[]){a, a}, 2, NULL, &both, &err), &err);
    assert_true(interval_half(&both) < 0.85 * interval_half(&one));
    assert_true(interval_half(&both) > 0.6 * interval_half(&one));
    /* A part whose lines do not count is left out. */
    LineStats empty;
    assert_ok(mean_stats_open(&empty, 3, &err), &err);
    for (int i = 0; i < 3; i++) mean_stats_set(&empty, i, NAN);
    assert_ok(resample_interval((LineStats[]){a, empty}, 2, NULL, &both, &err), &err);
    assert_true(both.low == one.low && both.high == one.high);
    assert_refused(resample_pair(&a, &empty, 1, NULL, &paired, &err), &err, "41 and 3 lines");
    empty.count = 0;
    assert_refused(resample_interval(&empty, 1, NULL, &both, &err), &err, "no lines");
    line_stats_free(&a), line_stats_free(&b), line_stats_free(&empty);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),     cmocka_unit_test(test_sacrebleu),
        cmocka_unit_test(test_accuracy),  cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_few_lines),
    };
    return cmocka_run_group_tests(tests, golden_open, golden_close);
}
