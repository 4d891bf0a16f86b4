/* The bound on a text's likelihood: its masks; losses against torch's on the same masks, and the
 * expectation over all masks (tests/reference/make_likelihood.py); estimates within their standard
 * errors of it; the chain rule of autoregressive models. And guidance: 200 prompts decoded as
 * LLaDA's sampler does. */
#include "language/likelihood.h"

#include <math.h>

#include "tests/decode_cases.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "tests/opened.h"

#define GOLDEN "tests/golden/likelihood/"
enum { TEXT = 8, PROMPT = 5 };

/* ---- The masks. ---- */

/* If every token's loss is 1 the bound is L, and each token's part of it 1 in the mean. */
static void masks_are_uniform(void **state) {
    (void)state;
    enum { SEEDS = 400, LONGEST = 23 };
    for (int L = 1; L <= LONGEST; L += 2) {
        double part[LONGEST] = {0}, counts[LONGEST + 1] = {0}, all = 0;
        bool masked[LONGEST];
        for (int seed = 0; seed < SEEDS; seed++) {
            const MaskPlan plan = mask_plan(L, 40, (uint64_t)seed, 77);
            assert_true(plan.exact == (L <= 5));
            assert_int_equal(plan.samples, plan.exact ? (1 << L) - 1 : 40);
            double sum = 0;
            for (int s = 0; s < plan.samples; s++) {
                int l = 0;
                double factor = mask_plan_sample(&plan, s, masked);
                for (int i = 0; i < L; i++) {
                    l += masked[i];
                    part[i] += masked[i] ? factor / SEEDS : 0;
                }
                assert_true(l >= 1);
                counts[l] += 1, all += 1, sum += factor * l;
                if (!plan.exact) assert_true(fabs(factor - (double)L / l / 40) < 1e-12);
            }
            assert_true(fabs(sum - L) < 1e-9);
        }
        for (int i = 0; i < L; i++) assert_true(fabs(part[i] - 1) < 0.1);
        for (int l = 1; l <= L && L > 5; l++) /* 5 standard deviations of independent draws */
            assert_true(fabs(counts[l] - all / L) < 5 * sqrt(all / L));
    }
}

static void groups_cover_the_samples(void **state) {
    (void)state;
    for (int samples = 1; samples < 100; samples++) {
        const MaskPlan plan = mask_plan(30, samples, 1, 2);
        int next = 0, first, n;
        for (int g = 0; (n = mask_plan_group(&plan, g, &first)); g++) {
            assert_int_equal(first, next);
            assert_in_range(n, 1, 8);
            next += n;
        }
        assert_int_equal(next, samples);
    }
}

/* ---- Models. ---- */

static Infill *infill_of(const Opened *o, const InfillPrompt *prompts, int count, int batch) {
    const Multimodal *m = &o->model.parts;
    const InfillConfig config = {.model = m->language,
                                 .device = o->device,
                                 .pattern = m->attention,
                                 .answer_position = m->answer_position,
                                 .mask_id = tokenizer_mask_id(m->tokenizer),
                                 .vocab_limit = language_vocab(&m->language),
                                 .batch_tokens = batch,
                                 .prompts = prompts,
                                 .prompt_count = count};
    Infill *infill;
    Error err;
    assert_ok(infill_open(&infill, &config, &err), &err);
    return infill;
}

typedef struct Kind {
    const char *name, *folder;
} Kind;

static const Kind kinds[] = {{"llada", "tests/golden/llama/folders/llada"},
                             {"dream", "tests/golden/llama/folders/dream"},
                             {"xlmr", "tests/golden/models/tiny-base"},
                             {"xl", "tests/golden/models/tiny-xl"}}; /* block-causal */
enum { GOLDEN_KINDS = 3, KIND_COUNT = 4 };

/* ---- Against torch. ---- */

