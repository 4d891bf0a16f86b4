/* The strategies of LLaDA and Dream: names, what decode.h guarantees of them, and that proposals
 * chosen on the host are those of the device. test_decode_fixed compares every step with the
 * reference. */
#include <math.h>

#include "language/infill.h"
#include "language/row_choice.h"
#include "tests/decode_cases.h"
#include "tests/golden_models.h"

static const char *const models[] = {
    "llada-lowconf",
    "llada-random",
    "llada-block3-lowconf",
    "llada-block8-random",
    "llada-block1000000-lowconf-noend",
    "llada-block2-lowconf-endlast",
    "llada-random-noend-endlast",
    "dream-origin",
    "dream-maskgit_plus",
    "dream-topk_margin",
    "dream-entropy",
    "dream-maskgit_plus-stochastic0.5",
    "dream-topk_margin-stochastic2",
    "dream-entropy-stochastic0.125",
};
enum { MODELS = sizeof models / sizeof *models };

/* ---- names ---- */

static void names_parse_and_print(void **state) {
    (void)state;
    char name[128];
    for (int s = 0; s < MODELS; s++) {
        DecodeOptions options = options_named(models[s]);
        decode_strategy_name(name, sizeof name, &options);
        assert_string_equal(name, models[s]);
        assert_false(decode_approximate(&options));
        /* Another name leaves nothing of it. */
        DecodeOptions cmlm = options_named("cmlm");
        Error err;
        assert_ok(decode_strategy_parse(&options, "cmlm", &err), &err);
        assert_true(options.block == cmlm.block && !options.random_remasking &&
                    !options.end_never && !options.end_last && options.dream == cmlm.dream &&
                    !options.stochastic && options.tau == 0);
    }
}

static void wrong_names_are_refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"llada", "\"\" is not blockN"},
        {"llada-", "\"\" is not blockN"},
        {"llada-block32", "\"\" is not lowconf"},
        {"llada-block-lowconf", "\"block\" is not blockN"},
        {"llada-block0-lowconf", "\"block0\""},
        {"llada-block1.5-lowconf", "\"block1.5\""},
        {"llada-block1000001-lowconf", "\"block1000001\""},
        {"llada-block-3-lowconf", "\"block\""},
        {"llada-lowconf-", "\"-\" is not expected"},
        {"llada-lowconf-block32", "\"block32\" is not expected"},
        {"llada-lowconf-endlast-noend", "\"noend\" is not expected"},
        {"llada-lowconf-noend-noend", "\"noend\" is not expected"},
        {"llada-low_confidence", "\"low_confidence\""},
        {"llada-block8-block8-random", "\"block8\" is not lowconf"},
        {"LLaDA-lowconf", "unknown"},
        {"dream", "second part is \"\""},
        {"dream-maskgit", "second part is \"maskgit\""},
        {"dream-origin-stochastic1", "\"stochastic1\" is not expected"},
        {"dream-entropy-stochastic", "\"stochastic\" is not expected"},
        {"dream-entropy-", "\"-\" is not expected"},
        {"dream-entropy-stochastic1-", "\"-\" is not expected"},
        {"dream-entropy0.5", "second part is \"entropy0.5\""},
        {"dreamy", "dream-<origin|maskgit_plus"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        DecodeOptions options = decode_options_default(), before = options;
        Error err;
        assert_refused(decode_strategy_parse(&options, wrong[i][0], &err), &err, wrong[i][1],
                       wrong[i][0]);
        assert_memory_equal(&options, &before, sizeof options);
    }
}

/* ---- steps ---- */

/* Masks of a result after a step, among the positions [from, to). */
static int masks_after(const DecodeResult *result, int step, int32_t mask, int from, int to) {
    int masks = 0;
    for (int i = from; i < to; i++)
        masks += step == 0 || result->trace[(step - 1) * result->length + i].token == mask;
    return masks;
}

