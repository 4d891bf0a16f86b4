/* Infilling: decoding with fixed tokens, against the reference and against a second implementation
 * written here from decode.h, over 10,000 random templates. */
#include <math.h>

#include "kernels/random.h"
#include "tests/decode_cases.h"

/* ---- against the reference ---- */

/* All cases of a file; returns their number. */
static int compare_file(const char *path) {
    size_t size, at = 0;
    int cases = 0;
    char *bytes = file_bytes(path, &size);
    if (!bytes) fail_msg("cannot read %s", path);
    for (; at < size; cases++) {
        GoldenHeader header;
        assert_true(size - at >= sizeof header);
        memcpy(&header, bytes + at, sizeof header);
        at += sizeof header;
        size_t fixed = (size_t)header.length * sizeof(int32_t);
        size_t cells = (size_t)header.length * (size_t)header.steps * sizeof(TraceCell);
        assert_true(size - at >= fixed + cells);
        golden_case(&header, (const int32_t *)(const void *)(bytes + at),
                    (const TraceCell *)(const void *)(bytes + at + fixed));
        at += fixed + cells;
    }
    free(bytes);
    return cases;
}

static void reference_agrees(void **state) {
    (void)state;
    assert_int_equal(compare_file("tests/golden/decode/templates.bin"), 10 * STRATEGIES);
    assert_int_equal(compare_file("tests/golden/decode/approximate.bin"), 40);
    assert_int_equal(compare_file("tests/golden/decode/models.bin"), 400);
    const char *more = getenv("EASYFIRST_TEMPLATES"); /* as many as make_decode.py was asked for */
    if (more) printf("note: %d templates of %s\n", compare_file(more), more);
}

/* ---- a second implementation ---- */

enum { LONGEST = 24 };

/* A hypothesis with the flags of decode.h, over the open positions: place[j] is the j-th one's. */
typedef struct Plain {
    int N, place[LONGEST];
    int32_t canvas[LONGEST]; /* all positions */
    float score[LONGEST];
    bool noisy[LONGEST];
} Plain;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void plain_reparam(Plain *p, const DecodeOptions *o, uint64_t noise, int t, int T,
                          const Proposal *proposals) {
    double rate = o->schedule == DECODE_LINEAR ? 1 - (double)t / T : cos(acos(-1) / 2 * t / T);
    int k = t == T ? 0 : (int)floor(p->N * rate + (o->schedule == DECODE_LINEAR ? 1e-9 : 0));
    double rank[LONGEST], sorted[LONGEST];
    for (int j = 0; j < p->N; j++) {
        rank[j] = proposals[p->place[j]].score;
        if (o->stochastic)
            rank[j] += o->tau * rate * random_gumbel(o->seed, noise, (uint64_t)p->place[j]);
    }
    memcpy(sorted, rank, (size_t)p->N * sizeof *rank);
    qsort(sorted, (size_t)p->N, sizeof *sorted, by_size);
    for (int j = 0; j < p->N; j++) {
        int i = p->place[j];
        Proposal new = proposals[i];
        bool low = rank[j] < sorted[k], not_v2 = low, not_v1 = low;
        if (o->conditional) not_v1 = low && new.token == p->canvas[i] && new.score < p->score[i];
        bool erase = p->noisy[i] ? not_v2 : not_v1;
        if (p->noisy[i] && !not_v2) p->canvas[i] = new.token, p->score[i] = new.score;
        p->noisy[i] = (p->noisy[i] || not_v1) && not_v2;
        if (erase) p->canvas[i] = -1, p->score[i] = -INFINITY;
    }
}

static void plain_step(Plain *p, const DecodeOptions *o, const DecodeSpec *spec, int t, int T,
                       const Proposal *proposals) {
    DecodeNoise purpose = o->strategy == DECODE_CMLM ? DECODE_NOISE_WRITING : DECODE_NOISE_RANKING;
    uint64_t noise =
        random_stream((uint64_t)spec->length, (uint64_t)spec->sample, (uint64_t)t, purpose);
    if (o->strategy == DECODE_REPARAM) {
        plain_reparam(p, o, noise, t, T, proposals);
        return;
    }
    for (int j = 0; j < p->N; j++) {
        int i = p->place[j];
        bool write = o->strategy == DECODE_AR
                         ? j == t - 1
                         : random_uniform(o->seed, noise, (uint64_t)i) < 1.0 / (T - t + 1);
        if (!p->noisy[i] || !write) continue;
        p->canvas[i] = proposals[i].token, p->score[i] = proposals[i].score, p->noisy[i] = false;
    }
}

