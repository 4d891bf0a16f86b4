/* The models, stage by stage, against what torch and transformers compute (tests/reference/
 * make_models.py): in f32 to 1e-5 and, where the processor has it, in bf16 to 2e-2. */
#include "tests/test.h"

#include <math.h>

#include "apps/model.h"

static const char *const folders[] = {"tests/golden/models/tiny-base", "tests/golden/models/tiny-xl"};

typedef struct Fixture {
    Device *device;
    Model model;
    Checkpoint golden;
    double limit;
} Fixture;

static void fixture_open(Fixture *f, const char *folder, const char *dtype) {
    Error err;
    char path[512];
    *f = (Fixture){.limit = strcmp(dtype, "f32") ? 2e-2 : 1e-5};
    assert_ok(device_open(&f->device, &(DeviceOptions){0}, &err), &err);
    ModelOptions options = {.folder = folder, .dtype = dtype, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(model_open(&f->model, &options, f->device, &err), &err);
    snprintf(path, sizeof path, "%s/stages.safetensors", folder);
    assert_ok(checkpoint_open(&f->golden, path, NULL, &err), &err);
}

static void fixture_close(Fixture *f) {
    checkpoint_close(&f->golden);
    model_close(&f->model);
    device_close(f->device);
}

static Tensor golden(const Checkpoint *c, const char *format, int n) {
    char name[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, format, n);
#pragma GCC diagnostic pop
    const CheckpointTensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s lacks %s", c->path, name);
    return t->value;
}

static int32_t *golden_ids(const Checkpoint *c, const char *format, int n, int *count) {
    Tensor t = golden(c, format, n);
    *count = (int)tensor_count(t);
    int32_t *ids = malloc((size_t)(*count + 1) * sizeof *ids);
    for (int i = 0; i < *count; i++) ids[i] = (int32_t)((const int64_t *)t.data)[i];
    return ids;
}

/* Compares a device tensor (any float type) with a golden one of as many numbers. */
static void compare(Tensor got, Tensor want, double limit, const char *what, int n) {
    char text[128];
    snprintf(text, sizeof text, "%s %d", what, n);
    assert_int_equal(tensor_count(got), tensor_count(want));
    size_t count = (size_t)tensor_count(got);
    float *values = malloc(count * sizeof *values);
    values_convert(values, DTYPE_F32, got.data, got.dtype, count);
    assert_close(values, want.data, count, limit, text);
    free(values);
}

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
    int pictures = (int)pixels.shape[0], rows = pictures * vit_feature_rows(&vit->config);
    Arena arena;
    arena_for(&arena, f.device, vit_work_bytes(vit, pictures) + (1 << 20));
    Tensor features, tokens;
    assert_ok(arena_take(&arena, &features, f.model.vision.compute, rows, want.shape[2], &err), &err);
    Layers layers = {&f, "vit.hidden.%d", vit->depth};
    LayerWatch watch = {compare_layer, &layers};
    assert_ok(vit_forward(vit, &arena, features, pixels, &watch, &err), &err);
    compare(features, want, f.limit, "vit.features", 0);
    Tensor expected = golden(&f.golden, "projector.tokens", 0);
    assert_ok(arena_take(&arena, &tokens, DTYPE_F32, rows, expected.shape[2], &err), &err);
    assert_ok(projector_forward(&f.model.projector_model, &arena, tokens, features, &err), &err);
    compare(tokens, expected, f.limit, "projector.tokens", 0);
    arena_close(&arena);
    fixture_close(&f);
}

/* ---- Sequences to logits. ---- */

typedef struct Sequences {
    int32_t *ids, *begin, *image_rows, *positions;
    int tokens, count;
    AttentionSpan *spans;
    int span_count;
} Sequences;

/* The sequences `name`.ids / .begin of a golden file, with one span each, or one a block. */
static Sequences sequences_open(const Checkpoint *c, const char *name, bool blocks, int picture_rows) {
    Sequences s = {0};
    char text[64];
    int n;
    snprintf(text, sizeof text, "%s.ids", name);
    s.ids = golden_ids(c, text, 0, &s.tokens);
    snprintf(text, sizeof text, "%s.begin", name);
    s.begin = golden_ids(c, text, 0, &n);
    s.count = n - 1;
    s.image_rows = malloc((size_t)s.tokens * sizeof *s.image_rows);
    s.positions = malloc((size_t)s.tokens * sizeof *s.positions);
    s.spans = calloc((size_t)s.count * 3, sizeof *s.spans);
    int32_t *pictures = NULL, *ends = NULL;
    if (!strcmp(name, "mm")) {
        pictures = golden_ids(c, "mm.picture", 0, &n);
        ends = golden_ids(c, "mm.blocks", 0, &n);
    }
    for (int i = 0; i < s.count; i++) {
        int begin = s.begin[i], end = s.begin[i + 1], patch = 0;
        for (int t = begin; t < end; t++) {
            s.positions[t] = XLMR_FIRST_POSITION + t - begin;
            s.image_rows[t] = s.ids[t] < 0 ? pictures[i] * picture_rows + patch++ : -1;
        }
        int q = begin;
        for (int b = 0; b < (blocks ? 3 : 1); b++) {
            int stop = blocks ? begin + ends[3 * i + b] : end;
            if (stop > q) s.spans[s.span_count++] = (AttentionSpan){q, stop, 1, {{begin, stop}}};
            q = stop;
        }
    }
    free(pictures), free(ends);
    return s;
}

static void sequences_close(Sequences *s) {
    free(s->ids), free(s->begin), free(s->image_rows), free(s->positions), free(s->spans);
}

