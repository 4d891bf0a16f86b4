/* Training steps: which units are in which, over many random sets of units and budgets. */
#include <limits.h>
#include <math.h>

#include "data/sets/batches.h"
#include "tests/test.h"

static const int sources_of_tests = 4;

/* Units of both modalities and all lengths, some of several sequences. */
static BatchUnit *random_units(int64_t count, bool several, TestRandom *random) {
    BatchUnit *units = calloc((size_t)count + 1, sizeof *units);
    for (int64_t i = 0; i < count; i++) {
        int sequences = several ? 1 + (int)(test_random_next(random) % 7) : 1;
        bool image = test_random_next(random) % 3 != 0;
        units[i] = (BatchUnit){
            .record = i,
            .turn = several ? -1 : 0,
            .tokens = (image ? 257 : 1) + sequences * (2 + (int)(test_random_next(random) % 120)),
            .sequences = sequences,
            .source = (int16_t)(test_random_next(random) % (unsigned)sources_of_tests),
            .image = image};
    }
    return units;
}

static BatchPlan plan_of(const BatchUnit *units, int64_t count, const BatchConfig *config,
                         int64_t epoch) {
    Error err;
    BatchPlan plan;
    assert_ok(batches_plan(&plan, units, count, config, epoch, &err), &err);
    assert_true(plan.steps >= 1 && plan.step_begin[0] == 0);
    assert_int_equal(plan.step_begin[plan.steps], count);
    return plan;
}

static bool same_plans(const BatchPlan *a, const BatchPlan *b, int64_t count) {
    return a->steps == b->steps && !memcmp(a->order, b->order, (size_t)count * sizeof *a->order) &&
           !memcmp(a->step_begin, b->step_begin, (size_t)(a->steps + 1) * sizeof *a->step_begin);
}

/* Budgets and modality of every step; returns how many steps could have taken another unit of the
 * smallest kind, being less than half full. */
static int check_steps(const BatchPlan *plan, const BatchUnit *units, const BatchConfig *c) {
    int small = 0;
    for (int64_t s = 0; s < plan->steps; s++) {
        int64_t begin = plan->step_begin[s], end = plan->step_begin[s + 1];
        int64_t tokens = 0, sequences = 0;
        assert_true(begin < end);
        for (int64_t i = begin; i < end; i++) {
            const BatchUnit *u = &units[plan->order[i]];
            tokens += u->tokens, sequences += u->sequences;
            if (!c->in_order && !c->mixed) assert_true(u->image == units[plan->order[begin]].image);
        }
        if (end - begin > 1) {
            if (c->tokens) assert_true(tokens <= c->tokens);
            if (c->sequences) assert_true(sequences <= c->sequences);
        }
        small += (!c->tokens || 2 * tokens < c->tokens) &&
                 (!c->sequences || 2 * sequences < c->sequences);
    }
    return small;
}

static void assert_each_once(const BatchPlan *plan, int64_t count) {
    char *seen = calloc((size_t)count, 1);
    for (int64_t i = 0; i < count; i++) {
        assert_true(plan->order[i] >= 0 && plan->order[i] < count);
        assert_false(seen[plan->order[i]]++);
    }
    free(seen);
}

static void every_unit_once_an_epoch(void **state) {
    (void)state;
    TestRandom random = {21};
    for (int round = 0; round < 150; round++) {
        int64_t count = 1 + (int64_t)(test_random_next(&random) % (round % 3 ? 400 : 5));
        BatchUnit *units = random_units(count, round % 2, &random);
        BatchConfig config = {
            .seed = test_random_next(&random),
            .in_order = round % 5 == 0,
            .mixed = round % 7 == 1,
            .megabatch = round % 4 ? 1 + (int)(test_random_next(&random) % 9) : 0,
        };
        /* By tokens (also fewer than some units have), by sequences, by both. */
        int by = 1 + (int)(test_random_next(&random) % 3);
        if (by & 1) config.tokens = 100 + (int64_t)(test_random_next(&random) % 4000);
        if (by & 2) config.sequences = 1 + (int)(test_random_next(&random) % 40);
        int64_t epoch = (int64_t)(test_random_next(&random) % 5);
        BatchPlan plan = plan_of(units, count, &config, epoch);
        BatchPlan again = plan_of(units, count, &config, epoch);
        assert_true(same_plans(&plan, &again, count));
        assert_each_once(&plan, count);
        int small = check_steps(&plan, units, &config);
        /* Only the last step of each modality is a remainder, when units are small. */
        if (!config.in_order && (!config.tokens || config.tokens >= 2400) &&
            (!config.sequences || config.sequences >= 14) && small > 2)
            fail_msg("%d steps of %d are half empty", small, (int)plan.steps);
        batches_free(&plan), batches_free(&again);
        free(units);
    }
}