/* The blocks one after the other, with LLaDA's counts; nothing is ever rewritten. */
static void blocks_come_in_turn(void **state) {
    (void)state;
    TestRandom random = {.state = 31};
    for (int run = 0; run < 600; run++) {
        int N = 1 + random_below(&random, 40), B = 1 + random_below(&random, 14);
        int blocks = (N + B - 1) / B, T = 1 + random_below(&random, 60);
        DecodeOptions options = options_named(run % 2 ? "llada-lowconf" : "llada-random");
        options.block = B, options.iterations = T;
        options.seed = test_random_next(&random);
        options.temperature = run % 3 ? 0 : 0.9F;
        Synthetic model = {
            .kind = run % KINDS, .vocabulary = 12, .mask_id = 4, .seed = options.seed};
        DecodeSpec spec = {0, N, 0};
        DecodeResult *result = decode_all(&model, &options, &spec, 1);
        if (T < blocks) T = blocks;
        assert_int_equal(result->steps, T);
        int step = 0;
        for (int b = 0; b < blocks; b++) {
            int from = b * B, to = from + B < N ? from + B : N, M = to - from;
            int steps = T / blocks + (b < T % blocks);
            for (int s = 0; s < steps; s++) {
                step++;
                int written = masks_after(result, step - 1, 4, from, to) -
                              masks_after(result, step, 4, from, to);
                assert_int_equal(written, M / steps + (s < M % steps));
                assert_int_equal(masks_after(result, step, 4, to, N), N - to);
            }
            assert_int_equal(masks_after(result, step, 4, 0, to), 0);
        }
        assert_int_equal(step, T);
        for (int t = 1; t < T; t++)
            for (int i = 0; i < N; i++) {
                int32_t token = result->trace[(t - 1) * N + i].token;
                if (token != 4) assert_int_equal(result->trace[t * N + i].token, token);
            }
        decode_results_free(result, 1);
    }
}

/* floor(M (1 - s / t)), here with times in long double, a little above so that whole numbers stay
 * whole; all in the last step. */
static void dream_counts(void **state) {
    (void)state;
    static const int shapes[][2] = {{1, 1},  {1, 9},    {7, 3},   {16, 16},
                                    {33, 8}, {64, 100}, {128, 64}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        for (int s = 8; s < 11; s++) {
            int N = shapes[k][0], T = shapes[k][1], masks = N;
            DecodeOptions options = options_named(models[s]);
            options.iterations = T;
            Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 9, .mask_id = 3, .seed = k};
            DecodeSpec spec = {0, N, 0};
            DecodeResult *result = decode_all(&model, &options, &spec, 1);
            for (int t = 1; t <= T; t++) {
                long double now = 1 - 0.999L * (t - 1) / T, next = 1 - 0.999L * t / T;
                int n = t == T ? masks : (int)floorl(masks * (1 - next / now) + 1e-12L);
                masks -= n;
                assert_int_equal(masks_after(result, t, 3, 0, N), masks);
            }
            assert_int_equal(masks, 0);
            decode_results_free(result, 1);
        }
}

/* noend keeps the end token out of every proposal; endlast writes it only where nothing else of the
 * block is left. A vocabulary of 5 has it often. */
static void end_tokens(void **state) {
    (void)state;
    enum { N = 12, MASK = 1, END = 2, TURN = 3 };
    int ends = 0, late = 0;
    for (int run = 0; run < 200; run++) {
        DecodeOptions options =
            options_named(run % 2 ? "llada-lowconf-noend" : "llada-block6-lowconf-endlast");
        options.iterations = N, options.seed = (uint64_t)run;
        options.temperature = run % 3 ? 0 : 1;
        Synthetic model = {
            .kind = KIND_RANDOM, .vocabulary = 5, .mask_id = MASK, .seed = (uint64_t)run};
        DecodeSpec spec = {0, N, 0};
        DecodeResult *result = decode_all(&model, &options, &spec, 1);
        for (int t = 1; t <= N; t++) {
            const TraceCell *now = result->trace + (t - 1) * N;
            for (int i = 0; i < N; i++) {
                if (run % 2) assert_int_not_equal(now[i].proposal.token, END);
                bool fresh = now[i].token != MASK && (t == 1 || now[i - N].token == MASK);
                if (run % 2 || !fresh || (now[i].token != END && now[i].token != TURN)) continue;
                ends++;
                for (int j = i / 6 * 6; j < i / 6 * 6 + 6; j++) {
                    if (now[j].token != MASK) continue;
                    late++;
                    assert_true(now[j].proposal.token == END || now[j].proposal.token == TURN);
                }
            }
        }
        decode_results_free(result, 1);
    }
    assert_true(ends > 50 && late > 10);
}

