/* The models, stage by stage, against what torch and transformers compute (tests/reference/
 * make_models.py): in f32 to 1e-5 and, where the processor has it, in bf16 to 2e-2. */
#include <math.h>

#include "projector/answers.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"

typedef struct Layers {
    const Fixture *fixture;
    const char *name;
    int last; /* the last one compared */
} Layers;

static void compare_layer(void *user, int layer, Tensor x) {
    Layers *l = user;
    if (layer <= l->last)
        compare(x, golden(&l->fixture->golden, l->name, layer), l->fixture->limit, l->name, layer);
}

static void arena_for(Arena *arena, Device *device, size_t bytes) {
    Error err;
    assert_ok(arena_open(arena, device, bytes, &err), &err);
}

/* ---- Pixels to image tokens. ---- */

static void check_vision(const char *folder, const char *dtype) {
    Fixture f;
    Error err;
    fixture_open(&f, folder, dtype);
    const Vit *vit = &f.model.vit;
    Tensor pixels = golden(&f.golden, "pixels", 0), want = golden(&f.golden, "vit.features", 0);
    int images = (int)pixels.shape[0], rows = images * vit_feature_rows(&vit->config);
    Arena arena;
    arena_for(&arena, f.device, vit_work_bytes(vit, images) + (1 << 20));
    Tensor features, tokens;
    assert_ok(arena_take(&arena, &features, f.model.vision.compute, rows, want.shape[2], &err),
              &err);
    Layers layers = {&f, "vit.hidden.%d", vit->depth};
    LayerHook callback = {compare_layer, &layers};
    assert_ok(vit_forward(vit, &arena, features, pixels, &callback, &err), &err);
    compare(features, want, f.limit, "vit.features", 0);
    Tensor expected = golden(&f.golden, "projector.tokens", 0);
    assert_ok(arena_take(&arena, &tokens, DTYPE_F32, rows, expected.shape[2], &err), &err);
    assert_ok(projector_forward(&f.model.projector_model, &arena, tokens, features, &err), &err);
    compare(tokens, expected, f.limit, "projector.tokens", 0);
    arena_close(&arena);
    fixture_close(&f);
}

static void check_language(const char *folder, const char *dtype) {
    Fixture f;
    fixture_open(&f, folder, dtype);
    const Xlmr *m = &f.model.xlmr;
    int rows = vit_feature_rows(&f.model.vit.config);
    check_sequences(m, f.device, &f.golden, f.limit, rows, "text", false, "text", "text.hidden.%d");
    check_sequences(m, f.device, &f.golden, f.limit, rows, "mm", false, "mm", NULL);
    check_sequences(m, f.device, &f.golden, f.limit, rows, "mm", true, "mm_blocks", NULL);
    fixture_close(&f);
}

/* ---- Length. ---- */

/* The prompts `length`.ids, without their <s>, as an Infill's. */
static InfillPrompt *prompts_open(const Checkpoint *c, int32_t **ids, int *count) {
    int n, tokens;
    int32_t *begin = golden_ids(c, "length.begin", 0, &n);
    *ids = golden_ids(c, "length.ids", 0, &tokens);
    *count = n - 1;
    InfillPrompt *prompts = calloc((size_t)n, sizeof *prompts);
    for (int i = 0; i < *count; i++)
        prompts[i] = (InfillPrompt){*ids + begin[i] + 1, begin[i + 1] - begin[i] - 1, -1};
    free(begin);
    return prompts;
}

static void check_length(const char *folder, const char *dtype) {
    Fixture f;
    Error err;
    fixture_open(&f, folder, dtype);
    int32_t *ids;
    int count;
    InfillPrompt *prompts = prompts_open(&f.golden, &ids, &count);
    for (int pattern = 0; pattern < 2; pattern++) {
        Infill *infill;
        InfillConfig config = {.model = language_of_xlmr(&f.model.xlmr),
                               .device = f.device,
                               .pattern = pattern ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL,
                               .mask_id = tokenizer_mask_id(f.model.tokenizer),
                               .vocab_limit = tokenizer_size(f.model.tokenizer),
                               .prompts = prompts,
                               .prompt_count = count,
                               .keep_hidden = true};
        assert_ok(infill_open(&infill, &config, &err), &err);
        const char *name = pattern ? "length_blocks.logits" : "length.logits";
        Tensor want = golden(&f.golden, name, 0);
        float *logits = malloc(tensor_bytes(want));
        assert_ok(infill_lengths(infill, &f.model.length_model, logits, &err), &err);
        assert_close(logits, want.data, (size_t)tensor_count(want), f.limit, name);
        free(logits);
        infill_close(infill);
    }
    free(prompts), free(ids);
    fixture_close(&f);
}