static void steps_are_full_and_exact(void **state) {
    (void)state;
    TestRandom random = {4};
    BatchUnit *units = random_units(1000, false, &random);
    int images = 0;
    for (int i = 0; i < 1000; i++) images += units[i].image;
    BatchConfig config = {.sequences = 16, .megabatch = 3};
    BatchPlan plan = plan_of(units, 1000, &config, 0);
    assert_int_equal(plan.steps, (images + 15) / 16 + (1000 - images + 15) / 16);
    batches_free(&plan);
    free(units);
}

static void in_order_is_as_in_the_file(void **state) {
    (void)state;
    TestRandom random = {8};
    BatchUnit *units = random_units(100, false, &random);
    BatchConfig config = {.sequences = 7, .in_order = true, .weights = (double[]){1, 2, 3, 4}};
    config.sources = sources_of_tests;
    BatchPlan plan = plan_of(units, 100, &config, 3);
    for (int i = 0; i < 100; i++) assert_int_equal(plan.order[i], i);
    for (int s = 0; s < 15; s++) assert_int_equal(plan.step_begin[s], 7 * s);
    assert_int_equal(plan.steps, 15);
    batches_free(&plan);
    free(units);
}

static void epochs_and_seeds_differ(void **state) {
    (void)state;
    TestRandom random = {9};
    BatchUnit *units = random_units(300, false, &random);
    BatchPlan plans[4];
    for (int i = 0; i < 4; i++) {
        BatchConfig config = {.sequences = 8, .seed = (uint64_t)(i / 2)};
        plans[i] = plan_of(units, 300, &config, i % 2);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++) {
            int same = 0;
            for (int k = 0; k < 300; k++) same += plans[i].order[k] == plans[j].order[k];
            assert_true(same < 15);
        }
    for (int i = 0; i < 4; i++) batches_free(&plans[i]);
    free(units);
}

/* The mean over steps of longest less shortest. */
static double spread(const BatchPlan *plan, const BatchUnit *units) {
    double sum = 0;
    for (int64_t s = 0; s < plan->steps; s++) {
        int low = INT_MAX, high = 0;
        for (int64_t i = plan->step_begin[s]; i < plan->step_begin[s + 1]; i++) {
            int n = units[plan->order[i]].tokens;
            low = n < low ? n : low, high = n > high ? n : high;
        }
        sum += high - low;
    }
    return sum / (double)plan->steps;
}

static void lengths_are_grouped_but_steps_are_mixed(void **state) {
    (void)state;
    TestRandom random = {10};
    enum { COUNT = 8000 };
    BatchUnit *units = random_units(COUNT, false, &random);
    BatchConfig config = {.sequences = 16}, alone = {.sequences = 16, .megabatch = 1};
    BatchPlan grouped = plan_of(units, COUNT, &config, 0), loose = plan_of(units, COUNT, &alone, 0);
    double a = spread(&grouped, units), b = spread(&loose, units);
    if (!(a < b / 10)) fail_msg("spread of %g with grouping, %g without", a, b);
    /* Long and short, with and without image come in any order: no trend over the epoch, and
     * neighbors know nothing of each other. */
    double n = (double)grouped.steps, mean[2] = {0}, trend = 0, next = 0, last = 0, square = 0;
    double *length = calloc((size_t)grouped.steps, sizeof *length);
    double all = 0;
    for (int64_t s = 0; s < grouped.steps; s++) {
        length[s] = units[grouped.order[grouped.step_begin[s]]].tokens;
        all += length[s] / n;
        mean[s >= grouped.steps / 2] += length[s] / (n / 2);
    }
    for (int64_t s = 0; s < grouped.steps; s++) {
        double d = length[s] - all;
        square += d * d / n, next += d * last / n, last = d;
        trend = fabs(mean[0] - mean[1]);
    }
    assert_true(trend < 4 * sqrt(square * 4 / n));
    assert_true(fabs(next) < 4 * square / sqrt(n));
    batches_free(&grouped), batches_free(&loose);
    free(length), free(units);
}

/* Steps of all kinds: each has about the share of images and the mean length that all have. */
static void mixed_steps_have_everything(void **state) {
    (void)state;
    TestRandom random = {33};
    enum { COUNT = 6000, EACH = 60 };
    BatchUnit *units = random_units(COUNT, true, &random);
    for (int i = 0; i < COUNT; i++) units[i].sequences = 1;
    BatchConfig config = {.sequences = EACH, .mixed = true};
    BatchPlan plan = plan_of(units, COUNT, &config, 0);
    double share = 0;
    for (int i = 0; i < COUNT; i++) share += units[i].image / (double)COUNT;
    assert_int_equal(plan.steps, COUNT / EACH);
    for (int64_t s = 0; s < plan.steps; s++) {
        double images = 0;
        for (int64_t i = plan.step_begin[s]; i < plan.step_begin[s + 1]; i++)
            images += units[plan.order[i]].image;
        /* Five deviations of a binomial distribution. */
        assert_true(fabs(images - share * EACH) < 5 * sqrt(EACH * share * (1 - share)));
    }
    batches_free(&plan);
    free(units);
}

