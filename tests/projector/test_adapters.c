/* LoRA adapters in PEFT's format: what models compute with those that `peft` saved, against torch
 * (tests/reference/make_adapters.py); how they are merged; those that are refused. */
#include "data/checkpoints/adapter.h"
#include "data/checkpoints/model_files.h"
#include "kernels/int8.h"
#include "projector/requests.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "tests/program.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define ADAPTERS "tests/golden/adapters/"
#define BASE     "tests/golden/models/tiny-base"
enum { MOST_VOCAB = 512, TOKENS = 9 };

static const struct {
    const char *kind, *model;
} kinds[] = {{"xlmr", BASE},
             {"modernbert", "tests/golden/encoders/modernbert"},
             {"llama", "tests/golden/llama/folders/llama"},
             {"llada", "tests/golden/llama/folders/llada"},
             {"dream", "tests/golden/llama/folders/dream"}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

typedef struct Opened {
    Device *device;
    Model model;
} Opened;

static void opened_open(Opened *o, ModelOptions options) {
    Error err;
    options.feature_layer = FEATURE_LAYER_UNSET;
    assert_ok(test_device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
}

static void opened_close(Opened *o) {
    model_close(&o->model);
    device_close(o->device);
}

/* ---- What peft saved. ---- */

static void log_softmax(const float *logits, int limit, int mask, double *out) {
    double most = -INFINITY, sum = 0;
    for (int v = 0; v < limit; v++)
        if (v != mask) most = fmax(most, (double)logits[v]);
    for (int v = 0; v < limit; v++)
        if (v != mask) sum += exp((double)logits[v] - most);
    for (int v = 0; v < limit; v++) out[v] = (double)logits[v] - most - log(sum);
}

static void check_canvas(Infill *infill, const Checkpoint *file, const Tokenizer *t) {
    int n;
    Error err;
    const int limit = tokenizer_size(t), mask = tokenizer_mask_id(t);
    int32_t *canvas = golden_ids(file, "canvas", 0, &n), all[MOST_VOCAB];
    Tensor want = golden(file, "logits", 0);
    static double scores[TOKENS][MOST_VOCAB], expected[MOST_VOCAB];
    InspectRow rows[TOKENS];
    assert_int_equal(n, TOKENS);
    assert_true(limit <= MOST_VOCAB);
    for (int v = 0; v < limit; v++) all[v] = v;
    for (int i = 0; i < n; i++)
        rows[i] = (InspectRow){.given = all, .given_count = limit, .given_scores = scores[i]};
    const DecodeCanvas c = {.request = 0, .length = n, .tokens = canvas};
    assert_ok(infill_inspect(infill, &c, 1, rows, 0, &err), &err);
    for (int i = 0; i < n; i++) {
        log_softmax((const float *)want.data + i * want.shape[1], limit, mask, expected);
        for (int v = 0; v < limit; v++)
            if (v != mask && !(fabs(scores[i][v] - expected[v]) <= 1e-5 * (1 + fabs(expected[v]))))
                fail_msg("%s: row %d, token %d: %.9g, expected %.9g", file->path, i, v,
                         scores[i][v], expected[v]);
    }
    free(canvas);
}

static void check_kind(int k) {
    Opened o;
    Error err;
    char path[128], golden_path[128];
    Checkpoint file;
    int count;
    snprintf(path, sizeof path, ADAPTERS "%s", kinds[k].kind);
    snprintf(golden_path, sizeof golden_path, ADAPTERS "%s-golden.safetensors", kinds[k].kind);
    opened_open(
        &o, (ModelOptions){
                .folder = kinds[k].model, .adapter = path, .dtype = DTYPE_F32, .text_only = true});
    assert_ok(checkpoint_open(&file, golden_path, NULL, &err), &err);
    const Multimodal *m = &o.model.parts;
    int32_t *prompt = golden_ids(&file, "prompt", 0, &count);
    const InfillPrompt prompts[] = {{prompt, count, -1}};
    const InfillConfig config = {.model = m->language,
                                 .device = o.device,
                                 .mask_id = tokenizer_mask_id(m->tokenizer),
                                 .vocab_limit = tokenizer_size(m->tokenizer),
                                 .prompts = prompts,
                                 .prompt_count = 1};
    Infill *infill;
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, TOKENS, 2 * (TOKENS + 1), &err), &err);
    check_canvas(infill, &file, m->tokenizer);
    infill_close(infill);
    free(prompt);
    checkpoint_close(&file);
    opened_close(&o);
}

