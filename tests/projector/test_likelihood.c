/* Likelihoods of texts after prompts: what is refused, damaged models, texts together and alone.
 * Guidance: proposals against logits in double precision, with images and both attention patterns;
 * the library and its engines. Choices by likelihood in the library. */
#include "projector/likelihood.h"

#include <math.h>

#include "tests/double_model.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "tests/projector/easyfirst_test.h"

/* ---- Guided proposals. ---- */

enum { LENGTH = 6, COUNT = 4 };

typedef struct Variant {
    int folder;
    AttentionPattern attention;
    int answer_position;
    bool no_kv_cache;
} Variant;

static const Variant variants[] = {
    {0, ATTENTION_FULL, 0, false},        {0, ATTENTION_BLOCK_CAUSAL, 70, false},
    {1, ATTENTION_BLOCK_CAUSAL, 0, true}, {1, ATTENTION_BLOCK_CAUSAL, 0, false},
    {1, ATTENTION_FULL, 75, false},
};

/* The largest of u + (W + 1) (c - u) in each open row, and its log-probability. */
static void guided_in_double(const DoubleModel *d, int image, const int32_t *prompt,
                             const int32_t *canvas, float guidance, Proposal *out) {
    const int vocab = d->model->language.xlmr->config.vocab, rows = d->image_rows;
    const int32_t mask = tokenizer_mask_id(d->model->tokenizer);
    const int masks = COUNT + (image >= 0 ? rows : 0);
    double *c = malloc((size_t)(LENGTH * vocab) * sizeof *c),
           *u = malloc((size_t)(LENGTH * vocab) * sizeof *u);
    int32_t *none = malloc((size_t)masks * sizeof *none);
    for (int i = 0; i < masks; i++) none[i] = mask;
    double_canvas(d, c, image, prompt, COUNT, canvas, LENGTH);
    double_canvas(d, u, -1, none, masks, canvas, LENGTH);
    for (int i = 0; i < LENGTH; i++) {
        double most = -INFINITY, sum = 0;
        for (int v = 0; v < mask; v++) {
            double *z = &c[i * vocab + v];
            *z = u[i * vocab + v] + ((double)guidance + 1) * (*z - u[i * vocab + v]);
            if (*z > most) most = *z, out[i].token = v;
        }
        for (int v = 0; v < mask; v++) sum += exp(c[i * vocab + v] - most);
        out[i].score = (float)-log(sum);
    }
    free(c), free(u), free(none);
}

static void check_variant(const Variant *v) {
    Fixture f;
    Error err;
    DoubleModel reference;
    TestRandom random = {(uint64_t)v->folder + 3};
    fixture_open(&f, golden_folders[v->folder], "f32");
    Multimodal m = f.model.parts;
    m.attention = v->attention, m.answer_position = v->answer_position, m.length = NULL;
    const int64_t rows = multimodal_image_rows(&m), width = language_block(&m.language)->width;
    Tensor images = tensor_2d(NULL, DTYPE_F32, rows, width);
    float *host = malloc(tensor_bytes(images));
    for (int64_t i = 0; i < rows * width; i++) host[i] = test_random_normal(&random);
    assert_ok(device_alloc(f.device, &images.data, tensor_bytes(images), &err), &err);
    assert_ok(device_upload(f.device, images.data, host, tensor_bytes(images), &err), &err);
    double_model_open(&reference, golden_folders[v->folder], false);
    reference.model = &m, reference.image_tokens = host, reference.image_rows = (int)rows;

    const int32_t mask = tokenizer_mask_id(m.tokenizer),
                  ids[2][COUNT] = {{9, 30, 12, 7}, {44, 8, 21, 90}};
    const InfillPrompt prompts[] = {
        {ids[0], COUNT, -1, true}, {ids[1], COUNT, 0, true}, {ids[1], COUNT, -1, false}};
    const InfillConfig config = {.model = m.language,
                                 .device = f.device,
                                 .pattern = m.attention,
                                 .answer_position = m.answer_position,
                                 .no_kv_cache = v->no_kv_cache,
                                 .mask_id = mask,
                                 .vocab_limit = mask,
                                 .batch_tokens = 1,
                                 .prompts = prompts,
                                 .prompt_count = 3,
                                 .image_tokens = images,
                                 .image_rows = (int)rows};
    Infill *infill;
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, LENGTH, 5 * (LENGTH + 1), &err), &err);
    const int32_t canvas[LENGTH] = {mask, 11, mask, mask, 17, mask};
    const DecodeChoice guided = {.never = -1, .guidance = 1.5F}, plain = {.never = -1};
    DecodeCanvas canvases[3];
    Proposal got[3][LENGTH], want[LENGTH], alone[LENGTH];
    for (int i = 0; i < 3; i++)
        canvases[i] = (DecodeCanvas){.request = i,
                                     .length = LENGTH,
                                     .tokens = canvas,
                                     .fixed = canvas,
                                     .choice = i < 2 ? &guided : &plain};
    assert_ok(infill_evaluate(infill, canvases, 3, 0, 0, got[0], &err), &err);
    assert_int_equal(infill_counts(infill).canvases, 5);
    canvases[2].choice = NULL; /* on the device: without guidance nothing has changed */
    assert_ok(infill_evaluate(infill, &canvases[2], 1, 0, 0, alone, &err), &err);
    for (int i = 0; i < 2; i++) {
        guided_in_double(&reference, prompts[i].image, ids[i], canvas, guided.guidance, want);
        for (int k = 0; k < LENGTH; k++) {
            if (canvas[k] != mask) continue;
            assert_int_equal(got[i][k].token, want[k].token);
            if (fabsf(got[i][k].score - want[k].score) > 1e-3F)
                fail_msg("score %g, not %g", (double)got[i][k].score, (double)want[k].score);
            assert_int_equal(got[2][k].token, alone[k].token);
        }
    }
    infill_close(infill);
    double_model_close(&reference);
    device_free(f.device, images.data);
    free(host);
    fixture_close(&f);
}

