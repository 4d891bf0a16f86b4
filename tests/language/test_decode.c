/* Decoding against tests/reference/decode_reference.py, and decode.h's further guarantees: the
 * canvas cache and the batch change nothing. Templates are in test_decode_fixed.c. */
#include <math.h>

#include "language/canvas_cache.h"
#include "tests/decode_cases.h"

static void goldens(void **state) {
    (void)state;
    int cases = 0;
    for (int s = 0; s < STRATEGIES; s++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/decode/%s.bin", strategies[s]);
        size_t size, at = 0;
        char *bytes = file_bytes(path, &size);
        if (!bytes) fail_msg("cannot read %s", path);
        while (at < size) {
            GoldenHeader header;
            assert_true(size - at >= sizeof header);
            memcpy(&header, bytes + at, sizeof header);
            at += sizeof header;
            size_t cells = (size_t)header.length * (size_t)header.steps * sizeof(TraceCell);
            assert_true(size - at >= cells);
            golden_case(&header, NULL, (const TraceCell *)(const void *)(bytes + at));
            at += cells, cases++;
        }
        free(bytes);
    }
    assert_int_equal(cases, STRATEGIES * 15);
}

/* ---- names ---- */

static void names_parse_and_print(void **state) {
    (void)state;
    char name[128];
    for (int s = 0; s < STRATEGIES; s++) {
        DecodeOptions options = options_named(strategies[s]);
        decode_strategy_name(name, sizeof name, &options);
        assert_string_equal(name, strategies[s]);
    }
    DecodeOptions options = decode_options_default();
    decode_strategy_name(name, sizeof name, &options);
    assert_string_equal(name, "reparam-uncond-deterministic-cosine");
    assert_int_equal(options.iterations, 50);

    options = options_named("reparam-cond-stochastic.25-linear");
    assert_true(options.conditional && options.stochastic && options.tau == 0.25f &&
                options.schedule == DECODE_LINEAR);
    /* Parsing sets every field of the strategy and no other. */
    options.seed = 9, options.iterations = 3;
    Error err;
    assert_ok(decode_strategy_parse(&options, "cmlm", &err), &err);
    assert_true(options.strategy == DECODE_CMLM && !options.conditional && !options.stochastic &&
                options.tau == 0 && options.schedule == DECODE_COSINE);
    assert_true(options.seed == 9 && options.iterations == 3);

    /* Any number survives the round trip. */
    static const float taus[] = {0, 0.1f, 1e-7f, 1.4e-45f, 12345.678f, 3.4e38f, 1.0f / 3};
    for (size_t i = 0; i < sizeof taus / sizeof *taus; i++) {
        options = options_named("reparam-uncond-stochastic1-cosine");
        options.tau = taus[i];
        decode_strategy_name(name, sizeof name, &options);
        assert_true(options_named(name).tau == taus[i]);
    }
}

static void wrong_names_are_refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"", "unknown"},
        {"greedy", "greedy"},
        {"CMLM", "expected reparam"},
        {"ar-linear", "unknown"},
        {"cmlm-", "unknown"},
        {"reparam", "second part is \"\""},
        {"reparam-both-deterministic-cosine", "second part is \"both\""},
        {"reparam-cond", "third part is \"\""},
        {"reparam-cond-random-cosine", "third part is \"random\""},
        {"reparam-cond-stochastic-cosine", "third part is \"stochastic\""},
        {"reparam-cond-stochastic.-cosine", "third part"},
        {"reparam-cond-stochastic1.2.3-cosine", "third part"},
        {"reparam-cond-stochastic-1-cosine", "third part"},
        {"reparam-cond-stochasticnan-cosine", "stochasticnan"},
        {"reparam-cond-stochasticinf-cosine", "stochasticinf"},
        {"reparam-cond-stochastic0x1-cosine", "stochastic0x1"},
        {"reparam-cond-stochastic1e3-cosine", "stochastic1e3"},
        {"reparam-cond-stochastic9999999999999999999999999999999999999999-cosine", "third part"},
        {"reparam-cond-deterministic", "fourth part is \"\""},
        {"reparam-cond-deterministic-sqrt", "fourth part is \"sqrt\""},
        {"reparam-cond-deterministic-cosine-", "may follow \"cosine\""},
        {"reparam-cond-deterministic-cosine-1", "may follow \"cosine\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        DecodeOptions options = decode_options_default(), before = options;
        Error err;
        assert_refused(decode_strategy_parse(&options, wrong[i][0], &err), &err, wrong[i][1],
                       wrong[i][0]);
        assert_memory_equal(&options, &before, sizeof options);
    }
}