/* Compares every step of a result with it; no fixed token may ever change. */
static void compare_plain(Synthetic *model, const DecodeOptions *o, const DecodeSpec *spec,
                          const DecodeResult *result) {
    Plain p = {0};
    for (int i = 0; i < spec->length; i++) {
        p.noisy[i] = spec->fixed[i] == model->mask_id;
        p.canvas[i] = p.noisy[i] ? -1 : spec->fixed[i];
        p.score[i] = p.noisy[i] ? -INFINITY : 0;
        if (p.noisy[i]) p.place[p.N++] = i;
    }
    int T = o->strategy == DECODE_AR ? p.N : o->iterations;
    assert_int_equal(result->steps, T);
    assert_int_equal(result->open, p.N);
    for (int t = 1; t <= T; t++) {
        int32_t shown[LONGEST];
        Proposal proposals[LONGEST];
        Error err;
        for (int i = 0; i < spec->length; i++)
            shown[i] = p.canvas[i] < 0 ? model->mask_id : p.canvas[i];
        DecodeCanvas canvas = {.request = spec->request,
                               .length = spec->length,
                               .tokens = shown,
                               .noise =
                                   random_stream((uint64_t)spec->length, (uint64_t)spec->sample,
                                                 (uint64_t)t, DECODE_NOISE_PROPOSAL)};
        assert_ok(synthetic_evaluate(model, &canvas, 1, o->temperature, o->seed, proposals, &err),
                  &err);
        plain_step(&p, o, spec, t, T, proposals);
        const TraceCell *cells = result->trace + (size_t)(t - 1) * (size_t)spec->length;
        for (int i = 0; i < spec->length; i++) {
            int32_t expected = p.canvas[i] < 0 ? model->mask_id : p.canvas[i];
            assert_int_equal(cells[i].token, expected);
            assert_true(cells[i].score == p.score[i]);
            if (spec->fixed[i] == model->mask_id) continue;
            assert_int_equal(cells[i].token, spec->fixed[i]);
            assert_int_equal(cells[i].proposal.token, spec->fixed[i]);
            assert_true(cells[i].score == 0 && cells[i].proposal.score == 0);
        }
    }
    double sum = 0;
    for (int j = 0; j < p.N; j++) sum += (double)p.score[p.place[j]];
    assert_true(fabs(result->score - sum / p.N) <= 1e-12 * fabs(sum));
    for (int i = 0; i < spec->length; i++) assert_int_equal(result->tokens[i], p.canvas[i]);
}

/* A template, at least one of whose positions is open. */
static void template_make(TestRandom *random, int32_t *fixed, int length, const Synthetic *model) {
    for (int i = 0; i < length; i++) {
        fixed[i] = random_below(random, model->vocabulary);
        if (random_below(random, 2)) fixed[i] = model->mask_id;
    }
    fixed[random_below(random, length)] = model->mask_id;
}

static void templates_are_kept(void **state) {
    (void)state;
    enum { RUNS = 5000, SAMPLES = 2 };
    TestRandom random = {.state = 2020};
    long fixed_tokens = 0, open_tokens = 0;
    for (int run = 0; run < RUNS; run++) {
        DecodeOptions options = options_named(strategies[run % STRATEGIES]);
        options.iterations = 1 + random_below(&random, 12);
        options.seed = test_random_next(&random);
        options.temperature = run % 5 == 4 ? 0.8f : 0;
        options.no_canvas_cache = run % 7 == 6;
        Synthetic model = {.kind = random_below(&random, KIND_WEIGHTS),
                           .vocabulary = 4 + random_below(&random, 9),
                           .mask_id = random_below(&random, 4),
                           .seed = options.seed};
        int32_t fixed[SAMPLES][LONGEST];
        DecodeSpec specs[SAMPLES];
        int length = 1 + random_below(&random, run % 8 ? 10 : LONGEST);
        for (int h = 0; h < SAMPLES; h++) { /* of one request: they share the canvas cache */
            template_make(&random, fixed[h], length, &model);
            specs[h] =
                (DecodeSpec){.request = run % 5, .length = length, .sample = h, .fixed = fixed[h]};
            open_tokens += decode_open(&specs[h], model.mask_id);
            fixed_tokens += length - decode_open(&specs[h], model.mask_id);
        }
        DecodeResult *results = decode_all(&model, &options, specs, SAMPLES);
        for (int h = 0; h < SAMPLES; h++) compare_plain(&model, &options, &specs[h], &results[h]);
        decode_results_free(results, SAMPLES);
    }
    printf("note: %d templates, %ld fixed and %ld open tokens, every step equal to a second "
           "implementation\n",
           RUNS * SAMPLES, fixed_tokens, open_tokens);
}