static void test_language(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) check_kind(k);
}

static void check_vision(const char *adapter) {
    Opened o;
    Error err;
    Checkpoint file;
    Arena arena;
    Tensor features;
    opened_open(&o, (ModelOptions){.folder = BASE, .adapter = adapter, .dtype = DTYPE_F32});
    assert_ok(checkpoint_open(&file, ADAPTERS "clip-golden.safetensors", NULL, &err), &err);
    Tensor pixels = golden(&file, "pixels", 0), want = golden(&file, "features", 0);
    const Vit *vit = &o.model.vit;
    const int images = (int)pixels.shape[0], rows = images * vit_feature_rows(&vit->config);
    assert_ok(arena_open(&arena, o.device, vit_work_bytes(vit, images) + (1 << 20), &err), &err);
    assert_ok(arena_take(&arena, &features, DTYPE_F32, rows, want.shape[2], &err), &err);
    assert_ok(vit_forward(vit, &arena, features, pixels, NULL, &err), &err);
    compare(features, want, 1e-5, "features", 0);
    arena_close(&arena);
    checkpoint_close(&file);
    opened_close(&o);
}

/* ---- Adapters of one's own. ---- */

static void folder_make(const Run *r, const char *name, char *path, size_t size) {
    path_in(path, size, r, name);
    if (mkdir(path, 0777)) assert_int_equal(access(path, F_OK), 0);
}

/* Copies the adapter `from` with other names of tensors: what a name begins with. */
static void rename_tensors(const char *from, const char *to, const char *begin, const char *with) {
    Error err;
    Checkpoint c;
    char path[600], config[600];
    char names[64][200];
    CheckpointEntry entries[64];
    snprintf(path, sizeof path, "%s/adapter_config.json", from);
    snprintf(config, sizeof config, "%s/adapter_config.json", to);
    assert_ok(file_copy(path, config, false, &err), &err);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", from);
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_true(c.count <= 64);
    for (size_t i = 0; i < c.count; i++) {
        assert_true(!strncmp(c.tensors[i].name, begin, strlen(begin)));
        snprintf(names[i], sizeof names[i], "%s%s", with, c.tensors[i].name + strlen(begin));
        entries[i] = (CheckpointEntry){names[i], c.tensors[i].value};
    }
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", to);
    assert_ok(checkpoint_write(path, entries, c.count, &err), &err);
    checkpoint_close(&c);
}

/* Older versions of transformers, and LLaVA, have other names of the tower. */
static void test_vision(void **state) {
    (void)state;
    static const char *const names[] = {
        "base_model.model.vision_model.",
        "base_model.model.model.vision_tower.vision_tower.vision_model."};
    Run r;
    char folder[512];
    check_vision(ADAPTERS "clip");
    run_start(&r);
    folder_make(&r, "renamed", folder, sizeof folder);
    for (int i = 0; i < 2; i++) {
        rename_tensors(ADAPTERS "clip", folder, "base_model.model.", names[i]);
        check_vision(folder);
    }
    run_end(&r);
}

/* A tower's adapter for a model that is opened without it: counted. Without a tower: refused. */
static void test_closed(void **state) {
    (void)state;
    Opened o;
    Error err;
    opened_open(&o, (ModelOptions){.folder = BASE, .adapter = ADAPTERS "clip", .text_only = true});
    assert_int_equal(o.model.adapter.closed, 14);
    assert_int_equal(o.model.adapter.merged_count, 0);
    model_close(&o.model);
    assert_refused(model_open(&o.model,
                              &(ModelOptions){.language = BASE "/language",
                                              .adapter = ADAPTERS "clip",
                                              .feature_layer = FEATURE_LAYER_UNSET},
                              o.device, &err),
                   &err, "clip/adapter_model.safetensors", "belongs to no matrix", "another base");
    device_close(o.device);
}

/* A matrix of the post-LN model, and one of the pre-LN model, which is large enough for 8 bits and
 * joined with two others; of rank 2. */
#define MODULE    "roberta.encoder.layer.1.intermediate.dense"
#define A_NAME    "base_model.model." MODULE ".lora_A.weight"
#define B_NAME    "base_model.model." MODULE ".lora_B.weight"
#define XL        "tests/golden/models/tiny-xl"
#define XL_MODULE "roberta.encoder.layer.1.attention.self.key"
enum { ROWS = 40, COLUMNS = 24, RANK = 2, XL_WIDTH = 32 };