static void guided_proposals(void **state) {
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) check_variant(&variants[v]);
}

/* ---- Likelihoods. ---- */

static char long_text[8192];

static const LikelihoodRequest requests[] = {
    {"What color is it?", -1, "the dog is red", NULL, 0},
    {"", -1, "a b c", NULL, 0},
    {"What?", -1, "", NULL, 0},
    {"What?", -1, NULL, NULL, 0},
    {"What?", -1, "n\xff", NULL, 0},
    {"What?", -1, "a <mask>", NULL, 0},
    {"n\xff", -1, "a", NULL, 0},
    {"What?", -1, long_text, NULL, 0},
    {"What?", 0, "a", NULL, 0},
    {"Is it a dog?", -1, "no it is on the left of the black dog", NULL, 0},
};
enum { REQUESTS = sizeof requests / sizeof *requests };
static const char *const refused[REQUESTS] = {
    NULL,     NULL,    "empty",        "empty",         "UTF-8",
    "<mask>", "UTF-8", "does not fit", "no such image", NULL};

static void texts_and_refusals(void **state) {
    (void)state;
    for (int i = 0; i < 600; i++) strcat(long_text, "dog ");
    for (int folder = 0; folder < 2; folder++) {
        Fixture f;
        Error err;
        Likelihood all[REQUESTS], one;
        InfillCounts counts;
        const LikelihoodSettings settings = {.options = {.samples = 40}};
        fixture_open(&f, golden_folders[folder], "f32");
        const Multimodal *m = &f.model.parts;
        assert_false(likelihood_exact(m));
        assert_ok(multimodal_likelihood(m, TENSOR_NONE, requests, REQUESTS, &settings, all, &counts,
                                        &err),
                  &err);
        int64_t evaluations = 0;
        for (int i = 0; i < REQUESTS; i++) {
            evaluations += all[i].bound.evaluations;
            if (refused[i]) {
                assert_non_null(all[i].error);
                if (!strstr(all[i].error, refused[i])) fail_msg("%d: %s", i, all[i].error);
                continue;
            }
            assert_ok(
                multimodal_likelihood(m, TENSOR_NONE, &requests[i], 1, &settings, &one, NULL, &err),
                &err);
            assert_null(all[i].error);
            assert_true(all[i].bound.nats > 0 && all[i].tokens > 0);
            assert_true(fabs(one.bound.nats - all[i].bound.nats) < 1e-5 * one.bound.nats);
            assert_int_equal(one.tokens, all[i].tokens);
            likelihoods_free(&one, 1);
        }
        assert_int_equal(counts.inspections, evaluations);
        likelihoods_free(all, REQUESTS);
        fixture_close(&f);
    }
}

static void damaged_models_have_no_likelihood(void **state) {
    (void)state;
    Fixture f;
    Error err;
    Likelihood out[2];
    fixture_open(&f, golden_folders[0], "f32");
    Xlmr damaged = f.model.xlmr;
    Multimodal m = f.model.parts;
    const int vocab = damaged.config.vocab;
    float *bias = calloc((size_t)vocab, sizeof *bias);
    bias[vocab - 1] = NAN; /* of a row that is never proposed */
    damaged.vocab_b = tensor_1d(NULL, DTYPE_F32, vocab);
    m.language.xlmr = &damaged;
    assert_ok(device_alloc(f.device, &damaged.vocab_b.data, tensor_bytes(damaged.vocab_b), &err),
              &err);
    assert_ok(
        device_upload(f.device, damaged.vocab_b.data, bias, tensor_bytes(damaged.vocab_b), &err),
        &err);
    assert_ok(multimodal_likelihood(&m, TENSOR_NONE, requests, 2, &(LikelihoodSettings){0}, out,
                                    NULL, &err),
              &err);
    for (int i = 0; i < 2; i++) assert_non_null(strstr(out[i].error, "not finite"));
    likelihoods_free(out, 2);
    device_free(f.device, damaged.vocab_b.data);
    free(bias);
    fixture_close(&f);
}