/* A template without a fixed token is no template. */
static void open_templates_change_nothing(void **state) {
    (void)state;
    for (int s = 0; s < STRATEGIES; s++) {
        DecodeOptions options = options_named(strategies[s]);
        options.iterations = 9;
        Synthetic model = {.kind = KIND_PEAKED, .vocabulary = 30, .mask_id = 7, .seed = 4};
        int32_t fixed[] = {7, 7, 7, 7, 7, 7};
        DecodeSpec with = {2, 6, 1, .fixed = fixed}, without = {2, 6, 1};
        DecodeResult *a = decode_all(&model, &options, &with, 1);
        DecodeResult *b = decode_all(&model, &options, &without, 1);
        assert_same(a, b);
        assert_int_equal(a->open, 6);
        decode_results_free(a, 1), decode_results_free(b, 1);
    }
}

/* What the model says of fixed positions is not looked at, not even if it is impossible. */
static int blind_evaluate(void *user, const DecodeCanvas *canvases, int count, float temperature,
                          uint64_t seed, Proposal *out, Error *err) {
    if (synthetic_evaluate(user, canvases, count, temperature, seed, out, err)) return -1;
    const Synthetic *model = user;
    for (int c = 0; c < count; c++) {
        assert_non_null(canvases[c].fixed);
        for (int i = 0; i < canvases[c].length; i++)
            if (canvases[c].fixed[i] != model->mask_id) out[i] = (Proposal){-5, NAN};
        out += canvases[c].length;
    }
    return 0;
}

static void proposals_of_fixed_tokens_are_ignored(void **state) {
    (void)state;
    int32_t fixed[] = {3, 7, 7, 1, 7};
    DecodeSpec spec = {0, 5, 0, .fixed = fixed};
    for (int s = 0; s < STRATEGIES; s++) {
        DecodeOptions options = options_named(strategies[s]);
        Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 30, .mask_id = 7, .seed = 4};
        DecodeResult *expected = decode_all(&model, &options, &spec, 1), *results;
        DecodeRun run = run_of(&model, &options, &spec, 1);
        run.evaluate = blind_evaluate;
        Error err;
        assert_ok(decode_run(&run, &results, &err), &err);
        assert_same(results, expected);
        decode_results_free(results, 1), decode_results_free(expected, 1);
    }
}

static void impossible_templates_are_refused(void **state) {
    (void)state;
    Synthetic model = {.vocabulary = 20, .mask_id = 19};
    DecodeOptions options = decode_options_default();
    int32_t fixed[] = {3, 4, 5};
    DecodeSpec spec = {0, 3, 0, .fixed = fixed};
    DecodeRun run = run_of(&model, &options, &spec, 1);
    DecodeResult *results;
    Error err;
    assert_refused(decode_run(&run, &results, &err), &err, "all 3 tokens", "fixed", "open");
    fixed[1] = 19, fixed[2] = -4;
    assert_refused(decode_run(&run, &results, &err), &err, "token -4", "position 3 of 3");
    assert_int_equal(model.calls, 0);
}

/* ---- approximate decoding ---- */

static const char *const approximate[] = {"confidence0.9", "confidence0.3", "confidence0",
                                          "entropy0", "entropy1.5"};