/* ---- the schedule ---- */

static int count_masks(const DecodeResult *result, int step, int32_t mask_id) {
    int masks = 0;
    for (int i = 0; i < result->length; i++)
        masks += result->trace[(step - 1) * result->length + i].token == mask_id;
    return masks;
}

/* Without ties, uncond leaves exactly k masks after each step. */
static void schedules_mask_k(void **state) {
    (void)state;
    Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 16, .mask_id = 15, .seed = 5};
    for (int N = 1; N <= 24; N++) {
        DecodeSpec spec = {0, N, 0};
        DecodeOptions options = options_named("reparam-uncond-deterministic-linear");
        DecodeResult *result = decode_all(&model, &options, &spec, 1);
        for (int t = 1; t <= 50; t++)
            assert_int_equal(count_masks(result, t, 15), N * (50 - t) / 50);
        decode_results_free(result, 1);

        options = options_named("reparam-uncond-deterministic-cosine");
        result = decode_all(&model, &options, &spec, 1);
        for (int t = 1; t < 50; t++)
            assert_int_equal(count_masks(result, t, 15),
                             (int)(N * cos(3.14159265358979 / 100 * t)));
        assert_int_equal(count_masks(result, 50, 15), 0);
        decode_results_free(result, 1);
    }
}

static void ar_writes_left_to_right(void **state) {
    (void)state;
    Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 16, .mask_id = 15, .seed = 5};
    DecodeOptions options = options_named("ar");
    options.iterations = 2;
    DecodeSpec specs[] = {{0, 9, 0}, {0, 4, 0}};
    DecodeResult *results = decode_all(&model, &options, specs, 2);
    for (int h = 0; h < 2; h++) {
        assert_int_equal(results[h].steps, specs[h].length);
        for (int t = 1; t <= results[h].steps; t++)
            for (int i = 0; i < specs[h].length; i++)
                assert_true((results[h].trace[(t - 1) * specs[h].length + i].token != 15) ==
                            (i < t));
    }
    assert_int_equal(model.calls, 9);
    assert_int_equal(model.canvases, 13);
    decode_results_free(results, 2);
}

/* ---- the canvas cache ---- */

static void memory_is_exact(void **state) {
    (void)state;
    enum { MOST = 3000, LENGTH = 4 };
    CanvasCache cache;
    Error err;
    assert_ok(canvas_cache_take(&cache, MOST, MOST * LENGTH, &err), &err);
    TestRandom random = {.state = 3};
    static int32_t kept[MOST][LENGTH + 2]; /* request, length, tokens */
    size_t used = 0;
    for (int i = 0; i < MOST; i++) {
        int32_t key[LENGTH + 2] = {random_below(&random, 3) - 1, 1 + random_below(&random, LENGTH)};
        for (int j = 0; j < key[1]; j++) key[2 + j] = random_below(&random, 5);
        size_t expected = 0;
        while (expected < used && memcmp(kept[expected], key, sizeof key) != 0) expected++;
        bool fresh;
        size_t entry = canvas_cache_find(&cache, key[0], key + 2, key[1], &fresh);
        assert_int_equal(entry, expected);
        assert_int_equal(fresh, expected == used);
        if (fresh) memcpy(kept[used++], key, sizeof key);
    }
    assert_true(used > 1000 && used < MOST && cache.count == used);
    canvas_cache_free(&cache);

    assert_refused(canvas_cache_take(&cache, SIZE_MAX, SIZE_MAX, &err), &err, "memory");
    assert_refused(canvas_cache_take(&cache, SIZE_MAX / 16, 1, &err), &err, "memory");
    assert_refused(canvas_cache_take(&cache, 1, SIZE_MAX / 13, &err), &err, "memory");
}