/* ---- Whole fillings. ---- */

static void check_answer(Fixture *f, const json_t *entry, int k, const AnswerOptions *base) {
    Error err;
    int steps_count, image;
    int32_t *tokens = golden_ids(&f->golden, "decode.%d.tokens", k, &steps_count);
    int32_t *image_id = golden_ids(&f->golden, "decode.%d.image", k, &image);
    Tensor scores = golden(&f->golden, "decode.%d.scores", k);
    Tensor rows = golden_image_tokens(&f->golden);
    int length = (int)scores.shape[1], steps = (int)scores.shape[0];
    AnswerOptions options = *base;
    options.trace = true;
    options.decode.iterations = steps;
    const char *strategy = json_string_value(json_object_get(entry, "strategy"));
    assert_ok(decode_strategy_parse(&options.decode, strategy, &err), &err);
    AnswerRequest request = {.prompt = json_string_value(json_object_get(entry, "prompt")),
                             .image = image_id[0],
                             .length = length};
    Answers answers;
    assert_ok(multimodal_answer(&f->model.parts, rows, &request, 1, &options, &answers, &err),
              &err);
    const TraceCell *trace = answers.results[0].trace;
    for (int i = 0; i < steps * length; i++) {
        float want = ((const float *)scores.data)[i];
        if (trace[i].token != tokens[i])
            fail_msg("decode %d, step %d, position %d: token %d, expected %d", k, i / length + 1,
                     i % length, (int)trace[i].token, (int)tokens[i]);
        if (want < -1e29f)
            assert_true(isinf(trace[i].score) && trace[i].score < 0);
        else if (!(fabs((double)trace[i].score - want) <= 2e-5 * (1 + fabs((double)want))))
            fail_msg("decode %d, step %d, position %d: score %g, expected %g", k, i / length + 1,
                     i % length, (double)trace[i].score, (double)want);
    }
    answers_free(&answers);
    free(tokens), free(image_id);
}

static void check_decode(const char *folder, const AnswerOptions *base) {
    Fixture f;
    char path[512];
    fixture_open(&f, folder, "f32");
    snprintf(path, sizeof path, "%s/decode.json", folder);
    json_error_t where;
    json_t *list = json_load_file(path, 0, &where);
    assert_non_null(list);
    for (size_t k = 0; k < json_array_size(list); k++)
        check_answer(&f, json_array_get(list, k), (int)k, base);
    assert_true(json_array_size(list) >= 8);
    json_decref(list);
    fixture_close(&f);
}

/* ---- The table of tests. ---- */

static void skip_without_bf16(void) {
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    bool has = device_has_bf16(device);
    device_close(device);
    if (!has) skip();
}

static void test_vision_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_vision(golden_folders[i], "f32");
}

static void test_vision_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_vision(golden_folders[i], "bf16");
}

static void test_language_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_language(golden_folders[i], "f32");
}

static void test_language_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_language(golden_folders[i], "bf16");
}

static void test_length_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_length(golden_folders[i], "f32");
}

static void test_length_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_length(golden_folders[i], "bf16");
}

static void test_decode_reuse(void **state) {
    (void)state;
    AnswerOptions options = answer_options_default();
    for (int i = 0; i < 2; i++) check_decode(golden_folders[i], &options);
}

static void test_decode_no_reuse(void **state) {
    (void)state;
    AnswerOptions options = answer_options_default();
    options.no_kv_cache = true;
    options.decode.no_canvas_cache = true;
    for (int i = 0; i < 2; i++) check_decode(golden_folders[i], &options);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vision_f32),   cmocka_unit_test(test_vision_bf16),
        cmocka_unit_test(test_language_f32), cmocka_unit_test(test_language_bf16),
        cmocka_unit_test(test_length_f32),   cmocka_unit_test(test_length_bf16),
        cmocka_unit_test(test_decode_reuse), cmocka_unit_test(test_decode_no_reuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