static void approximate_names(void **state) {
    (void)state;
    char name[128];
    Error err;
    for (size_t i = 0; i < sizeof approximate / sizeof *approximate; i++) {
        DecodeOptions options = options_named(approximate[i]);
        decode_strategy_name(name, sizeof name, &options);
        assert_string_equal(name, approximate[i]);
        assert_true(decode_approximate(&options));
    }
    static const char *const wrong[] = {"confidence", "confidence1.5", "confidence-1",
                                        "entropy",    "entropyx",      "confidence0.9-linear",
                                        "entropy1e3"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        DecodeOptions options = decode_options_default();
        assert_refused(decode_strategy_parse(&options, wrong[i], &err), &err, wrong[i]);
    }
    DecodeOptions options = decode_options_default();
    assert_false(decode_approximate(&options));
    options.early_stop = 1;
    assert_true(decode_approximate(&options));
}

/* At a probability of 1 one token a step is written, the surest; at 0 all in the first. */
static void bounds_have_their_ends(void **state) {
    (void)state;
    Synthetic model = {.kind = KIND_RANDOM, .vocabulary = 30, .mask_id = 7, .seed = 4};
    DecodeSpec spec = {0, 9, 0};
    static const struct {
        const char *name;
        int evaluations;
    } cases[] = {{"confidence1", 9}, {"confidence0", 1}, {"entropy0", 9}, {"entropy1000000", 1}};
    for (int i = 0; i < 4; i++) {
        DecodeOptions options = options_named(cases[i].name);
        DecodeResult *result = decode_all(&model, &options, &spec, 1);
        assert_int_equal(result->evaluations, cases[i].evaluations);
        assert_int_equal(result->steps, 9);
        decode_results_free(result, 1);
    }
}

/* Until it stops, a run with early_stop is the one without; then its answer is the proposed one. */
static void early_stop_is_a_prefix(void **state) {
    (void)state;
    TestRandom random = {.state = 5};
    int stopped = 0;
    for (int run = 0; run < 400; run++) {
        DecodeOptions options = options_named(strategies[run % STRATEGIES]);
        options.iterations = 2 + random_below(&random, 20);
        options.seed = test_random_next(&random);
        Synthetic model = {.kind = run % 2 ? KIND_PEAKED : KIND_WEIGHTS,
                           .vocabulary = 4 + random_below(&random, 9),
                           .mask_id = random_below(&random, 4),
                           .seed = options.seed};
        int N = 1 + random_below(&random, 12), wanted = 1 + random_below(&random, 4);
        DecodeSpec spec = {run % 3, N, 0};
        options.no_canvas_cache = run % 3 == 0;
        DecodeResult *whole = decode_all(&model, &options, &spec, 1);
        options.early_stop = wanted;
        DecodeResult *early = decode_all(&model, &options, &spec, 1);
        assert_int_equal(early->steps, whole->steps);
        assert_true(early->evaluations <= whole->evaluations);
        int32_t before[12], now[12];
        int same = 0, step = 0;
        for (bool end = false; step < whole->steps && !end; step++) {
            const TraceCell *cells = whole->trace + step * N, *got = early->trace + step * N;
            for (int i = 0; i < N; i++) {
                int32_t shown = step ? cells[i - N].token : model.mask_id;
                now[i] = shown == model.mask_id ? cells[i].proposal.token : shown;
            }
            same = same && !memcmp(now, before, (size_t)N * sizeof *now) ? same + 1 : 1;
            memcpy(before, now, sizeof now);
            end = same >= wanted;
            for (int i = 0; i < N; i++)
                assert_int_equal(got[i].token, end ? now[i] : cells[i].token);
        }
        for (; step < whole->steps; step++, stopped++) {
            /* A settled step is evaluated all the same without the cache. */
            assert_false(early->evaluated[step] && !options.no_canvas_cache);
            for (int i = 0; i < N; i++) assert_int_equal(early->trace[step * N + i].token, now[i]);
        }
        decode_results_free(whole, 1), decode_results_free(early, 1);
    }
    assert_true(stopped > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_agrees),
        cmocka_unit_test(templates_are_kept),
        cmocka_unit_test(open_templates_change_nothing),
        cmocka_unit_test(proposals_of_fixed_tokens_are_ignored),
        cmocka_unit_test(impossible_templates_are_refused),
        cmocka_unit_test(approximate_names),
        cmocka_unit_test(bounds_have_their_ends),
        cmocka_unit_test(early_stop_is_a_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