static void memory_changes_nothing(void **state) {
    (void)state;
    TestRandom random = {.state = 11};
    long with = 0, without = 0;
    for (int run = 0; run < 1400; run++) {
        DecodeOptions options = options_named(strategies[run % STRATEGIES]);
        options.iterations = 1 + random_below(&random, 50);
        options.seed = test_random_next(&random);
        Synthetic model = {.kind = random_below(&random, KINDS),
                           .vocabulary = 4 + random_below(&random, 9),
                           .mask_id = random_below(&random, 4),
                           .seed = options.seed};
        DecodeSpec specs[3];
        int N = 1 + random_below(&random, 64), count = N > 8 ? 1 : 3;
        for (int h = 0; h < count; h++) specs[h] = (DecodeSpec){run % 5, N, h};
        model.distinct = true;
        DecodeResult *on = decode_all(&model, &options, specs, count);
        options.no_canvas_cache = true, model.distinct = false;
        DecodeResult *off = decode_all(&model, &options, specs, count);
        for (int h = 0; h < count; h++) {
            assert_same(&on[h], &off[h]);
            int evaluated = 0;
            for (int t = 0; t < on[h].steps; t++) evaluated += on[h].evaluated[t];
            assert_int_equal(evaluated, on[h].evaluations);
            assert_int_equal(off[h].evaluations, off[h].steps);
            with += on[h].evaluations, without += off[h].evaluations;
        }
        decode_results_free(on, count);
        decode_results_free(off, count);
    }
    assert_true(with < without);
}

/* How many of 50 steps need the network, by the paper's default strategy. */
static void canvas_cache_saves_evaluations(void **state) {
    (void)state;
    static const struct {
        int kind;
        const char *name;
        double most[6];
    } models[] = {
        {KIND_WEIGHTS, "random weights", {1, 3, 9, 50, 50, 50}},
        {KIND_PEAKED, "trained-like", {1, 3, 9, 50, 50, 50}},
        {KIND_RANDOM, "no structure", {1, 4, 14, 50, 50, 50}}, /* the worst case, unlike any
                                                                  network */
    };
    enum { RUNS = 100 };
    DecodeOptions options = decode_options_default();
    for (int m = 0; m < 3; m++) {
        printf("note: mean evaluations of 50 steps, %s:", models[m].name);
        double mean[6];
        for (int i = 0; i < 6; i++) {
            int N = 1 << i;
            long evaluations = 0;
            for (uint64_t seed = 0; seed < RUNS; seed++) {
                Synthetic model = {
                    .kind = models[m].kind, .vocabulary = 24, .mask_id = 23, .seed = seed};
                DecodeSpec spec = {0, N, 0};
                DecodeResult *result = decode_all(&model, &options, &spec, 1);
                evaluations += result->evaluations;
                decode_results_free(result, 1);
            }
            mean[i] = (double)evaluations / RUNS;
            printf(" N=%d %.1f%s", N, mean[i], i < 5 ? "," : "\n");
        }
        fflush(stdout);
        for (int i = 0; i < 6; i++) assert_true(mean[i] <= models[m].most[i]);
    }
}

/* ---- batches ---- */

static void batch_changes_nothing(void **state) {
    (void)state;
    enum { COUNT = 40 };
    TestRandom random = {.state = 21};
    for (int s = 0; s < 2 * STRATEGIES; s++) {
        DecodeOptions options = options_named(strategies[s / 2]);
        options.iterations = s % 3 ? 12 : 0; /* also a different number for each hypothesis */
        options.temperature = s % 2 ? 0.8f : 0;
        options.seed = 77 + (uint64_t)s;
        Synthetic model = {.kind = s % KINDS, .vocabulary = 12, .mask_id = 5, .seed = 3};
        DecodeSpec specs[COUNT];
        for (int h = 0; h < COUNT; h++)
            specs[h] = (DecodeSpec){random_below(&random, 4), 1 + random_below(&random, 20),
                                    random_below(&random, 3)};
        DecodeResult *together = decode_all(&model, &options, specs, COUNT);
        assert_true(model.calls <= decode_steps(&options, 20));
        int evaluations = 0;
        for (int h = 0; h < COUNT; h++) {
            evaluations += together[h].evaluations;
            DecodeResult *alone = decode_all(&model, &options, &specs[h], 1);
            assert_same(&together[h], alone);
            assert_true(together[h].evaluations <= alone->evaluations);
            decode_results_free(alone, 1);
        }
        model.canvases = 0;
        DecodeResult *again = decode_all(&model, &options, specs, COUNT);
        assert_int_equal(model.canvases, evaluations);
        decode_results_free(again, COUNT);
        decode_results_free(together, COUNT);
    }
}