static void wrong_runs_are_refused(void **state) {
    (void)state;
    Synthetic model = {.vocabulary = 20, .mask_id = 19};
    DecodeSpec spec = {0, 4, 0};
    DecodeResult *results;
    Error err;
    DecodeOptions options = options_named("llada-lowconf-endlast");
    DecodeRun run = run_of(&model, &options, &spec, 1);
    run.end_count = 0;
    assert_refused(decode_run(&run, &results, &err), &err, "endlast", "leave them out");
    run.end_count = 2, run.ends[0] = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "endlast", "lacks");
    options.end_last = false, options.block = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "blocks of -1");
    options = options_named("dream-entropy-stochastic1"), options.tau = -1;
    assert_refused(decode_run(&run, &results, &err), &err, "tau -1");
    assert_int_equal(model.calls, 0);
}

static int nan_confidence(void *user, const DecodeCanvas *canvases, int count, float temperature,
                          uint64_t seed, Proposal *out, Error *err) {
    int status = synthetic_evaluate(user, canvases, count, temperature, seed, out, err);
    if (canvases[0].hypothesis == 0) canvases[0].confidence[2] = NAN;
    return status;
}

static void confidences_are_checked(void **state) {
    (void)state;
    Synthetic model = {.vocabulary = 20, .mask_id = 19};
    DecodeSpec specs[] = {{0, 4, 0}, {1, 5, 0}};
    DecodeResult *results;
    Error err;
    DecodeOptions options = options_named("dream-entropy");
    DecodeRun run = run_of(&model, &options, specs, 2);
    run.evaluate = nan_confidence;
    assert_ok(decode_run(&run, &results, &err), &err);
    assert_non_null(results[0].error);
    assert_non_null(strstr(results[0].error, "confidence is nan at position 3 of 4, step 1"));
    assert_true(!results[1].error && isfinite(results[1].score));
    decode_results_free(results, 2);
}

/* Neither the canvas cache nor the rest of a batch changes an answer. */
static void cache_and_batch_change_nothing(void **state) {
    (void)state;
    enum { COUNT = 12 };
    TestRandom random = {.state = 77};
    for (int s = 0; s < 3 * MODELS; s++) {
        DecodeOptions options = options_named(models[s / 3]);
        options.iterations = random_below(&random, 30);
        options.temperature = s % 3 == 2 ? 0.7F : 0;
        options.seed = test_random_next(&random);
        Synthetic model = {.kind = s % KINDS, .vocabulary = 13, .mask_id = 6, .seed = 3};
        DecodeSpec specs[COUNT];
        for (int h = 0; h < COUNT; h++)
            specs[h] = (DecodeSpec){random_below(&random, 3), 1 + random_below(&random, 20),
                                    random_below(&random, 2)};
        DecodeResult *together = decode_all(&model, &options, specs, COUNT);
        options.no_canvas_cache = true;
        for (int h = 0; h < COUNT; h++) {
            DecodeResult *alone = decode_all(&model, &options, &specs[h], 1);
            assert_same(&together[h], alone);
            decode_results_free(alone, 1);
        }
        decode_results_free(together, COUNT);
    }
}

/* ---- proposals chosen on the host ---- */

/* From a table of probabilities. */
static void measures_of_a_row(void **state) {
    (void)state;
    const float p[] = {0.5F, 0.125F, 0.25F, 0.0625F, 0.0625F};
    float logits[5], confidence;
    for (int v = 0; v < 5; v++) logits[v] = logf(p[v]) + 3;
    RowChoice c = {.how = {DECODE_PROBABILITY, -1}, .banned = -1, .limit = 5};
    Proposal got = row_choose(logits, &c, &confidence);
    assert_int_equal(got.token, 0);
    assert_true(fabs((double)got.score - log(0.5)) < 1e-6 && fabs((double)confidence - 0.5) < 1e-6);
    c.how.measure = DECODE_MARGIN;
    row_choose(logits, &c, &confidence);
    assert_true(fabs((double)confidence - 0.25) < 1e-6);
    c.how.measure = DECODE_NEG_ENTROPY;
    row_choose(logits, &c, &confidence);
    assert_true(fabs((double)confidence + 1.875 * log(2)) < 1e-6);
    c.temperature = 0.5F, c.how.measure = DECODE_MARGIN; /* squares: 0.25, 1/64, 1/16, 2/256 */
    row_choose(logits, &c, &confidence);
    assert_true(fabs((double)confidence - 0.1875 / (0.25 + 1 / 64.0 + 1 / 16.0 + 2 / 256.0)) <
                1e-6);
    c.temperature = 0, c.how = (DecodeChoice){DECODE_PROBABILITY, 0}, c.banned = 2;
    got = row_choose(logits, &c, &confidence);
    assert_int_equal(got.token, 1);
    assert_true(fabs((double)confidence - 0.5) < 1e-6);
    c.how.measure = DECODE_MARGIN, c.limit = 2; /* a single token */
    assert_int_equal(row_choose(logits, &c, &confidence).token, 1);
    assert_true(confidence == 1);
    logits[1] = NAN;
    assert_true(isnan(row_choose(logits, &c, &confidence).score));
    c.limit = 1;
    assert_true(isnan(row_choose(logits, &c, &confidence).score));
    logits[0] = -INFINITY, logits[1] = 0,
    c = (RowChoice){.how = {DECODE_NEG_ENTROPY, -1}, .banned = -1, .limit = 2};
    got = row_choose(logits, &c, &confidence);
    assert_true(got.token == 1 && got.score == 0 && confidence == 0);
}