typedef struct Own {
    float a[RANK * XL_WIDTH], b[ROWS * RANK];
    CheckpointEntry entries[4];
    size_t count;
    json_t *config;
} Own;

static void own_make(Own *own) {
    for (int i = 0; i < RANK * XL_WIDTH; i++) own->a[i] = sinf((float)i) * 0.5f;
    for (int i = 0; i < ROWS * RANK; i++) own->b[i] = cosf(1.7f * (float)i) * 0.5f;
    own->entries[0] = (CheckpointEntry){A_NAME, tensor_2d(own->a, DTYPE_F32, RANK, COLUMNS)};
    own->entries[1] = (CheckpointEntry){B_NAME, tensor_2d(own->b, DTYPE_F32, ROWS, RANK)};
    own->count = 2;
    own->config = json_pack("{s:s, s:i, s:i, s:[s]}", "peft_type", "LORA", "r", RANK, "lora_alpha",
                            3, "target_modules", MODULE);
}

static void own_write(const Own *own, const char *folder) {
    Error err;
    char path[600];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    assert_ok(checkpoint_write(path, own->entries, own->count, &err), &err);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    assert_ok(json_write(own->config, path, &err), &err);
}

static float *values_of(Model *m, Dtype *dtype) {
    Param *p = params_find(&m->language.params, XL_MODULE ".weight");
    float *values = malloc(XL_WIDTH * XL_WIDTH * sizeof *values);
    assert_non_null(p);
    tensor_values(values, DTYPE_F32, p->value, 0, XL_WIDTH * XL_WIDTH);
    *dtype = p->value.dtype;
    return values;
}

/* The sums of a model of any stored type, in the type in which it is written. */
static void check_merged(const char *model, const char *adapter, const Own *own, double scale,
                         Dtype stored, Dtype written) {
    Opened plain, merged;
    Dtype before, after;
    opened_open(&plain, (ModelOptions){.folder = model, .describe_only = true});
    opened_open(&merged,
                (ModelOptions){.folder = model, .describe_only = true, .adapter = adapter});
    float *base = values_of(&plain.model, &before), *got = values_of(&merged.model, &after);
    assert_int_equal(before, stored);
    assert_int_equal(after, written);
    const double unit = written == DTYPE_F32 ? 1e-6 : 4e-3;
    for (int i = 0; i < XL_WIDTH * XL_WIDTH; i++) {
        double sum = 0;
        for (int k = 0; k < RANK; k++)
            sum += (double)own->b[i / XL_WIDTH * RANK + k] *
                   (double)own->a[k * XL_WIDTH + i % XL_WIDTH];
        const double want = (double)base[i] + scale * sum;
        if (!(fabs((double)got[i] - want) <= unit * (0.2 + fabs(want))))
            fail_msg("%s: value %d is %.9g, expected %.9g", model, i, (double)got[i], want);
    }
    free(base), free(got);
    opened_close(&plain), opened_close(&merged);
}

static double score_of(Run *r, char *model, char *adapter, char *text, size_t size) {
    double score = NAN;
    run(r, "text", "-m", model, "-q", "--json", "--dtype", "f32", "--length", "6", "red apple",
        adapter ? "--adapter" : NULL, adapter);
    expect(r, 0, NULL);
    json_t *json = json_loads(r->out, 0, NULL);
    const json_t *found = json_object_get(json, "score");
    if (!json_is_number(found)) fail_msg("no score in %s", r->out);
    score = json_number_value(found);
    snprintf(text, size, "%s", json_string_value(json_object_get(json, "answer")));
    json_decref(json);
    return score;
}