static void check_sequences(Fixture *f, const char *name, bool blocks, const char *result,
                            const char *layer_names) {
    Error err;
    const Xlmr *m = &f->model.xlmr;
    int rows = vit_feature_rows(&f->model.vit.config);
    Sequences s = sequences_open(&f->golden, name, blocks, rows);
    Tensor image = golden(&f->golden, "projector.tokens", 0);
    XlmrBatch batch = {.tokens = s.tokens,
                       .ids = s.ids,
                       .image_rows = s.image_rows,
                       .positions = s.positions,
                       .image_tokens = tensor_2d(image.data, DTYPE_F32,
                                                 image.shape[0] * image.shape[1], image.shape[2]),
                       .plan = {.spans = s.spans, .span_count = s.span_count}};
    Arena arena;
    arena_for(&arena, f->device,
              xlmr_work_bytes(m, s.tokens) + xlmr_head_bytes(m, s.tokens) +
                  arena_bytes(DTYPE_F32, s.tokens, m->config.vocab));
    /* The last hidden state of a pre-LN model is compared behind its final LayerNorm. */
    Layers layers = {f, layer_names, m->config.layers - (m->config.block.pre_norm ? 1 : 0)};
    LayerWatch watch = {compare_layer, &layers};
    Tensor hidden, features, logits;
    assert_ok(xlmr_forward(m, &arena, &batch, &hidden, layer_names ? &watch : NULL, &err), &err);
    if (layer_names)
        compare(hidden, golden(&f->golden, layer_names, m->config.layers), f->limit, "hidden", 0);
    int32_t *all = malloc((size_t)s.tokens * sizeof *all);
    for (int i = 0; i < s.tokens; i++) all[i] = i;
    assert_ok(xlmr_head(m, &arena, hidden, all, s.tokens, &features, &err), &err);
    assert_ok(arena_take(&arena, &logits, DTYPE_F32, s.tokens, m->config.vocab, &err), &err);
    assert_ok(vocab_logits(f->device, logits, features, m->vocab_w, m->vocab_b, &err), &err);
    char text[64];
    snprintf(text, sizeof text, "%s.logits", result);
    compare(logits, golden(&f->golden, text, 0), f->limit, text, 0);
    free(all);
    arena_close(&arena);
    sequences_close(&s);
}

static void check_language(const char *folder, const char *dtype) {
    Fixture f;
    fixture_open(&f, folder, dtype);
    check_sequences(&f, "text", false, "text", "text.hidden.%d");
    check_sequences(&f, "mm", false, "mm", NULL);
    check_sequences(&f, "mm", true, "mm_blocks", NULL);
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
        InfillConfig config = {.model = &f.model.xlmr,
                               .device = f.device,
                               .pattern = pattern ? ATTENTION_BLOCKS : ATTENTION_FULL,
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

static void check_filling(Fixture *f, const json_t *entry, int k, const AnswerOptions *base) {
    Error err;
    int steps_count, picture;
    int32_t *tokens = golden_ids(&f->golden, "decode.%d.tokens", k, &steps_count);
    int32_t *picture_id = golden_ids(&f->golden, "decode.%d.picture", k, &picture);
    Tensor scores = golden(&f->golden, "decode.%d.scores", k);
    Tensor image = golden(&f->golden, "projector.tokens", 0);
    Tensor rows = tensor_2d(image.data, DTYPE_F32, image.shape[0] * image.shape[1], image.shape[2]);
    int length = (int)scores.shape[1], steps = (int)scores.shape[0];
    AnswerOptions options = *base;
    options.trace = true;
    options.decode.iterations = steps;
    const char *strategy = json_string_value(json_object_get(entry, "strategy"));
    assert_ok(decode_strategy_parse(&options.decode, strategy, &err), &err);
    AnswerRequest request = {.prompt = json_string_value(json_object_get(entry, "prompt")),
                             .picture = picture_id[0],
                             .length = length};
    Answers answers;
    assert_ok(multimodal_answer(&f->model.parts, rows, &request, 1, &options, &answers, &err), &err);
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
    free(tokens), free(picture_id);
}

static void check_decode(const char *folder, const AnswerOptions *base) {
    Fixture f;
    Error err;
    char path[512];
    fixture_open(&f, folder, "f32");
    snprintf(path, sizeof path, "%s/decode.json", folder);
    json_error_t where;
    json_t *list = json_load_file(path, 0, &where);
    assert_non_null(list);
    for (size_t k = 0; k < json_array_size(list); k++)
        check_filling(&f, json_array_get(list, k), (int)k, base);
    assert_true(json_array_size(list) >= 8);
    json_decref(list);
    (void)err;
    fixture_close(&f);
}

/* ---- The table of tests. ---- */

static void skip_without_bf16(void) {
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    bool has = device_has_bf16(device);
    device_close(device);
    if (!has) skip();
}

static void test_vision_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_vision(folders[i], "f32");
}

static void test_vision_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_vision(folders[i], "bf16");
}

static void test_language_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_language(folders[i], "f32");
}

static void test_language_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_language(folders[i], "bf16");
}

static void test_length_f32(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) check_length(folders[i], "f32");
}

static void test_length_bf16(void **state) {
    (void)state;
    skip_without_bf16();
    for (int i = 0; i < 2; i++) check_length(folders[i], "bf16");
}

static void test_decode_reuse(void **state) {
    (void)state;
    AnswerOptions options = answer_options_default();
    for (int i = 0; i < 2; i++) check_decode(folders[i], &options);
}

static void test_decode_no_reuse(void **state) {
    (void)state;
    AnswerOptions options = answer_options_default();
    options.no_reuse = true;
    options.decode.no_memory = true;
    for (int i = 0; i < 2; i++) check_decode(folders[i], &options);
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