static void samples_share_and_compete(void **state) {
    (void)state;
    enum { SAMPLES = 8, COUNT = 2 * SAMPLES };
    DecodeSpec specs[COUNT];
    for (int h = 0; h < COUNT; h++) specs[h] = (DecodeSpec){h % 2 ? 7 : 4, 6, h / 2};
    Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 20, .mask_id = 19, .distinct = true};
    DecodeOptions options = options_named("reparam-uncond-stochastic1-cosine");
    DecodeResult *results = decode_all(&model, &options, specs, COUNT);
    int different = 0;
    for (int h = 2; h < COUNT; h++)
        different += memcmp(results[h].tokens, results[h - 2].tokens, 6 * sizeof(int32_t)) != 0;
    assert_true(different > 0);
    for (int request = 4; request <= 7; request += 3) {
        int best = decode_best(results, specs, COUNT, request);
        assert_int_equal(specs[best].request, request);
        for (int h = 0; h < COUNT; h++)
            assert_true(specs[h].request != request || results[h].score <= results[best].score);
    }
    decode_results_free(results, COUNT);

    /* Samples of a deterministic strategy have the same canvases: only the first one evaluates. */
    options = decode_options_default();
    results = decode_all(&model, &options, specs, COUNT);
    for (int h = 0; h < COUNT; h++) assert_true((results[h].evaluations > 0) == (h < 2));
    decode_results_free(results, COUNT);
}

static void best_takes_the_first_of_equals(void **state) {
    (void)state;
    DecodeSpec specs[] = {{1, 2, 0}, {2, 2, 0}, {1, 3, 0}, {1, 4, 0}, {2, 3, 0}, {3, 1, 0}};
    DecodeResult results[] = {{.score = -2}, {.score = -9}, {.score = -1},
                              {.score = -1}, {.score = -9}, {.score = -INFINITY}};
    assert_int_equal(decode_best(results, specs, 6, 1), 2);
    assert_int_equal(decode_best(results, specs, 6, 2), 1);
    assert_int_equal(decode_best(results, specs, 6, 3), 5);
    assert_int_equal(decode_best(results, specs, 6, 4), -1);
    assert_int_equal(decode_best(NULL, NULL, 0, 1), -1);
    specs[0].prior = 1.5F; /* -0.5 in total */
    assert_int_equal(decode_best(results, specs, 6, 1), 0);
    specs[0].prior = 0.5F; /* less than enough */
    assert_int_equal(decode_best(results, specs, 6, 1), 2);
}

/* ---- the callback ---- */

typedef struct Watched {
    int steps[3]; /* the last step seen of each hypothesis */
    size_t used;
    TraceCell cells[3 * 12 * 6];
    bool evaluated[3 * 12];
    int calls;
} Watched;

static void watch_step(void *user, const DecodeStep *step) {
    Watched *watched = user;
    assert_int_equal(step->step, ++watched->steps[step->hypothesis]);
    watched->evaluated[watched->calls++] = step->evaluated;
    memcpy(watched->cells + watched->used, step->cells, (size_t)step->length * sizeof *step->cells);
    watched->used += (size_t)step->length;
}