static void check_kind(const Checkpoint *c, const Kind *kind) {
    Opened o;
    Error err;
    char name[64];
    int n, count;
    opened_open(&o, kind->folder);
    snprintf(name, sizeof name, "%s.prompt", kind->name);
    int32_t *prompt = golden_ids(c, name, 0, &n);
    const InfillPrompt asked = {prompt, n, -1, false};
    snprintf(name, sizeof name, "%s.answer", kind->name);
    int32_t *answer = golden_ids(c, name, 0, &n);
    assert_int_equal(n, TEXT);
    snprintf(name, sizeof name, "%s.masks", kind->name);
    int32_t *masks = golden_ids(c, name, 0, &count);
    snprintf(name, sizeof name, "%s.value", kind->name);
    const double value = (double)((const float *)golden(c, name, 0).data)[0];
    snprintf(name, sizeof name, "%s.exact", kind->name);
    const double exact = (double)((const float *)golden(c, name, 0).data)[0];

    Infill *infill = infill_of(&o, &asked, 1, 0);
    double shares[TEXT], sum = 0, mean = 0;
    const LikelihoodText text = {0, answer, TEXT, 1, shares};
    LikelihoodBound bound;
    assert_ok(
        infill_likelihoods(infill, &text, 1, &(LikelihoodOptions){.samples = 255}, &bound, &err),
        &err);
    assert_int_equal(bound.evaluations, 255);
    assert_true(bound.variance == 0 && fabs(bound.nats - exact) < 1e-4 * exact);
    for (int i = 0; i < TEXT; i++) sum += shares[i];
    assert_true(fabs(sum - bound.nats) < 1e-9 * bound.nats);

    for (int s = 0; s < count / TEXT; s++) {
        bool masked[TEXT];
        float losses[TEXT];
        int l = 0;
        for (int i = 0; i < TEXT; i++) l += masked[i] = masks[s * TEXT + i] != 0;
        assert_ok(infill_losses(infill, &text, masked, losses, &err), &err);
        for (int i = 0; i < TEXT; i++)
            mean += masked[i] ? (double)losses[i] * TEXT / l / (count / TEXT) : 0;
    }
    if (fabs(mean - value) > 1e-4) fail_msg("%s: %.9g, not %.9g", kind->name, mean, value);
    infill_close(infill);
    free(prompt), free(answer), free(masks);
    opened_close(&o);
}

static void equal_to_torch(void **state) {
    (void)state;
    Checkpoint c;
    Error err;
    assert_ok(checkpoint_open(&c, GOLDEN "likelihood.safetensors", NULL, &err), &err);
    for (int k = 0; k < GOLDEN_KINDS; k++) check_kind(&c, &kinds[k]);
    checkpoint_close(&c);
}

/* ---- Estimates. ---- */

enum { TEXTS = 40 };

typedef struct Texts {
    int32_t prompts[TEXTS][PROMPT], tokens[TEXTS][TEXT];
    InfillPrompt asked[TEXTS];
    LikelihoodText texts[TEXTS];
} Texts;

/* Random ones of 8 tokens, every fourth without a prompt. */
static void texts_make(Texts *t, uint64_t seed) {
    TestRandom random = {seed};
    for (int i = 0; i < TEXTS; i++) {
        for (int k = 0; k < PROMPT; k++) t->prompts[i][k] = 10 + random_below(&random, 200);
        for (int k = 0; k < TEXT; k++) t->tokens[i][k] = 10 + random_below(&random, 200);
        t->asked[i] = (InfillPrompt){t->prompts[i], i % 4 ? 1 + i % PROMPT : 0, -1, false};
        t->texts[i] = (LikelihoodText){
            .request = i,
            .tokens = t->tokens[i],
            .length = TEXT,
            .stream = likelihood_stream(t->prompts[i], t->asked[i].count, t->tokens[i], TEXT)};
    }
}

static void bounds_of(const Opened *o, const Texts *t, int samples, uint64_t seed, int batch,
                      LikelihoodBound *out) {
    Error err;
    Infill *infill = infill_of(o, t->asked, TEXTS, batch);
    const LikelihoodOptions options = {.samples = samples, .seed = seed};
    assert_ok(infill_likelihoods(infill, t->texts, TEXTS, &options, out, &err), &err);
    infill_close(infill);
}

/* In standard errors: their sum, and how many are beyond two; the errors are neither too small nor
 * too large. */