enum { LENGTH = 9 };

/* A model's proposals with a measure are those without; with `never`, all but that. */
static void infill_chooses_alike(void **state) {
    (void)state;
    Fixture f;
    Error err;
    fixture_open(&f, "tests/golden/models/tiny-base", "f32");
    int32_t mask = tokenizer_mask_id(f.model.tokenizer), prompt[] = {5, 9, 7}, canvas[LENGTH];
    InfillPrompt asked = {prompt, 3, -1};
    InfillConfig config = {.model = language_of_xlmr(&f.model.xlmr),
                           .device = f.device,
                           .mask_id = mask,
                           .vocab_limit = tokenizer_size(f.model.tokenizer),
                           .prompts = &asked,
                           .prompt_count = 1};
    Infill *infill;
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, LENGTH, 3 * (LENGTH + 1), &err), &err);
    for (int run = 0; run < 12; run++) {
        for (int i = 0; i < LENGTH; i++) canvas[i] = (i + run) % 3 ? mask : 5 + (i * 7 + run) % 40;
        float temperature = run % 2 ? 0.8F : 0, confidence[LENGTH];
        DecodeChoice measured = {(DecodeMeasure)(1 + run % 3), -1}, never = {0, -1};
        DecodeCanvas usual = {.length = LENGTH, .tokens = canvas, .noise = (uint64_t)run};
        DecodeCanvas with = usual, without = usual;
        with.choice = &measured, with.confidence = confidence;
        without.choice = &never;
        Proposal want[LENGTH], got[2][LENGTH];
        DecodeBatch batches[] = {{&with, 1, temperature, 9, got[0]},
                                 {&usual, 1, temperature, 9, want},
                                 {&without, 1, temperature, 9, got[1]}};
        assert_ok(infill_evaluate_all(infill, batches, 2, &err), &err);
        never.never = want[4].token;
        assert_ok(infill_evaluate_all(infill, batches, 3, &err), &err);
        for (int i = 0; i < LENGTH; i++) {
            assert_int_equal(got[0][i].token, want[i].token);
            assert_true(fabsf(got[0][i].score - want[i].score) < 1e-5F * (1 - want[i].score));
            assert_int_not_equal(got[1][i].token, never.never);
            if (want[i].token != never.never) {
                assert_int_equal(got[1][i].token, want[i].token);
                assert_true(got[1][i].score > want[i].score);
            }
            if (measured.measure == DECODE_PROBABILITY && temperature == 0)
                assert_true(fabsf(confidence[i] - expf(want[i].score)) < 1e-5F);
            assert_true(measured.measure == DECODE_NEG_ENTROPY ? confidence[i] < 0
                                                               : confidence[i] > 0);
        }
    }
    infill_close(infill);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_parse_and_print),
        cmocka_unit_test(wrong_names_are_refused),
        cmocka_unit_test(blocks_come_in_turn),
        cmocka_unit_test(dream_counts),
        cmocka_unit_test(end_tokens),
        cmocka_unit_test(wrong_runs_are_refused),
        cmocka_unit_test(confidences_are_checked),
        cmocka_unit_test(cache_and_batch_change_nothing),
        cmocka_unit_test(measures_of_a_row),
        cmocka_unit_test(infill_chooses_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