static void test_types(void **state) {
    (void)state;
    Run r;
    Own own;
    char folder[512], eight[512], half[512], whole[512], text[3][256];
    run_start(&r);
    own_make(&own);
    own.entries[0] = (CheckpointEntry){"base_model.model." XL_MODULE ".lora_A.weight",
                                       tensor_2d(own.a, DTYPE_F32, RANK, XL_WIDTH)};
    own.entries[1] = (CheckpointEntry){"base_model.model." XL_MODULE ".lora_B.weight",
                                       tensor_2d(own.b, DTYPE_F32, XL_WIDTH, RANK)};
    json_object_set_new(own.config, "target_modules", json_string(".*key"));
    folder_make(&r, "own", folder, sizeof folder);
    own_write(&own, folder);
    path_in(eight, sizeof eight, &r, "eight");
    path_in(half, sizeof half, &r, "half");
    path_in(whole, sizeof whole, &r, "whole");
    run(&r, "quantize", "-m", XL, eight, "-q");
    expect(&r, 0, NULL);
    run(&r, "quantize", "-m", eight, "--dequantize", half, "-q");
    expect(&r, 0, NULL);
    run(&r, "quantize", "-m", eight, "--dequantize", "--dtype", "f32", whole, "-q");
    expect(&r, 0, NULL);
    check_merged(eight, folder, &own, 1.5, DTYPE_I8, DTYPE_BF16);
    check_merged(half, folder, &own, 1.5, DTYPE_BF16, DTYPE_BF16);
    check_merged(whole, folder, &own, 1.5, DTYPE_F32, DTYPE_F32);
    json_object_set_new(own.config, "use_rslora", json_true());
    own_write(&own, folder);
    check_merged(whole, folder, &own, 3 / sqrt(2), DTYPE_F32, DTYPE_F32);
    /* A model in 8 bits computes what its weights in f32 do. */
    const double without = score_of(&r, eight, NULL, text[0], sizeof text[0]);
    const double with = score_of(&r, eight, folder, text[1], sizeof text[1]);
    const double same = score_of(&r, whole, folder, text[2], sizeof text[2]);
    assert_string_equal(text[1], text[2]);
    if (!(fabs(with - same) < 1e-3 && fabs(with - without) > 1e-2))
        fail_msg("scores %g and %g, without %g", with, same, without);
    json_decref(own.config);
    run_end(&r);
}

/* ---- Refused. ---- */

static int open_own(const Own *own, const char *folder, Error *err) {
    Device *device;
    Model model;
    own_write(own, folder);
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, err), err);
    const ModelOptions options = {.folder = BASE,
                                  .adapter = folder,
                                  .feature_layer = FEATURE_LAYER_UNSET,
                                  .describe_only = true};
    int status = model_open(&model, &options, device, err);
    if (status == 0) model_close(&model);
    device_close(device);
    return status;
}

static void test_configs(void **state) {
    (void)state;
    static const struct {
        const char *set, *words[3]; /* a member; NULL: it is accepted */
    } cases[] = {
        {"{\"lora_dropout\": 0.3, \"unknown\": null, \"other\": [], \"task_type\": \"X\"}", {NULL}},
        {"{\"init_lora_weights\": \"gaussian\"}", {NULL}},
        {"{\"rank_pattern\": {\"query\": 7, \"intermediate.dense\": 2}, \"r\": 5}", {NULL}},
        {"{\"target_modules\": \".*dense\"}", {NULL}},
        {"{\"target_modules\": [\"intermediate.dense\"], \"layers_to_transform\": [1]}", {NULL}},
        {"{\"peft_type\": \"IA3\"}", {"\"peft_type\" is \"IA3\"", "expected LORA"}},
        {"{\"bias\": \"all\"}", {"\"bias\" is \"all\"", "expected none"}},
        {"{\"fan_in_fan_out\": true}", {"\"fan_in_fan_out\"", "expected false"}},
        {"{\"use_dora\": true}", {"\"use_dora\" is set", "merge_and_unload"}},
        {"{\"modules_to_save\": [\"lm_head\"]}", {"\"modules_to_save\" is set"}},
        {"{\"lora_bias\": true}", {"\"lora_bias\" is set"}},
        {"{\"layer_replication\": [[0, 2]]}", {"\"layer_replication\" is set"}},
        {"{\"from_the_future\": 3}", {"\"from_the_future\" is set"}},
        {"{\"init_lora_weights\": \"pissa_niter_4\"}", {"pissa_niter_4", "convert the adapter"}},
        {"{\"rank_pattern\": {\"layer.[01].x\": 2}}", {"\"rank_pattern\"", "layer.[01].x"}},
        {"{\"rank_pattern\": {\"intermediate.dense\": 0}}", {"\"rank_pattern\"", "1 or more"}},
        {"{\"alpha_pattern\": {\"x\": \"y\"}}", {"\"alpha_pattern\"", "must be a number"}},
        {"{\"alpha_pattern\": 4}", {"\"alpha_pattern\"", "must be an object"}},
        {"{\"alpha_pattern\": {\"intermediate.dense\": 1e300}}", {"the scale of " MODULE}},
        {"{\"rank_pattern\": {\"^" MODULE "\": 4}}", {"[2, 24]", "rank 4"}},
        {"{\"r\": 4}", {A_NAME, "[2, 24]", "rank 4"}},
        {"{\"r\": 0}", {"\"r\"", "0"}},
        {"{\"r\": null}", {"\"r\""}},
        {"{\"target_modules\": [3]}", {"\"target_modules\" must be a list of names"}},
        {"{\"target_modules\": [\"query\", \"intermediate.dense\"]}",
         {"lacks the matrices of roberta.encoder.layer.0.attention.self.query.weight", "query"}},
    };
    Run r;
    char folder[512];
    Error err;
    run_start(&r);
    folder_make(&r, "own", folder, sizeof folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Own own;
        own_make(&own);
        json_t *set = json_loads(cases[i].set, 0, NULL);
        assert_non_null(set);
        json_object_update(own.config, set);
        if (!cases[i].words[0])
            assert_ok(open_own(&own, folder, &err), &err);
        else
            assert_refused(open_own(&own, folder, &err), &err, folder, cases[i].words[0],
                           cases[i].words[1] ? cases[i].words[1] : "");
        json_decref(set), json_decref(own.config);
    }
    run_end(&r);
}