/* ---- The library. ---- */

static void guided_answers(void **state) {
    (void)state;
    for (int i = 0; i < FOLDERS; i++) {
        ef_error err;
        ef_answers *plain, *guided, *again, *engine_answers;
        ef_model *model = open_model(folders[i]);
        ef_image *image = open_image(IMAGES "grey1.png");
        ef_options options = ef_options_default();
        const ef_request asked[] = {{.task = EF_ASK, .text = QUESTION, .image = image, .length = 5},
                                    {.task = EF_COMPLETE, .text = "a dog", .length = 4}};
        check_ok(ef_answer(model, asked, 2, &options, &plain, &err), &err);
        options.guidance = 2;
        check_ok(ef_answer(model, asked, 2, &options, &guided, &err), &err);
        ef_engine *engine;
        ef_job *job;
        check_ok(ef_engine_open(model, NULL, &engine, &err), &err);
        for (int k = 0; k < 2; k++) {
            assert_null(ef_answer_error(guided, (size_t)k));
            assert_int_equal(ef_answer_evaluations(guided, (size_t)k) % 2, 0);
            check_ok(ef_answer(model, &asked[k], 1, &options, &again, &err), &err);
            assert_string_equal(ef_answer_text(again, 0), ef_answer_text(guided, (size_t)k));
            ef_answers_close(again);
            check_ok(ef_engine_submit(engine, &asked[k], &options, NULL, NULL, NULL, &job, &err),
                     &err);
            check_ok(ef_job_wait(job, -1, &engine_answers, &err), &err);
            assert_string_equal(ef_answer_text(engine_answers, 0),
                                ef_answer_text(guided, (size_t)k));
            assert_int_equal(ef_answer_evaluations(engine_answers, 0),
                             ef_answer_evaluations(guided, (size_t)k));
            ef_answers_close(engine_answers);
            ef_job_close(job);
        }
        assert_true(ef_answers_work(guided)->canvases > ef_answers_work(plain)->canvases);
        ef_engine_close(engine);
        options.prefix_cache = 2, again = NULL;
        check_failed(ef_answer(model, asked, 1, &options, &again, &err), &err, again, "guidance");
        options.prefix_cache = 0, options.guidance = -1;
        check_failed(ef_answer(model, asked, 1, &options, &again, &err), &err, again, "guidance");
        ef_answers_close(plain), ef_answers_close(guided);
        ef_image_close(image);
        ef_model_close(model);
    }
}

static void library_chooses_by_likelihood(void **state) {
    (void)state;
    static const char *const choices[] = {"yes", "no", "on the left of it"};
    for (int i = 0; i < FOLDERS; i++) {
        ef_error err;
        ef_answers *answers = NULL;
        ef_model *model = open_model(folders[i]);
        ef_options options = ef_options_default();
        options.choose_by = EF_BY_LIKELIHOOD, options.likelihood_samples = 30;
        check_ok(ef_choose(model, NULL, "Is it?", choices, 3, &options, &answers, &err), &err);
        double sum = 0, most = -INFINITY;
        int best = -1;
        for (size_t c = 0; c < 3; c++) {
            const ef_choice *choice = ef_answer_choice(answers, 0, c);
            double score = choice->length_score;
            for (int k = 0; k < choice->length; k++) score += (double)choice->tokens[k].score;
            assert_true(fabs(score - choice->score) < 1e-4 * fabs(score));
            sum += choice->probability;
            if (choice->score > most) most = choice->score, best = (int)c;
        }
        assert_true(fabs(sum - 1) < 1e-9);
        assert_int_equal(ef_answer_chosen(answers, 0), best);
        ef_answers_close(answers), answers = NULL;
        options.choose_by = (ef_choose_by)2;
        check_failed(ef_choose(model, NULL, "Is it?", choices, 3, &options, &answers, &err), &err,
                     answers, "choose_by");
        options.choose_by = EF_BY_LIKELIHOOD, options.likelihood_samples = -1;
        check_failed(ef_choose(model, NULL, "Is it?", choices, 3, &options, &answers, &err), &err,
                     answers, "likelihood_samples");
        ef_model_close(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guided_proposals),
        cmocka_unit_test(texts_and_refusals),
        cmocka_unit_test(damaged_models_have_no_likelihood),
        cmocka_unit_test(guided_answers),
        cmocka_unit_test(library_chooses_by_likelihood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