static void estimates_are_within_two_standard_errors(void **state) {
    (void)state;
    static const int samples[] = {128, 48};
    for (int k = 0; k < KIND_COUNT; k++) {
        Opened o;
        Texts t;
        LikelihoodBound exact[TEXTS], got[TEXTS];
        opened_open(&o, kinds[k].folder);
        texts_make(&t, 11 + (uint64_t)k);
        bounds_of(&o, &t, 255, 0, 0, exact);
        for (int n = 0; n < 2; n++) {
            double sum = 0, variance = 0, squares = 0;
            int beyond = 0;
            bounds_of(&o, &t, samples[n], 3, 0, got);
            for (int i = 0; i < TEXTS; i++) {
                const double off = got[i].nats - exact[i].nats;
                assert_int_equal(got[i].evaluations, samples[n]);
                assert_true(got[i].variance > 0);
                beyond += off * off > 4 * got[i].variance;
                sum += off, variance += got[i].variance, squares += off * off;
            }
            if (fabs(sum) > 2 * sqrt(variance) || beyond > TEXTS / 5 || squares > 2 * variance ||
                squares < variance / 2)
                fail_msg("%s, %d samples: %g of %g in all, %d of %d beyond, squares %g of %g",
                         kinds[k].name, samples[n], sum, sqrt(variance), beyond, TEXTS, squares,
                         variance);
        }
        opened_close(&o);
    }
}

static void batches_change_nothing(void **state) {
    (void)state;
    for (int k = 0; k < KIND_COUNT; k++) {
        Opened o;
        Texts t;
        LikelihoodBound a[TEXTS], b[TEXTS];
        opened_open(&o, kinds[k].folder);
        texts_make(&t, 5);
        bounds_of(&o, &t, 20, 9, 0, a);
        bounds_of(&o, &t, 20, 9, 50, b);
        for (int i = 0; i < TEXTS; i++) assert_true(fabs(a[i].nats - b[i].nats) < 1e-5 * a[i].nats);
        bounds_of(&o, &t, 20, 10, 0, b);
        assert_true(a[0].nats != b[0].nats);
        opened_close(&o);
    }
}

static void one_sample_has_no_error(void **state) {
    (void)state;
    Opened o;
    Texts t;
    LikelihoodBound out[TEXTS];
    opened_open(&o, kinds[0].folder);
    texts_make(&t, 5);
    bounds_of(&o, &t, 1, 0, 0, out);
    assert_true(isnan(out[0].variance) && isfinite(out[0].nats));
    const int cancel = 1;
    Error err;
    Infill *infill = infill_of(&o, t.asked, TEXTS, 0);
    const LikelihoodOptions options = {.cancel = &cancel};
    assert_refused(infill_likelihoods(infill, t.texts, TEXTS, &options, out, &err), &err,
                   "cancelled");
    assert_int_equal(err.code, ERROR_CANCELLED);
    infill_close(infill);
    opened_close(&o);
}

/* ---- Autoregressive models. ---- */

/* From transformers' logits of packed sequences with causal attention. */
static void chain_rule(void **state) {
    (void)state;
    Checkpoint c;
    Error err;
    Device *device;
    Params params;
    Llama model;
    int tokens, count;
    assert_ok(checkpoint_open(&c, "tests/golden/llama/qwen2.safetensors", NULL, &err), &err);
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    LlamaConfig config = {.vocab = 19,
                          .layers = 2,
                          .positions = 64,
                          .block = llama_block(12, 3, 1, 15, 1e-6F),
                          .theta = 1e6F,
                          .tied = true};
    config.block.unbiased = BLOCK_OUT | BLOCK_FFN;
    params_init(&params, device);
    assert_ok(llama_declare(&model, &config, &params, &err), &err);
    for (int i = 0; i < params.count; i++)
        assert_ok(params_set(&params.items[i], golden(&c, params.items[i].name, 0), &err), &err);
    assert_ok(params_prepare(&params, DTYPE_F32, NULL, NULL, &err), &err);
    LanguageModel language = language_of_llama(&model);
    int32_t *ids = golden_ids(&c, "ids", 0, &tokens), *begin = golden_ids(&c, "begin", 0, &count);
    const float *logits = golden(&c, "logits.causal", 0).data;
    CausalText texts[8];
    double want[8] = {0}, got[8];
    int n = 0;
    for (int s = 0; s + 1 < count; s++) {
        const int length = begin[s + 1] - begin[s], scored = length - 1 - s % 2;
        if (scored < 1) continue;
        texts[n] = (CausalText){ids + begin[s], length, scored};
        for (int i = begin[s + 1] - scored; i < begin[s + 1]; i++) {
            double sum = 0;
            const float *row = logits + (i - 1) * config.vocab;
            for (int v = 0; v < config.vocab; v++) sum += exp((double)row[v]);
            want[n] += log(sum) - (double)row[ids[i]];
        }
        n++;
    }
    assert_true(n >= 3);
    for (int batch = 0; batch <= 1; batch++) { /* all at once, one by one */
        InfillCounts counts;
        assert_ok(causal_likelihoods(&language, device, texts, n, batch, got, &counts, &err), &err);
        assert_int_equal(counts.canvases, n);
        assert_int_equal(counts.forwards, batch ? n : 1);
        for (int i = 0; i < n; i++) assert_true(fabs(got[i] - want[i]) < 1e-5 * want[i]);
    }
    free(ids), free(begin);
    llama_free(&model);
    params_free(&params);
    checkpoint_close(&c);
    device_close(device);
}