/* ---- Mixtures. ---- */

static void mixtures_draw_by_weight_and_evenly(void **state) {
    (void)state;
    TestRandom random = {31};
    enum { COUNT = 500, EPOCHS = 12 };
    const double weights[] = {1, 0, 5, 2.5};
    BatchUnit *units = random_units(COUNT, false, &random);
    for (int i = 0; i < COUNT; i++)
        if (units[i].source == 2 && i % 4) units[i].source = 0; /* the heaviest is small */
    int64_t members[4] = {0}, total[4] = {0};
    for (int i = 0; i < COUNT; i++) members[units[i].source]++;
    BatchConfig config = {.tokens = 3000, .seed = 6, .weights = weights, .sources = 4};
    int *times = calloc(COUNT, sizeof *times);
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        BatchPlan plan = plan_of(units, COUNT, &config, epoch);
        check_steps(&plan, units, &config);
        for (int i = 0; i < COUNT; i++) {
            times[plan.order[i]]++;
            total[units[plan.order[i]].source]++;
        }
        batches_free(&plan);
        /* At the end of any epoch, two units of one source differ by at most one round. */
        for (int s = 0; s < 4; s++) {
            int low = INT_MAX, high = 0;
            for (int i = 0; i < COUNT; i++) {
                if (units[i].source != s) continue;
                low = times[i] < low ? times[i] : low, high = times[i] > high ? times[i] : high;
            }
            if (weights[s] == 0)
                assert_int_equal(high, 0);
            else
                assert_true(high - low <= 1 && low == total[s] / members[s]);
        }
    }
    double n = (double)COUNT * EPOCHS, sum = 8.5;
    for (int s = 0; s < 4; s++) {
        double p = weights[s] / sum;
        assert_true(fabs((double)total[s] - n * p) <= 4 * sqrt(n * p * (1 - p)));
    }
    free(times), free(units);
}

/* One source alone: every round of its units is another order, and all of it is found again from
 * the number of an epoch. */
static void rounds_of_a_source(void **state) {
    (void)state;
    enum { COUNT = 60 };
    BatchUnit units[COUNT];
    for (int i = 0; i < COUNT; i++)
        units[i] = (BatchUnit){.record = i, .tokens = 10, .sequences = 1};
    /* One step of units of one length keeps the order of the draws. */
    BatchConfig config = {.sequences = COUNT, .weights = (double[]){2}, .sources = 1, .seed = 3};
    BatchPlan a = plan_of(units, COUNT, &config, 0), b = plan_of(units, COUNT, &config, 1);
    BatchPlan again = plan_of(units, COUNT, &config, 1);
    assert_each_once(&a, COUNT);
    assert_each_once(&b, COUNT);
    assert_false(same_plans(&a, &b, COUNT));
    assert_true(same_plans(&b, &again, COUNT));
    batches_free(&a), batches_free(&b), batches_free(&again);
}

static void refusals(void **state) {
    (void)state;
    Error err;
    BatchPlan plan;
    BatchUnit units[3];
    for (int i = 0; i < 3; i++) units[i] = (BatchUnit){.tokens = 5, .sequences = 1};
    BatchConfig config = {.sequences = 2};
    assert_refused(batches_plan(&plan, units, 0, &config, 0, &err), &err, "no sample");
    assert_refused(batches_plan(&plan, units, 3, &config, -1, &err), &err, "epoch -1");
    config.sequences = 0;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "0 tokens");
    config.sequences = 2;
    double weights[2] = {1, 1};
    config.weights = weights, config.sources = 2;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "source 2", "no usable");
    units[1].source = 2;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "source 3", "has 2");
    units[1].source = 1;
    weights[1] = NAN;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "source 2", "nan");
    weights[1] = -1;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "source 2", "-1");
    weights[0] = weights[1] = 0;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "add up to 0");
    assert_null(plan.order);
    config.weights = NULL;
    units[2].sequences = 0;
    assert_refused(batches_plan(&plan, units, 3, &config, 0, &err), &err, "unit 2", "0 sequences");
    batches_free(&plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_once_an_epoch),
        cmocka_unit_test(steps_are_full_and_exact),
        cmocka_unit_test(in_order_is_as_in_the_file),
        cmocka_unit_test(mixed_steps_have_everything),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(lengths_are_grouped_but_steps_are_mixed),
        cmocka_unit_test(mixtures_draw_by_weight_and_evenly),
        cmocka_unit_test(rounds_of_a_source),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
