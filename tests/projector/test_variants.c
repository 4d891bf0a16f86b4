/* The layouts and names of the parts in public files: each loads, and computes what the reference
 * computed (tests/golden/models/variants, tests/reference/make_models.py). */
#include "tests/golden_models.h"
#include "tests/matrix.h"

#define VARIANTS "tests/golden/models/variants/"

typedef struct Opened {
    Device *device;
    Model model;
    Checkpoint golden;
} Opened;

static void opened_close(Opened *o) {
    checkpoint_close(&o->golden);
    model_close(&o->model);
    device_close(o->device);
}

/* The variants have no tokenizer: they are opened as `info` does and then prepared by hand. */
static void opened_open(Opened *o, ModelOptions options) {
    Error err;
    *o = (Opened){0};
    options.dtype = DTYPE_F32, options.describe_only = true,
    options.feature_layer = FEATURE_LAYER_UNSET;
    assert_ok(test_device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
    ModelPart *parts[] = {&o->model.vision, &o->model.language, &o->model.projector,
                          &o->model.length};
    for (int i = 0; i < 4; i++)
        if (parts[i]->present) assert_ok(part_prepare(&parts[i]->sources, DTYPE_F32, &err), &err);
    assert_ok(checkpoint_open(&o->golden, VARIANTS "stages.safetensors", NULL, &err), &err);
}

static void check_language_variant(const char *path, const char *name) {
    Opened o;
    char logits[32];
    snprintf(logits, sizeof logits, "%s", name);
    opened_open(&o, (ModelOptions){.language = path});
    check_sequences(&o.model.xlmr, o.device, &o.golden, 1e-5, 0, name, false, logits, NULL);
    opened_close(&o);
}

static void test_language(void **state) {
    (void)state;
    check_language_variant(VARIANTS "language-bin-f32", "text");
    check_language_variant(VARIANTS "language-bin-legacy", "text");
    check_language_variant(VARIANTS "language-bin-f16", "text");
    check_language_variant(VARIANTS "language-bin-bf16", "text");
    check_language_variant(VARIANTS "language-bin-f32/pytorch_model.bin", "text");
    check_language_variant(VARIANTS "language-sharded", "text");
    check_language_variant(VARIANTS "language-sharded/model.safetensors.index.json", "text");
}

/* A stored XXL configuration says "xlm-roberta": the tensors decide. */
static void test_mislabelled_xl(void **state) {
    (void)state;
    check_language_variant(VARIANTS "language-xl-mislabelled", "text_xl");
}

/* One state dict with "model." names, an empty decoder and the length predictor inside. */
static void test_released(void **state) {
    (void)state;
    check_language_variant(VARIANTS "released/released.pt", "text");
    Opened o;
    Error err;
    opened_open(&o, (ModelOptions){.language = VARIANTS "released"});
    assert_true(o.model.length.present);
    int count, n;
    int32_t *ids = golden_ids(&o.golden, "length.ids", 0, &n);
    int32_t *begin = golden_ids(&o.golden, "length.begin", 0, &count);
    InfillPrompt prompts[8];
    for (int i = 0; i < count - 1; i++)
        prompts[i] = (InfillPrompt){ids + begin[i] + 1, begin[i + 1] - begin[i] - 1, -1};
    Infill *infill;
    InfillConfig config = {.model = language_of_xlmr(&o.model.xlmr),
                           .device = o.device,
                           .mask_id = 39,
                           .vocab_limit = 40,
                           .prompts = prompts,
                           .prompt_count = count - 1};
    assert_ok(infill_open(&infill, &config, &err), &err);
    Tensor want = golden(&o.golden, "length.logits", 0);
    float *logits = malloc(tensor_bytes(want));
    assert_ok(infill_lengths(infill, &o.model.length_model, logits, &err), &err);
    assert_close(logits, want.data, (size_t)tensor_count(want), 1e-5, "length.logits");
    free(logits), free(ids), free(begin);
    infill_close(infill);
    opened_close(&o);
}

static void check_vision_variant(const char *path, bool project) {
    Opened o;
    Error err;
    opened_open(
        &o, (ModelOptions){.vision = path,
                           .projector = project ? VARIANTS "projector-llava.safetensors" : NULL});
    Tensor pixels = golden(&o.golden, "pixels", 0), want = golden(&o.golden, "vit.features", 0);
    Arena arena;
    assert_ok(arena_open(&arena, o.device, vit_work_bytes(&o.model.vit, 2) + (1 << 16), &err),
              &err);
    Tensor features, tokens;
    int64_t rows = want.shape[0] * want.shape[1];
    assert_ok(arena_take(&arena, &features, DTYPE_F32, rows, want.shape[2], &err), &err);
    assert_ok(vit_forward(&o.model.vit, &arena, features, pixels, NULL, &err), &err);
    compare(features, want, 1e-5, path, 0);
    if (project) {
        Tensor expected = golden(&o.golden, "projector.tokens", 0);
        assert_ok(arena_take(&arena, &tokens, DTYPE_F32, rows, expected.shape[2], &err), &err);
        assert_ok(projector_forward(&o.model.projector_model, &arena, tokens, features, &err),
                  &err);
        compare(tokens, expected, 1e-5, "projector.tokens", 0);
    }
    arena_close(&arena);
    opened_close(&o);
}

static void test_vision(void **state) {
    (void)state;
    check_vision_variant(VARIANTS "clip-full", true);
    check_vision_variant(VARIANTS "clip-bare", true);
}

static void collect_unknown(void *user, const CheckpointTensor *tensor) {
    strncat(user, tensor->name, 200);
}

/* Text tower, position ids and pooler are expected; anything else is reported. */
static void test_unknown(void **state) {
    (void)state;
    Opened o;
    char names[4096] = "";
    opened_open(&o, (ModelOptions){.vision = VARIANTS "clip-full"});
    assert_int_equal(
        part_unknown(o.model.vision.checkpoint, &o.model.vision.sources, 1, collect_unknown, names),
        0);
    assert_string_equal(names, "");
    opened_close(&o);
    opened_open(&o, (ModelOptions){.language = VARIANTS "released"});
    /* A length predictor that is not loaded from here is expected; of one that is, every tensor. */
    PartSources sources[] = {o.model.language.sources, o.model.length.sources};
    assert_int_equal(part_unknown(sources[0].checkpoint, sources, 1, collect_unknown, names), 0);
    const CheckpointTensor **tensors = sources[1].tensors;
    for (int i = 0; i < sources[1].params->count; i++)
        if (strstr(tensors[i]->name, "length_trm.layers.0.linear2.bias")) tensors[i] = NULL;
    assert_int_equal(part_unknown(sources[0].checkpoint, sources, 2, collect_unknown, names), 1);
    assert_string_equal(names, "length_trm.layers.0.linear2.bias");
    opened_close(&o);
}

/* Parts that do not belong together, and files that are not what they are named for. */
static void test_refused(void **state) {
    (void)state;
    Device *device;
    Error err;
    Model m;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    ModelOptions o = {.language = VARIANTS "clip-full", .feature_layer = FEATURE_LAYER_UNSET};
    assert_refused(model_open(&m, &o, device, &err), &err, "clip-full", "no language model",
                   "word_embeddings");
    o.language = "tests/golden/models/tiny-base/language";
    o.vision = "tests/golden/models/tiny-base/vision";
    o.projector = "tests/golden/models/tiny-xl/projector.safetensors";
    assert_refused(model_open(&m, &o, device, &err), &err, "tiny-xl/projector", "width", "32",
                   "24");
    o.projector = VARIANTS "projector-llava.safetensors";
    assert_refused(model_open(&m, &o, device, &err), &err, "projector-llava", "width", "different");
    o.projector = NULL, o.vision = "tests/golden/models/tiny-base/nothing";
    assert_refused(model_open(&m, &o, device, &err), &err, "nothing");
    o.vision = NULL, o.language = VARIANTS "language-bin-f32";
    assert_refused(model_open(&m, &o, device, &err), &err, "sentencepiece.bpe.model", "missing");
    o = (ModelOptions){.folder = "tests/golden/models/none", .feature_layer = FEATURE_LAYER_UNSET};
    assert_refused(model_open(&m, &o, device, &err), &err, "none", "no such folder");
    o = (ModelOptions){.feature_layer = FEATURE_LAYER_UNSET};
    assert_refused(model_open(&m, &o, device, &err), &err, "no model is named");
    o = (ModelOptions){.folder = "tests/golden/models/tiny-base", .feature_layer = 4};
    assert_refused(model_open(&m, &o, device, &err), &err, "feature layer 4");
    o = (ModelOptions){.folder = "tests/golden/models/tiny-base",
                       .dtype = DTYPE_F16,
                       .feature_layer = FEATURE_LAYER_UNSET};
    assert_refused(model_open(&m, &o, device, &err), &err, "f16", "bf16");
    device_close(device);
}

/* Writes `text` to folder/name. */
static void write_text(const char *folder, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A model folder with broken settings is refused with the file's name and the member's. */
static void test_settings(void **state) {
    (void)state;
    static const struct {
        const char *json, *word[2];
    } cases[] = {{"{\"format\": 2}", {"\"format\"", "easyfirst.json"}},
                 {"{\"attention\": \"some\"}", {"\"attention\"", "some"}},
                 {"{\"attention\": 3}", {"\"attention\"", "text"}},
                 {"{\"format\": 1,}", {"line 1", "easyfirst.json"}},
                 {"[1]", {"not a JSON object", "easyfirst.json"}},
                 {"", {"easyfirst.json", "empty (0 bytes)"}}};
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    char folder[256];
    temporary_folder(folder, sizeof folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Model m;
        write_text(folder, "easyfirst.json", cases[i].json);
        ModelOptions o = {.folder = folder, .feature_layer = FEATURE_LAYER_UNSET};
        assert_refused(model_open(&m, &o, device, &err), &err, cases[i].word[0], cases[i].word[1]);
    }
    temporary_remove(folder);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language), cmocka_unit_test(test_mislabelled_xl),
        cmocka_unit_test(test_released), cmocka_unit_test(test_vision),
        cmocka_unit_test(test_unknown),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