static void test_tensors(void **state) {
    (void)state;
    Run r;
    char folder[512], path[600];
    Error err;
    Own own;
    run_start(&r);
    folder_make(&r, "own", folder, sizeof folder);
    own_make(&own);
#define REFUSED(...) assert_refused(open_own(&own, folder, &err), &err, folder, __VA_ARGS__)
    own.entries[0].value = tensor_2d(own.a, DTYPE_F32, RANK, COLUMNS - 1);
    REFUSED(A_NAME, "[2, 23]", "[40, 2]", "[40, 24]", "rank 2");
    own.entries[0].value = tensor_2d(own.a, DTYPE_I8, RANK, COLUMNS);
    REFUSED(A_NAME, "type I8", "expected F32");
    own.entries[0].value = tensor_2d(own.a, DTYPE_F32, RANK, COLUMNS);
    own.entries[1].value = tensor_2d(own.b, DTYPE_F32, RANK, ROWS);
    REFUSED(A_NAME, "lora_B [2, 40]");
    own.entries[1].value = tensor_2d(own.b, DTYPE_F32, ROWS, RANK);
    own.a[5] = NAN;
    REFUSED(A_NAME, "value 5", "not finite");
    own.a[5] = 0;
    own.count = 1;
    REFUSED(A_NAME, "without its lora_B");
    own.entries[0] = own.entries[1];
    REFUSED(B_NAME, "without its lora_A");
    own_make(&own);
    own.count = 3;
    const Tensor row = tensor_1d(own.b, DTYPE_F32, ROWS);
    static const char *const more[][2] = {
        {"base_model.model." MODULE ".lora_magnitude_vector", "DoRA"},
        {"base_model.model.roberta.embeddings.word_embeddings.lora_embedding_A", "embeddings"},
        {"base_model.model." MODULE ".lora_B.bias", "expected lora_A.weight"},
        {"base_model.model." MODULE ".lora_A.default.weight", "expected lora_A.weight"},
        {"base_model.model.lm_head.bias", "whole modules"},
        {"something", "would not be used"}};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        own.entries[2] = (CheckpointEntry){more[i][0], row};
        REFUSED(more[i][0], more[i][1]);
    }
    own.count = 2;
    own.entries[0].name = "base_model.model.bert.layer.0.dense.lora_A.weight";
    own.entries[1].name = "base_model.model.bert.layer.0.dense.lora_B.weight";
    REFUSED("bert.layer.0.dense.lora_A.weight", "belongs to no matrix");
    own.entries[0].name = "base_model.model.roberta.embeddings.word_embeddings.lora_A.weight";
    own.entries[1].name = "base_model.model.roberta.embeddings.word_embeddings.lora_B.weight";
    REFUSED("word_embeddings.lora_A.weight", "embedding");
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    assert_int_equal(unlink(path), 0);
    run(&r, "text", "-m", BASE, "--adapter", folder, "x");
    assert_message(&r, 1, folder, "has no adapter_model.safetensors");
    run(&r, "text", "-m", BASE, "--adapter", BASE, "x");
    assert_message(&r, 1, BASE, "no adapter", "adapter_config.json");
    run(&r, "text", "-m", folder, "x");
    assert_message(&r, 1, folder, "as its adapter");
    json_decref(own.config);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language), cmocka_unit_test(test_vision),
        cmocka_unit_test(test_closed),   cmocka_unit_test(test_types),
        cmocka_unit_test(test_configs),  cmocka_unit_test(test_tensors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