static void watch_sees_the_trace(void **state) {
    (void)state;
    DecodeSpec specs[] = {{0, 3, 0}, {0, 6, 0}, {0, 1, 0}};
    DecodeOptions options = decode_options_default();
    options.iterations = 12;
    for (int trace = 0; trace < 2; trace++) {
        Synthetic model = {.kind = KIND_PEAKED, .vocabulary = 20, .mask_id = 19};
        DecodeResult *expected = decode_all(&model, &options, specs, 3), *results;
        DecodeRun run = run_of(&model, &options, specs, 3);
        Watched watched = {0};
        run.callback = watch_step, run.user = &watched, run.trace = trace;
        Error err;
        assert_ok(decode_run(&run, &results, &err), &err);
        assert_int_equal(watched.calls, 36);
        size_t at = 0;
        for (int t = 0; t < 12; t++)
            for (int h = 0; h < 3; h++) {
                size_t N = (size_t)specs[h].length;
                assert_memory_equal(watched.cells + at, expected[h].trace + (size_t)t * N,
                                    N * sizeof(TraceCell));
                assert_int_equal(watched.evaluated[3 * t + h], expected[h].evaluated[t]);
                at += N;
            }
        assert_true((results[0].trace != NULL) == trace && (results[0].evaluated != NULL) == trace);
        decode_results_free(results, 3);
        decode_results_free(expected, 3);
    }
}

typedef struct Stopping {
    int cancel, calls;
} Stopping;

static void stop_at_second(void *user, const DecodeStep *step) {
    Stopping *stopping = user;
    stopping->calls++;
    assert_int_equal(step->request, step->hypothesis ? 8 : 5);
    if (step->step == 2) __atomic_store_n(&stopping->cancel, 1, __ATOMIC_RELAXED);
}

/* Both hypotheses finish the step in which they are cancelled. */
static void cancelling_ends_the_run(void **state) {
    (void)state;
    DecodeSpec specs[] = {{5, 3, 0}, {8, 6, 0}};
    DecodeOptions options = decode_options_default();
    for (int before = 0; before < 2; before++) {
        Synthetic model = {.kind = KIND_PEAKED, .vocabulary = 20, .mask_id = 19};
        Stopping stopping = {.cancel = before};
        DecodeRun run = run_of(&model, &options, specs, 2);
        DecodeResult *results = (DecodeResult *)&model;
        Error err;
        run.callback = stop_at_second, run.user = &stopping, run.cancel = &stopping.cancel;
        assert_refused(decode_run(&run, &results, &err), &err, "cancelled");
        assert_null(results);
        assert_int_equal(stopping.calls, before ? 0 : 4);
        if (before) assert_int_equal(model.calls, 0);
    }
}

/* ---- failures ---- */

static void model_failures_are_passed_on(void **state) {
    (void)state;
    DecodeSpec specs[] = {{0, 5, 0}, {3, 7, 1}};
    for (int memory = 0; memory < 2; memory++) {
        DecodeOptions options = decode_options_default();
        options.no_canvas_cache = !memory;
        for (int call = 1; call <= 4; call++) {
            Synthetic model = {.vocabulary = 20, .mask_id = 19, .fail_call = call};
            DecodeRun run = run_of(&model, &options, specs, 2);
            DecodeResult *results = (DecodeResult *)&model;
            Error err;
            assert_refused(decode_run(&run, &results, &err), &err, "the model is out of order");
            assert_null(results);
            assert_int_equal(model.calls, call);
        }
    }
}

static void impossible_proposals_are_refused(void **state) {
    (void)state;
    static const struct {
        Proposal poison;
        const char *word;
    } cases[] = {
        {{3, NAN}, "nan"}, {{3, INFINITY}, "inf"}, {{19, -1}, "token 19"}, {{-1, -1}, "token -1"}};
    DecodeSpec specs[] = {{6, 5, 0}, {3, 7, 1}};
    for (int s = 0; s < STRATEGIES; s++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            DecodeOptions options = options_named(strategies[s]);
            Synthetic model = {
                .vocabulary = 20, .mask_id = 19, .poison_call = 2, .poison = cases[c].poison};
            DecodeRun run = run_of(&model, &options, specs, 2);
            DecodeResult *results;
            Error err;
            assert_ok(decode_run(&run, &results, &err), &err);
            /* The second call's first canvas is the first hypothesis's; the other one continues. */
            assert_true(results[0].error && !results[1].error);
            char step[32];
            snprintf(step, sizeof step, "step %d", results[0].steps + 1);
            snprintf(err.text, sizeof err.text, "%s", results[0].error);
            check_message(&err, strategies[s],
                          (const char *[]){cases[c].word, "position 1 of", step, NULL});
            assert_true(results[0].steps >= 1 && results[0].steps < decode_steps(&options, 5));
            assert_true(isfinite(results[1].score) && !isfinite(results[0].score));
            decode_results_free(results, 2);
        }
}

