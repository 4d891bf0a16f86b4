/* The exact KV cache of block-causal models of LLaMA's kind, whose predictions may be shifted:
 * proposals and answers are those without it, and only the canvas's rows are evaluated. */
#include "projector/answers.h"
#include "tests/golden_models.h"
#include "tests/llama_folder.h"
#include "tests/matrix.h"

#include <math.h>

enum { MASK = 423, PROMPTS = 9, LONGEST = 6 };

typedef struct Fixed {
    Run run;
    Device *device;
    Model model;
    Tensor images; /* of two images, random */
    int32_t ids[PROMPTS][8];
    InfillPrompt prompts[PROMPTS];
} Fixed;

static Tensor random_images(Device *device, int64_t rows, int64_t width, TestRandom *random) {
    Error err;
    Tensor t = tensor_2d(NULL, DTYPE_F32, rows, width);
    float *values = malloc(tensor_bytes(t));
    assert_non_null(values);
    for (int64_t i = 0; i < rows * width; i++)
        values[i] = (float)(test_random_next(random) % 2001) / 1000 - 1;
    assert_ok(device_alloc(device, &t.data, tensor_bytes(t), &err), &err);
    assert_ok(device_upload(device, t.data, values, tensor_bytes(t), &err), &err);
    free(values);
    return t;
}