/* ---- Guidance. ---- */

typedef struct GuidanceHeader {
    char strategy[64];
    int32_t prompt, length, iterations, sample, steps;
    uint32_t seed;
    float temperature, guidance;
} GuidanceHeader;

enum { GUIDED_MASK = 423 };

static void check_guided(const Opened *o, const GuidanceHeader *h, const int32_t *prompt,
                         const int32_t *tokens, int number) {
    Error err;
    DecodeOptions options = options_named(h->strategy);
    options.iterations = h->iterations, options.temperature = h->temperature;
    options.seed = h->seed, options.guidance = h->guidance;
    const InfillPrompt asked = {prompt, h->prompt, -1, true};
    const DecodeSpec spec = {0, h->length, h->sample};
    Infill *infill = infill_of(o, &asked, 1, number % 2 ? 0 : 1);
    assert_ok(infill_reserve(infill, h->length, 2 * (h->length + 1), &err), &err);
    const DecodeRun run = {.options = &options,
                           .specs = &spec,
                           .count = 1,
                           .mask_id = GUIDED_MASK,
                           .evaluate = infill_evaluate,
                           .model = infill,
                           .trace = true,
                           .ends = {GUIDED_MASK + 1, GUIDED_MASK + 2},
                           .end_count = 2};
    DecodeResult *result;
    assert_ok(decode_run(&run, &result, &err), &err);
    assert_int_equal(result->steps, h->steps);
    for (int i = 0; i < h->steps * h->length; i++)
        if (result->trace[i].token != tokens[i])
            fail_msg("prompt %d, %s, W %g: step %d, position %d: token %d, not %d", number,
                     h->strategy, (double)h->guidance, i / h->length + 1, i % h->length,
                     result->trace[i].token, tokens[i]);
    assert_int_equal(result->evaluations % 2, 0);
    assert_int_equal(infill_counts(infill).canvases, result->evaluations);
    decode_results_free(result, 1);
    infill_close(infill);
}

static void guided_as_llada(void **state) {
    (void)state;
    Opened o;
    size_t size;
    int count = 0;
    char *bytes = file_bytes(GOLDEN "guidance.bin", &size), *at = bytes;
    assert_non_null(bytes);
    opened_open(&o, kinds[0].folder);
    while (at < bytes + size) {
        GuidanceHeader h;
        memcpy(&h, at, sizeof h);
        int32_t *ids = (int32_t *)(void *)(at + sizeof h), *tokens = ids + h.prompt;
        check_guided(&o, &h, ids, tokens, count++);
        at = (char *)(tokens + h.steps * h.length);
    }
    assert_int_equal(count, 200);
    free(bytes);
    opened_close(&o);
}

static void guidance_is_checked(void **state) {
    (void)state;
    Synthetic model = {.vocabulary = 20, .mask_id = 19};
    DecodeSpec spec = {0, 4, 0};
    DecodeResult *results;
    Error err;
    DecodeOptions options = options_named("llada-lowconf");
    const DecodeRun run = run_of(&model, &options, &spec, 1);
    static const float wrong[] = {-1, 101, INFINITY, NAN};
    for (int i = 0; i < 4; i++) {
        options.guidance = wrong[i];
        assert_refused(decode_run(&run, &results, &err), &err, "guidance", "0 to 100");
    }
    options.guidance = 1, options.prefix_cache = 2;
    assert_refused(decode_run(&run, &results, &err), &err, "guidance", "prefix cache");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_uniform),
        cmocka_unit_test(groups_cover_the_samples),
        cmocka_unit_test(equal_to_torch),
        cmocka_unit_test(estimates_are_within_two_standard_errors),
        cmocka_unit_test(batches_change_nothing),
        cmocka_unit_test(one_sample_has_no_error),
        cmocka_unit_test(chain_rule),
        cmocka_unit_test(guided_as_llada),
        cmocka_unit_test(guidance_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