static void steps_follow_the_length(void **state) {
    (void)state;
    static const int lengths[] = {1, 7, 49, 50, 51, 200};
    DecodeOptions options = decode_options_default();
    DecodeSpec specs[6];
    for (int i = 0; i < 6; i++) {
        specs[i] = (DecodeSpec){0, lengths[i], 0};
        assert_int_equal(decode_steps(&options, lengths[i]), 50);
    }
    options.iterations = 0;
    Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 20, .mask_id = 19};
    DecodeResult *results = decode_all(&model, &options, specs, 6);
    for (int i = 0; i < 6; i++) {
        DecodeOptions fixed = options;
        fixed.iterations = lengths[i] < 10 ? 10 : lengths[i] < 50 ? lengths[i] : 50;
        assert_int_equal(results[i].steps, fixed.iterations);
        DecodeResult *same = decode_all(&model, &fixed, &specs[i], 1);
        assert_same(&results[i], same);
        decode_results_free(same, 1);
    }
    decode_results_free(results, 6);
}

static void wrong_runs_are_refused(void **state) {
    (void)state;
    Synthetic model = {.vocabulary = 20, .mask_id = 19};
    DecodeOptions good = decode_options_default(), options = good;
    DecodeSpec spec = {0, 4, 0};
    DecodeRun run = run_of(&model, &options, &spec, 1);
    DecodeResult *results;
    Error err;
    options.iterations = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "-1 iterations", "expected");
    options.iterations = INT32_MAX;
    assert_refused(decode_run(&run, &results, &err), &err, "iterations", "1000000");
    options = good, options.temperature = -0.5f;
    assert_refused(decode_run(&run, &results, &err), &err, "temperature -0.5");
    options.temperature = NAN;
    assert_refused(decode_run(&run, &results, &err), &err, "temperature");
    options = good, options.stochastic = true, options.tau = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "tau -1");
    options = good, spec.length = 0;
    assert_refused(decode_run(&run, &results, &err), &err, "hypothesis 0", "length 0");
    spec.length = INT32_MAX;
    assert_refused(decode_run(&run, &results, &err), &err, "hypothesis 0", "length 2147483647");
    spec = (DecodeSpec){0, 4, -1};
    assert_refused(decode_run(&run, &results, &err), &err, "sample -1");
    spec.sample = 0, run.mask_id = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "mask id -1");
    run.mask_id = 19, run.count = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "-1 hypotheses");
    run.count = 0; /* nothing to do is not an error */
    assert_ok(decode_run(&run, &results, &err), &err);
    assert_null(results);
    assert_int_equal(model.calls, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens),
        cmocka_unit_test(names_parse_and_print),
        cmocka_unit_test(wrong_names_are_refused),
        cmocka_unit_test(schedules_mask_k),
        cmocka_unit_test(ar_writes_left_to_right),
        cmocka_unit_test(memory_is_exact),
        cmocka_unit_test(memory_changes_nothing),
        cmocka_unit_test(canvas_cache_saves_evaluations),
        cmocka_unit_test(batch_changes_nothing),
        cmocka_unit_test(samples_share_and_compete),
        cmocka_unit_test(best_takes_the_first_of_equals),
        cmocka_unit_test(watch_sees_the_trace),
        cmocka_unit_test(cancelling_ends_the_run),
        cmocka_unit_test(model_failures_are_passed_on),
        cmocka_unit_test(impossible_proposals_are_refused),
        cmocka_unit_test(steps_follow_the_length),
        cmocka_unit_test(wrong_runs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