static void fixed_open(Fixed *f, const char *kind, uint64_t seed, const char *settings) {
    Error err;
    char folder[512];
    TestRandom random = {seed};
    run_start(&f->run);
    llama_folder_make(&f->run, &(LlamaFolder){kind, settings, 224}, folder, sizeof folder);
    const ModelOptions options = {
        .folder = folder, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(test_device_open(&f->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&f->model, &options, f->device, &err), &err);
    f->images = random_images(f->device, 2 * 256, 16, &random);
    for (int i = 0; i < PROMPTS; i++) {
        int n = i < 2 ? i : (int)(test_random_next(&random) % 9); /* also none */
        for (int k = 0; k < n; k++) f->ids[i][k] = 5 + (int)(test_random_next(&random) % 400);
        f->prompts[i] = (InfillPrompt){f->ids[i], n, (int)(test_random_next(&random) % 3) - 1};
    }
}

static void fixed_close(Fixed *f) {
    device_free(f->device, f->images.data);
    model_close(&f->model);
    device_close(f->device);
    run_end(&f->run);
}

static InfillConfig config_of(const Fixed *f, int position) {
    const Multimodal *m = &f->model.parts;
    return (InfillConfig){.model = m->language,
                          .device = f->device,
                          .pattern = m->attention,
                          .answer_position = position,
                          .mask_id = MASK,
                          .vocab_limit = tokenizer_size(m->tokenizer),
                          .batch_tokens = 300,
                          .image_tokens = f->images,
                          .image_rows = 256,
                          .image_lead = m->image_lead_ids,
                          .image_lead_count = m->image_lead_count};
}

/* Canvases of all prompts, two of each, partly filled. */
static int canvases_make(DecodeCanvas *canvases, int32_t tokens[][LONGEST], TestRandom *random) {
    int all = 0;
    for (int i = 0; i < 2 * PROMPTS; i++) {
        int n = 1 + (int)(test_random_next(random) % LONGEST);
        for (int k = 0; k < n; k++)
            tokens[i][k] =
                test_random_next(random) % 2 ? MASK : 5 + (int)(test_random_next(random) % 400);
        canvases[i] = (DecodeCanvas){.request = i % PROMPTS, .length = n, .tokens = tokens[i]};
        all += n;
    }
    return all;
}

static void check_close(const Proposal *got, const Proposal *want, int count) {
    for (int i = 0; i < count; i++) {
        assert_int_equal(got[i].token, want[i].token);
        assert_true(fabsf(got[i].score - want[i].score) < 1e-5f);
    }
}

static void check_proposals(const char *kind, int position, const char *settings) {
    for (uint64_t seed = 1; seed < 4; seed++) {
        Fixed f;
        Error err;
        TestRandom random = {100 + seed};
        DecodeCanvas canvases[2 * PROMPTS];
        int32_t tokens[2 * PROMPTS][LONGEST];
        Proposal proposals[2][2 * PROMPTS * LONGEST];
        fixed_open(&f, kind, seed, settings);
        const int all = canvases_make(canvases, tokens, &random);
        for (int way = 0; way < 2; way++) {
            InfillConfig config = config_of(&f, position);
            config.prompts = f.prompts, config.prompt_count = PROMPTS;
            config.no_kv_cache = way == 1;
            Infill *infill;
            assert_ok(infill_open(&infill, &config, &err), &err);
            assert_ok(infill_reserve(infill, LONGEST, all + 2 * PROMPTS, &err), &err);
            assert_ok(infill_evaluate(infill, canvases, 2 * PROMPTS, 0, 0, proposals[way], &err),
                      &err);
            if (!way) assert_int_equal(infill_counts(infill).rows, all); /* no row again */
            infill_close(infill);
        }
        check_close(proposals[0], proposals[1], all);
        fixed_close(&f);
    }
}

#define SETTINGS(chat) "{\"attention\": \"block-causal\", \"chat_template\": \"" chat "\"}"

static void test_proposals(void **state) {
    (void)state;
    check_proposals("llama", 0, SETTINGS("llama-3"));
    check_proposals("dream", 0, SETTINGS("none"));
    check_proposals("dream", 400, SETTINGS("chatml"));
    check_proposals("llada", 0, SETTINGS("llama-3")); /* not shifted */
}

/* Prompts that come and go, whose images' keys and values stay. */
static void test_slots(void **state) {
    (void)state;
    Fixed f;
    Error err;
    fixed_open(&f, "llama", 7, SETTINGS("llama-3"));
    InfillConfig config = config_of(&f, 0);
    config.slots = 3, config.prefix_rows = 700;
    Infill *infill, *alone;
    assert_ok(infill_open(&infill, &config, &err), &err);
    config = config_of(&f, 0);
    config.prompts = f.prompts, config.prompt_count = PROMPTS, config.no_kv_cache = true;
    assert_ok(infill_open(&alone, &config, &err), &err);
    assert_ok(infill_reserve(alone, LONGEST, LONGEST + 1, &err), &err);
    const int32_t tokens[LONGEST] = {MASK, 50, MASK, MASK, 60, MASK};
    for (int i = 0; i < 3 * PROMPTS; i++) {
        int slot, p = i % PROMPTS;
        Proposal got[LONGEST], want[LONGEST];
        assert_true(infill_place(infill, &f.prompts[p], &slot));
        assert_ok(infill_prefill(infill, &err), &err);
        const int n = 1 + i % LONGEST;
        DecodeCanvas c = {.request = slot, .length = n, .tokens = tokens};
        assert_ok(infill_evaluate(infill, &c, 1, 0, 0, got, &err), &err);
        c.request = p;
        assert_ok(infill_evaluate(alone, &c, 1, 0, 0, want, &err), &err);
        for (int k = 0; k < n; k++)
            if (tokens[k] == MASK) check_close(got + k, want + k, 1);
        infill_remove(infill, slot);
    }
    infill_close(infill), infill_close(alone);
    fixed_close(&f);
}

/* Whole answers, by several strategies. */
static void test_answers(void **state) {
    (void)state;
    static const char *const strategies[] = {"reparam-cond-deterministic-cosine", "cmlm",
                                             "llada-block3-lowconf", "dream-entropy", "ar"};
    Fixed f;
    Error err;
    fixed_open(&f, "dream", 3, SETTINGS("none"));
    const AnswerRequest requests[] = {{"Who are you?", 0, 7}, {"Why?", -1, 1}, {"", -1, 5}};
    for (size_t s = 0; s < sizeof strategies / sizeof *strategies; s++) {
        Answers answers[2];
        AnswerOptions options = answer_options_default();
        assert_ok(decode_strategy_parse(&options.decode, strategies[s], &err), &err);
        options.decode.iterations = 5;
        for (int way = 0; way < 2; way++) {
            options.no_kv_cache = way == 1;
            assert_ok(multimodal_answer(&f.model.parts, f.images, requests, 3, &options,
                                        &answers[way], &err),
                      &err);
        }
        assert_true(answers[0].counts.rows < answers[1].counts.rows / 2);
        for (int i = 0; i < 3; i++) {
            if (answers[1].items[i].error) fail_msg("%s", answers[1].items[i].error);
            assert_string_equal(answers[0].items[i].text, answers[1].items[i].text);
        }
        answers_free(&answers[0]), answers_free(&answers[1]);
    }
    fixed_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proposals),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
