/* What is in a model's files is followed or refused by name: configuration values, tensors beyond
 * those of the part, adapters; and what people have in place of a model's folder is recognised. */
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/cli/loading.h"
#include "projector/model.h"
#include "projector/model_languages.h"
#include "data/checkpoints/config.h"
#include "data/checkpoints/model_files.h"
#include "tests/checkpoint_files.h"
#include "tests/program.h"

#define BASE "tests/golden/models/tiny-base/"

static Device *device;

static int setup(void **state) {
    Error err;
    if (device_open(&device, &(DeviceOptions){.threads = 1}, &err)) return -1;
    return make_folder(state);
}

static int teardown(void **state) {
    device_close(device);
    return remove_folder(state);
}

/* ---- Made folders. ---- */

/* A part's folder "<name>" from the golden model's, with the members of `changes` (a JSON object;
 * null removes one) in its config.json. */
static void make_part(const char *name, const char *from, const char *changes) {
    static const char *const files[] = {"model.safetensors", "sentencepiece.bpe.model"};
    char source[512], target[512];
    Error err;
    json_error_t where;
    snprintf(target, sizeof target, "%s/%s", at(""), name);
    assert_true(mkdir(target, 0777) == 0 || access(target, F_OK) == 0);
    for (int i = 0; i < 2; i++) {
        snprintf(source, sizeof source, BASE "%s/%s", from, files[i]);
        snprintf(target, sizeof target, "%s/%s/%s", at(""), name, files[i]);
        if (access(source, F_OK) == 0) assert_ok(file_copy(source, target, false, &err), &err);
    }
    json_t *config, *change = json_loads(changes, 0, &where), *value;
    if (!change) fail_msg("%s: %s", changes, where.text);
    snprintf(source, sizeof source, BASE "%s/config.json", from);
    assert_ok(config_read(&config, source, &err), &err);
    const char *key;
    json_object_foreach(change, key, value) {
        if (json_is_null(value))
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    snprintf(target, sizeof target, "%s/%s/config.json", at(""), name);
    assert_ok(json_write(config, target, &err), &err);
    json_decref(config), json_decref(change);
}

static void save_in(const char *folder, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    save_text(path, text);
}

/* Opens as the commands do that answer. */
static int open_with(ModelOptions options, Error *err) {
    Model m;
    options.feature_layer = FEATURE_LAYER_UNSET;
    TRY(model_open(&m, &options, device, err));
    model_close(&m);
    return 0;
}
#define OPEN(...) open_with((ModelOptions){__VA_ARGS__}, &err)

/* ---- config.json. ---- */

typedef struct Change {
    const char *json;
    const char *said[2]; /* NULL: accepted */
} Change;

static const Change language_changes[] = {
    {"{}", {NULL}},
    {"{\"model_type\": null, \"bos_token_id\": null, \"layer_norm_eps\": null}", {NULL}},
    {"{\"model_type\": \"xlm-roberta-xl\", \"position_embedding_type\": \"absolute\"}", {NULL}},
    {"{\"hidden_dropout_prob\": 0.5, \"use_cache\": false, \"id2label\": {\"0\": \"a\"}}", {NULL}},
    {"{\"quantization_config\": {}, \"pruned_heads\": {}}", {NULL}},
    {"{\"model_type\": \"camembert\"}", {"\"model_type\" is \"camembert\"", "xlm-roberta"}},
    {"{\"model_type\": \"roberta\"}", {NULL}},
    {"{\"model_type\": \"roberta-prelayernorm\"}",
     {"\"model_type\" is \"roberta-pre", "token ids"}},
    {"{\"model_type\": \"bert\"}", {"bert", "xlm-roberta-xl"}},
    {"{\"model_type\": 5}", {"\"model_type\"", "text"}},
    {"{\"bos_token_id\": 5}", {"\"bos_token_id\" is 5", "expected 0"}},
    {"{\"eos_token_id\": 6}", {"\"eos_token_id\" is 6", "expected 2"}},
    {"{\"pad_token_id\": 0}", {"\"pad_token_id\" is 0", "expected 1"}},
    {"{\"position_embedding_type\": \"relative_key\"}", {"position_embedding_type", "absolute"}},
    {"{\"quantization_config\": {\"bits\": 4}}", {"quantization_config", "full weights"}},
    {"{\"is_decoder\": true}", {"\"is_decoder\" is true", "expected false"}},
    {"{\"add_cross_attention\": true}", {"add_cross_attention", "false"}},
    {"{\"hidden_act\": \"gelu_new\"}", {"hidden_act", "gelu_new"}},
    {"{\"hidden_act\": \"gelu_pytorch_tanh\"}", {"hidden_act", "expected gelu"}},
    {"{\"layer_norm_eps\": -1}", {"layer_norm_eps", "-1"}},
    {"{\"layer_norm_eps\": \"small\"}", {"layer_norm_eps", "number"}},
    {"{\"num_attention_heads\": 5}", {"width 24", "5 heads"}},
    {"{\"num_hidden_layers\": 3}", {"num_hidden_layers", "tensors have 2"}},
    {"{\"vocab_size\": 250002}", {"vocab_size", "322"}},
    {"{\"max_position_embeddings\": 514}", {"max_position_embeddings", "130"}},
    {"{\"pruned_heads\": {\"0\": [1]}}", {"pruned_heads", "not supported"}},
    {"{\"tie_word_embeddings\": false}", {"tie_word_embeddings", "no tensor lm_head.decoder"}},
    {"{\"tie_word_embeddings\": 1}", {"tie_word_embeddings", "true or false"}},
};

static void test_language_config(void **state) {
    (void)state;
    Error err;
    for (size_t i = 0; i < sizeof language_changes / sizeof *language_changes; i++) {
        const Change *c = &language_changes[i];
        make_part("language", "language", c->json);
        if (!c->said[0])
            assert_ok(OPEN(.language = at("language")), &err);
        else
            assert_refused(OPEN(.language = at("language")), &err, "/language", c->said[0],
                           c->said[1]);
    }
    char *file = strdup(at("language/config.json"));
    assert_ok(file_copy("tests/golden/cases/camembert_config.json", file, false, &err), &err);
    assert_refused(OPEN(.language = at("language")), &err, "camembert", "xlm-roberta");
    free(file);
    make_part("language", "language", "{}");
    /* A byte order mark is accepted. */
    size_t size;
    char *text = file_bytes(at("language/config.json"), &size), bom[4096];
    make_part("language", "language", "{}");
    free(text);
    text = file_bytes(at("language/config.json"), &size);
    int n = snprintf(bom, sizeof bom, "\xEF\xBB\xBF%s", text);
    save(at("language/config.json"), bom, (size_t)n);
    assert_ok(OPEN(.language = at("language")), &err);
    free(text);
}

/* The eps and heads that transformers assumes where the file says nothing. */
static void test_defaults(void **state) {
    (void)state;
    Error err;
    Model m;
    ModelOptions o = {.feature_layer = FEATURE_LAYER_UNSET};
    make_part("eps", "language", "{\"layer_norm_eps\": null}");
    o.language = at("eps");
    assert_ok(model_open(&m, &o, device, &err), &err);
    assert_true(m.xlmr.config.block.eps == 1e-12f);
    model_close(&m);
    make_part("tower", "vision", "{\"num_attention_heads\": null, \"layer_norm_eps\": null}");
    o = (ModelOptions){.feature_layer = FEATURE_LAYER_UNSET, .vision = at("tower")};
    assert_ok(model_open(&m, &o, device, &err), &err);
    assert_int_equal(m.vit.config.block.heads, 12);
    assert_true(m.vit.config.block.eps == 1e-5f);
    model_close(&m);
}

static const Change vision_changes[] = {
    {"{}", {NULL}},
    {"{\"model_type\": null}", {NULL}},
    {"{\"model_type\": \"siglip_vision_model\"}", {"siglip_vision_model", "SigLIP"}},
    {"{\"model_type\": \"dinov2\"}", {"dinov2", "clip_vision_model"}},
    {"{\"image_size\": 336}", {"image_size", "tensors have 28"}},
    {"{\"patch_size\": 14}", {"patch_size", "7"}},
    {"{\"num_channels\": 4}", {"num_channels", "expected 3"}},
    {"{\"hidden_act\": \"silu\"}", {"hidden_act", "silu"}},
    {"{\"quantization_config\": {\"bits\": 8}}", {"quantization_config", "full weights"}},
    {"{\"vision_feature_select_strategy\": \"both\"}", {"select_strategy", "default or full"}},
    {"{\"projector_hidden_act\": \"relu\"}", {"projector_hidden_act", "gelu"}},
};

static void test_vision_config(void **state) {
    (void)state;
    Error err;
    for (size_t i = 0; i < sizeof vision_changes / sizeof *vision_changes; i++) {
        const Change *c = &vision_changes[i];
        make_part("vision", "vision", c->json);
        if (!c->said[0])
            assert_ok(OPEN(.vision = at("vision")), &err);
        else
            assert_refused(OPEN(.vision = at("vision")), &err, "vision/config.json", c->said[0],
                           c->said[1]);
    }
    /* LLaVA's configuration says which features its projector reads. */
    Model m;
    make_part("llava", "vision",
              "{\"vision_feature_layer\": -3, \"vision_feature_select_strategy\": \"full\"}");
    ModelOptions o = {.feature_layer = FEATURE_LAYER_UNSET, .vision = at("llava")};
    assert_ok(model_open(&m, &o, device, &err), &err);
    assert_int_equal(m.vit.config.feature_layer, -3);
    assert_true(m.vit.config.class_token);
    model_close(&m);
}

static const Change preprocess_changes[] = {
    {"{}", {NULL}},
    {"{\"size\": 28, \"crop_size\": 28, \"resample\": 3, \"do_convert_rgb\": true}", {NULL}},
    {"{\"size\": {\"shortest_edge\": 28}, \"crop_size\": {\"height\": 28, \"width\": 28}}", {NULL}},
    {"{\"rescale_factor\": 0.00392156862745098, \"image_std\": [1, 1, 1], \"do_resize\": true}",
     {NULL}},
    {"{\"feature_extractor_type\": \"CLIPFeatureExtractor\", \"do_normalize\": true}", {NULL}},
    {"{\"image_processor_type\": \"SiglipImageProcessor\"}", {"image_processor_type", "Siglip"}},
    {"{\"feature_extractor_type\": \"ViTFeatureExtractor\"}", {"feature_extractor_type", "ViT"}},
    {"{\"resample\": 2}", {"\"resample\" is 2", "expected 3"}},
    {"{\"do_normalize\": false}", {"do_normalize", "expected true"}},
    {"{\"do_rescale\": false}", {"do_rescale", "expected true"}},
    {"{\"do_resize\": false}", {"do_resize", "expected true"}},
    {"{\"do_center_crop\": false}", {"do_center_crop", "expected true"}},
    {"{\"rescale_factor\": 0.0078}", {"rescale_factor", "1/255"}},
    {"{\"size\": 256}", {"\"size\" is 256", "expected 28"}},
    {"{\"size\": {\"shortest_edge\": 336}}", {"shortest_edge", "expected 28"}},
    {"{\"size\": {\"height\": 28, \"width\": 28}}", {"squeezed", "pad"}},
    {"{\"size\": {\"longest_edge\": 28}}", {"\"size\"", "unknown way"}},
    {"{\"crop_size\": {\"height\": 28, \"width\": 24}}", {"width", "expected 28"}},
    {"{\"image_mean\": [0.5, 0.5]}", {"image_mean", "three numbers"}},
    {"{\"image_mean\": [0.5, 0.5, 0.5, 1]}", {"image_mean", "three numbers"}},
    {"{\"image_std\": [1, 0, 1]}", {"image_std", "above 0"}},
    {"{\"image_std\": \"1\"}", {"image_std", "three numbers"}},
};

static void test_preprocess_config(void **state) {
    (void)state;
    Error err;
    make_part("see", "vision", "{}");
    char *file = strdup(at("see/preprocessor_config.json"));
    for (size_t i = 0; i < sizeof preprocess_changes / sizeof *preprocess_changes; i++) {
        const Change *c = &preprocess_changes[i];
        save_text(file, c->json);
        if (!c->said[0])
            assert_ok(OPEN(.vision = at("see"), .pad = PAD_OFF), &err);
        else
            assert_refused(OPEN(.vision = at("see"), .pad = PAD_OFF), &err,
                           "preprocessor_config.json", c->said[0], c->said[1]);
    }
    /* A square is squeezed into a square as it is. */
    save_text(file, "{\"size\": {\"height\": 28, \"width\": 28}, \"do_center_crop\": false}");
    assert_ok(OPEN(.vision = at("see"), .pad = PAD_ON), &err);
    free(file);
}

/* ---- easyfirst.json. ---- */

static void test_settings(void **state) {
    (void)state;
    static const Change changes[] = {
        {"{\"prompts\": {\"ask\": \"Q: {question} A:\"}, \"languages\": [\"de-en\", "
         "\"fr-German\"]}",
         {NULL}},
        {"{\"languages\": []}", {NULL}},
        {"{\"attention_pattern\": \"full\"}", {"unknown setting", "attention_pattern"}},
        {"{\"prompts\": [1]}", {"\"prompts\"", "object"}},
        {"{\"prompts\": {\"chat\": \"x\"}}", {"\"chat\"", "summarize"}},
        {"{\"prompts\": {\"ask\": 3}}", {"\"ask\"", "text"}},
        {"{\"prompts\": {\"ask\": \"{quest}\"}}", {"unknown field", "{quest}"}},
        {"{\"languages\": \"de-en\"}", {"\"languages\"", "list of pairs"}},
        {"{\"languages\": [\"de\"]}", {"number 1", "\"de\""}},
        {"{\"languages\": [\"de-en\", \"de-klingon\"]}", {"number 2", "klingon"}},
        {"{\"languages\": [4]}", {"\"languages\"", "number 1"}},
    };
    Error err;
    assert_int_equal(mkdir(at("set"), 0777), 0);
    make_part("set/language", "language", "{}");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        save_text(at("set/easyfirst.json"), changes[i].json);
        if (!changes[i].said[0])
            assert_ok(OPEN(.folder = at("set")), &err);
        else
            assert_refused(OPEN(.folder = at("set")), &err, "easyfirst.json", changes[i].said[0],
                           changes[i].said[1]);
    }
    /* What it translates. */
    save_text(at("set/easyfirst.json"), "{\"languages\": [\"de-en\", \"en-fr\"]}");
    assert_ok(OPEN(.folder = at("set"), .from = "de", .to = "English"), &err);
    assert_ok(OPEN(.folder = at("set"), .from = "EN", .to = "french"), &err);
    assert_refused(OPEN(.folder = at("set"), .from = "en", .to = "de"), &err,
                   "does not translate English to German", "German to English, English to French");
    assert_refused(OPEN(.folder = at("set"), .from = "de", .to = "Klingon"), &err,
                   "unknown language \"Klingon\"");
    assert_refused(OPEN(.folder = at("set"), .from = "Germn", .to = "en"), &err,
                   "did you mean German?");
    assert_ok(OPEN(.folder = at("set"), .language = BASE "language", .from = "en", .to = "de"),
              &err); /* another language model, of which the folder says nothing */
    save_text(at("set/easyfirst.json"), "{}");
    assert_ok(OPEN(.folder = at("set"), .from = "zh", .to = "Scottish Gaelic"), &err);
    assert_refused(OPEN(.folder = at("set"), .from = "zh", .to = "Englisch"), &err,
                   "did you mean English?");
    save_text(at("set/easyfirst.json"), "{\"languages\": []}");
    assert_refused(OPEN(.folder = at("set"), .from = "de", .to = "en"), &err, "but nothing");
    assert_string_equal(language_name("de"), "German");
    assert_string_equal(language_name("gerMAN"), "German");
}

/* ---- Tensors. ---- */

typedef struct Extra {
    const char *name;
    int rows, columns;
} Extra;

/* The weights of a part of the golden model, all names with a prefix and the first `cut` letters
 * taken off, and one tensor more. */
static void save_weights(const char *path, const char *from, const char *prefix, size_t cut,
                         Extra extra) {
    Error err;
    Checkpoint c;
    static float zeros[4096];
    assert_ok(checkpoint_open(&c, from, NULL, &err), &err);
    CheckpointEntry *entries = calloc(c.count + 1, sizeof *entries);
    size_t n = 0;
    for (; n < c.count; n++) {
        char name[200];
        snprintf(name, sizeof name, "%s%s", prefix, c.tensors[n].name + cut);
        entries[n] = (CheckpointEntry){strdup(name), c.tensors[n].value};
    }
    size_t all = n;
    if (extra.name)
        entries[all++] =
            (CheckpointEntry){extra.name, tensor_2d(zeros, DTYPE_F32, extra.rows, extra.columns)};
    assert_ok(checkpoint_write(path, entries, all, &err), &err);
    for (size_t i = 0; i < n; i++) free((char *)entries[i].name);
    free(entries);
    checkpoint_close(&c);
}

static void test_language_tensors(void **state) {
    (void)state;
    static const struct {
        Extra extra;
        bool fine;
    } extras[] = {
        {{"roberta.pooler.dense.weight", 24, 24}, true},
        {{"roberta.embeddings.position_ids", 1, 130}, true},
        {{"lm_head.decoder.bias", 1, 322}, true},
        {{"roberta.encoder.layer.3.output.dense.weight", 24, 40}, false},
        {{"roberta.encoder.layer.0.output.adapters.x.adapter_down.0.weight", 8, 24}, false},
        {{"roberta.encoder.layer.0.attention.self.distance_embedding.weight", 9, 8}, false},
        {{"roberta.embeddings.word_embeddings_projection.weight", 24, 24}, false},
        {{"lm_head.decoder2.weight", 24, 24}, false},
        {{"classifier.dense.weight", 24, 24}, false},
        {{"cls.predictions.bias", 1, 322}, false},
        {{"ema.roberta.embeddings.LayerNorm.weight", 1, 24}, false},
    };
    Error err;
    make_part("more", "language", "{}");
    char *weights = strdup(at("more/model.safetensors"));
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        save_weights(weights, BASE "language", "", 0, extras[i].extra);
        if (extras[i].fine)
            assert_ok(OPEN(.language = at("more")), &err);
        else
            assert_refused(OPEN(.language = at("more")), &err, "more", extras[i].extra.name,
                           "would not be used", "language model");
        /* `info` lists it. */
        assert_ok(OPEN(.language = at("more"), .describe_only = true, .headers_only = true), &err);
    }
    free(weights);
}

/* Wrappers before all names are read, and give the same model. */
static void test_prefixes(void **state) {
    (void)state;
    static const char *const prefixes[] = {"model.",
                                           "module.",
                                           "_orig_mod.",
                                           "base_model.model.",
                                           "module._orig_mod.",
                                           "_orig_mod.module.model."};
    Error err;
    make_part("wrapped", "language", "{}");
    char *weights = strdup(at("wrapped/model.safetensors"));
    Checkpoint plain;
    assert_ok(checkpoint_open(&plain, BASE "language", NULL, &err), &err);
    const CheckpointTensor *want = checkpoint_find(&plain, "lm_head.dense.weight");
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        Model m;
        save_weights(weights, BASE "language", prefixes[i], 0, (Extra){0});
        ModelOptions o = {
            .language = at("wrapped"), .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
        assert_ok(model_open(&m, &o, device, &err), &err);
        const Param *got = params_find(&m.language.params, "lm_head.dense.weight");
        assert_memory_equal(got->value.data, want->value.data, tensor_bytes(want->value));
        model_close(&m);
    }
    /* Two models in one file: the second is not passed over. */
    save_weights(weights, BASE "language", "model.", 0,
                 (Extra){"roberta.embeddings.word_embeddings.weight", 8, 24});
    assert_refused(OPEN(.language = at("wrapped")), &err, "roberta.embeddings.word_embeddings",
                   "would not be used");
    checkpoint_close(&plain);
    free(weights);
}

static void test_other_tensors(void **state) {
    (void)state;
    Error err;
    /* A third layer of a projector. */
    save_weights(at("mlp3x.safetensors"), BASE "projector.safetensors", "", 0,
                 (Extra){"model.mm_projector.4.weight", 24, 24});
    assert_refused(OPEN(.language = BASE "language", .vision = BASE "vision",
                        .projector = at("mlp3x.safetensors")),
                   &err, "mlp3x", "model.mm_projector.4.weight", "would not be used", "projector");
    save_weights(at("linear3.safetensors"), BASE "projector.safetensors", "", 0,
                 (Extra){"multi_modal_projector.linear_3.weight", 24, 24});
    assert_refused(OPEN(.language = BASE "language", .vision = BASE "vision",
                        .projector = at("linear3.safetensors")),
                   &err, "linear_3");
    /* A second layer of the length predictor. */
    save_weights(at("length2.safetensors"), BASE "length.safetensors", "", 0,
                 (Extra){"length_trm.layers.1.linear1.weight", 24, 24});
    assert_refused(OPEN(.language = BASE "language", .length = at("length2.safetensors")), &err,
                   "length_trm.layers.1.linear1.weight", "length predictor");
    /* A tower's attention pooling. */
    make_part("pool", "vision", "{}");
    char *weights = strdup(at("pool/model.safetensors"));
    save_weights(weights, BASE "vision", "", 0,
                 (Extra){"vision_model.head.attention.in_proj_weight", 24, 24});
    assert_refused(OPEN(.vision = at("pool")), &err, "vision_model.head", "vision tower");
    save_weights(weights, BASE "vision", "", 0,
                 (Extra){"text_model.final_layer_norm.weight", 1, 8});
    assert_ok(OPEN(.vision = at("pool")), &err);
    free(weights);
    /* Both biases of the vocabulary, other than zero and different. */
    make_part("biases", "language", "{}");
    weights = strdup(at("biases/model.safetensors"));
    Checkpoint c;
    assert_ok(checkpoint_open(&c, BASE "language", NULL, &err), &err);
    const CheckpointTensor *bias = checkpoint_find(&c, "lm_head.bias");
    CheckpointEntry *entries = calloc(c.count + 1, sizeof *entries);
    float *other = malloc(322 * sizeof *other);
    for (int i = 0; i < 322; i++) other[i] = 1;
    size_t n = 0;
    for (size_t i = 0; i < c.count; i++)
        if (strcmp(c.tensors[i].name, "lm_head.decoder.bias"))
            entries[n++] = (CheckpointEntry){c.tensors[i].name, c.tensors[i].value};
    assert_non_null(bias);
    entries[n++] = (CheckpointEntry){"lm_head.decoder.bias", tensor_1d(other, DTYPE_F32, 322)};
    assert_ok(checkpoint_write(weights, entries, n, &err), &err);
    assert_refused(OPEN(.language = at("biases")), &err, "lm_head.bias", "lm_head.decoder.bias",
                   "differ");
    free(other), free(entries), free(weights);
    checkpoint_close(&c);
}

static void test_wrong_parts(void **state) {
    (void)state;
    Error err;
    make_part("encoder", "language", "{}");
    char *weights = strdup(at("encoder/model.safetensors"));
    Checkpoint c;
    assert_ok(checkpoint_open(&c, BASE "language", NULL, &err), &err);
    CheckpointEntry *entries = calloc(c.count, sizeof *entries);
    /* An encoder without a head, with and without "roberta.": models of text embeddings. */
    for (size_t cut = 0; cut <= 8; cut += 8) {
        size_t n = 0;
        for (size_t i = 0; i < c.count; i++)
            if (!strncmp(c.tensors[i].name, "roberta.", 8))
                entries[n++] = (CheckpointEntry){c.tensors[i].name + cut, c.tensors[i].value};
        assert_ok(checkpoint_write(weights, entries, n, &err), &err);
        assert_refused(OPEN(.language = at("encoder")), &err, "encoder", "without", "head",
                       "lm_head");
    }
    /* Empty tensors, as ZeRO-3 leaves them. */
    static float zero;
    for (size_t i = 0; i < c.count; i++)
        entries[i] =
            (CheckpointEntry){c.tensors[i].name, tensor_nd(&zero, DTYPE_F32, 1, (int64_t[]){0})};
    assert_ok(checkpoint_write(weights, entries, c.count, &err), &err);
    assert_refused(OPEN(.language = at("encoder")), &err, "is empty", "ZeRO-3");
    for (size_t i = 0; i < c.count; i++) {
        bool stub = !strcmp(c.tensors[i].name, "lm_head.dense.weight");
        entries[i] = (CheckpointEntry){c.tensors[i].name,
                                       stub ? tensor_nd(&zero, DTYPE_F32, 1, (int64_t[]){0})
                                            : c.tensors[i].value};
    }
    assert_ok(checkpoint_write(weights, entries, c.count, &err), &err);
    assert_refused(OPEN(.language = at("encoder")), &err, "lm_head.dense.weight", "ZeRO-3");
    free(entries), free(weights);
    checkpoint_close(&c);
}

static char *make_empty(const char *name) {
    assert_int_equal(mkdir(at(name), 0777), 0);
    return strdup(at(name));
}

/* ---- Adapters. ---- */

static void test_adapters(void **state) {
    (void)state;
    static const Extra lora = {
        "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.weight", 4, 24};
    static float zeros[96];
    Error err;
    assert_int_equal(mkdir(at("peft"), 0777), 0);
    char *folder = strdup(at("peft")), *config = strdup(at("peft/adapter_config.json"));
    assert_ok(file_copy("tests/golden/cases/adapter_config.json", config, false, &err), &err);
    free(config);
    CheckpointEntry entry = {lora.name, tensor_2d(zeros, DTYPE_F32, 4, 24)};
    char *file = strdup(at("peft/adapter_model.safetensors"));
    assert_ok(checkpoint_write(file, &entry, 1, &err), &err);
    assert_refused(OPEN(.language = folder), &err, "LoRA adapter", "adapter_config.json",
                   "base model FacebookAI/xlm-roberta-base", "as its adapter");
    assert_refused(OPEN(.folder = folder), &err, "LoRA adapter", "as its adapter");
    assert_refused(OPEN(.language = file), &err, "adapter_model.safetensors", "LoRA adapter");
    free(file);
    /* Beside a model's weights it would change the answers. */
    make_part("peft", "language", "{}");
    assert_refused(OPEN(.language = folder), &err, "LoRA adapter", "as its adapter");
    assert_ok(OPEN(.language = at("peft/model.safetensors")), &err);
    config = strdup(at("peft/adapter_config.json"));
    assert_int_equal(unlink(config), 0);
    assert_refused(OPEN(.language = folder), &err, "LoRA adapter", "adapter_model.safetensors",
                   "as its adapter");
    free(config);
    char *whole = make_empty("whole");
    make_part("whole/language", "language", "{}");
    save_in(whole, "easyfirst.json", "{}");
    assert_ok(OPEN(.folder = whole), &err);
    save_in(whole, "adapter_config.json", "{}");
    assert_refused(OPEN(.folder = whole), &err, "LoRA adapter", "as its adapter");
    free(whole);
    /* Weights that were saved with their adapter inside. */
    make_part("inside", "language", "{}");
    file = strdup(at("inside/model.safetensors"));
    save_weights(file, BASE "language", "base_model.model.", 0, lora);
    assert_refused(OPEN(.language = at("inside")), &err, "LoRA adapter", "as its adapter");
    free(file), free(folder);
}

/* ---- Not a model folder. ---- */

static void test_places(void **state) {
    (void)state;
    Error err;
    char path[600];
    /* The root of a cache, with one version and with two. */
    char *cache = make_empty("models--x--y");
    char *snapshots = make_empty("models--x--y/snapshots"),
         *blobs = make_empty("models--x--y/blobs");
    char *one = make_empty("models--x--y/snapshots/0123abcd");
    assert_refused(OPEN(.language = cache), &err, "download cache", "snapshots/0123abcd");
    assert_refused(OPEN(.folder = cache), &err, "download cache", "snapshots/0123abcd");
    /* A link of it to nothing. */
    snprintf(path, sizeof path, "%s/model.safetensors", one);
    assert_int_equal(symlink("../../blobs/feed", path), 0);
    assert_refused(OPEN(.language = one), &err, "model.safetensors", "symbolic link to",
                   "blobs/feed", "does not exist");
    assert_refused(OPEN(.language = path), &err, "symbolic link to", "download");
    /* One shard of several is such a link. */
    char *shards = make_empty("shards"), *index = strdup(at("shards/model.safetensors.index.json"));
    save_text(index, "{\"weight_map\": {\"a\": \"s1.safetensors\"}}");
    snprintf(path, sizeof path, "%s/s1.safetensors", shards);
    assert_int_equal(symlink("../../blobs/feed", path), 0);
    assert_refused(OPEN(.language = shards), &err, "index.json", "s1.safetensors",
                   "symbolic link to", "does not exist");
    free(shards), free(index);
    char *two = make_empty("models--x--y/snapshots/4567abcd");
    assert_refused(OPEN(.language = cache), &err, "one of the folders in its snapshots/");
    free(cache), free(snapshots), free(blobs), free(one), free(two);
    /* Names of repositories. */
    assert_refused(OPEN(.language = "FacebookAI/xlm-roberta-base"), &err, "repository",
                   "download it first");
    assert_refused(OPEN(.folder = "openai/clip-vit-large-patch14"), &err, "repository");
    assert_refused(OPEN(.vision = "openai/clip-vit-large-patch14"), &err, "repository");
    /* Runs. */
    char *run = make_empty("run"), *step = make_empty("run/checkpoint-00000100");
    assert_refused(OPEN(.folder = run), &err, "training run", "run/checkpoint-00000100");
    char *model = make_empty("run/model");
    save_in(model, "easyfirst.json", "{}");
    assert_refused(OPEN(.folder = run), &err, "training run", "run/model");
    free(run), free(step), free(model);
    /* Other formats. */
    static const struct {
        const char *folder, *entry, *words[2];
    } others[] = {
        {"deep", "global_step100", {"DeepSpeed", "zero_to_fp32.py"}},
        {"zero", "zero_pp_rank_0_mp_rank_00_optim_states.pt", {"DeepSpeed", "zero_to_fp32.py"}},
        {"gguf", "model-q4.gguf", {"GGUF only", "safetensors"}},
        {"keras", "tf_model.h5", {"TensorFlow", "only"}},
        {"flax", "flax_model.msgpack", {"Flax", "only"}},
        {"onnx", "model.onnx", {"ONNX only", "safetensors"}},
        {"fsdp", "__0_0.distcp", {"distributed", "convert"}},
        {"none", "README", {"no weights in this folder", "model.safetensors"}},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *folder = make_empty(others[i].folder);
        save_in(folder, others[i].entry, "x");
        assert_refused(OPEN(.language = folder), &err, folder, others[i].words[0],
                       others[i].words[1]);
        free(folder);
    }
}

/* Files that are something else than weights or tokenizers (the trials' own). */
static void test_mistaken_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *words[2];
    } files[] = {
        {"Entry not found", {"error message", "download it again"}},
        {"{\"error\":\"Repository not found\"}", {"error message", "download it again"}},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
         {"Git LFS pointer", "git lfs pull"}},
        {"<!doctype html><html>", {"HTML page", "download"}},
        {"GGUF\3\0\0\0", {"GGUF", ""}},
    };
    Error err;
    make_part("mistaken", "language", "{}");
    char *tokenizer = strdup(at("mistaken/sentencepiece.bpe.model")),
         *folder = strdup(at("mistaken"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        save_in(folder, "model.safetensors", files[i].text);
        assert_refused(OPEN(.language = folder), &err, "model.safetensors", files[i].words[0],
                       files[i].words[1]);
    }
    make_part("mistaken", "language", "{}");
    for (size_t i = 0; i < 3; i++) {
        save_text(tokenizer, files[i].text);
        assert_refused(OPEN(.language = folder), &err, "sentencepiece.bpe.model", files[i].words[0],
                       files[i].words[1]);
    }
    /* Tokens that were added to a vocabulary; <mask> is one that transformers lists. */
    make_part("mistaken", "language", "{}");
    save_in(folder, "added_tokens.json", "{\"<mask>\": 321}");
    assert_ok(OPEN(.language = folder), &err);
    save_in(folder, "added_tokens.json", "{\"<mask>\": 321, \"<image>\": 322}");
    assert_refused(OPEN(.language = folder), &err, "added_tokens.json", "<image>");
    free(tokenizer), free(folder);
}

/* A missing part is reported before any weight is packed: no progress was reported, and the model
 * knows lengths or is refused. */
static void test_lengths(void **state) {
    (void)state;
    Error err;
    make_part("mute", "language", "{}");
    assert_ok(OPEN(.language = at("mute")), &err);
    assert_refused(OPEN(.language = at("mute"), .answers = true), &err, "length predictor",
                   "how many tokens");
    assert_ok(OPEN(.language = at("mute"), .answers = true, .answer_length = 100), &err);
    assert_refused(OPEN(.language = at("mute"), .answers = true, .answer_length = 200), &err,
                   "200");
    assert_ok(OPEN(.folder = BASE, .answers = true), &err);
}

static void add_bytes(void *user, size_t bytes) {
    *(size_t *)user += bytes;
}

/* Every byte of a matrix is reported once while a part is prepared. */
static void test_progress(void **state) {
    (void)state;
    Error err;
    Model m;
    ModelOptions o = {.folder = BASE, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    assert_ok(model_open(&m, &o, device, &err), &err);
    size_t told = 0, matrices = 0;
    for (int i = 0; i < m.language.params.count; i++) {
        const Param *p = &m.language.params.items[i];
        if (p->role == PARAM_MATRIX || p->role == PARAM_VOCABULARY)
            matrices += tensor_bytes(p->value);
    }
    PartProgress progress = {add_bytes, &told};
    assert_ok(part_prepare_with_progress(&m.language.sources, DTYPE_F32, progress, &err), &err);
    assert_int_equal(told, matrices);
    assert_true(told <= params_stored_bytes(&m.language.params));
    model_close(&m);
    /* What is printed of it, without a terminal: not more than a line in ten seconds. */
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_non_null(freopen(at("loading"), "w", stderr));
    for (size_t i = 0; i < 50; i++) loading_print(NULL, "x", i << 27, (size_t)50 << 27);
    loading_print(NULL, NULL, 1, 1);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    char *said = file_bytes(at("loading"), NULL);
    assert_string_equal(said, "loading weights: 0 % of 6.7 GB\n");
    free(said);
}

/* A folder whose name is longer than any buffer of old: the model in it opens, and what is wrong in
 * it is said. */
static void test_long_path(void **state) {
    (void)state;
    Error err;
    char *golden = realpath(BASE "language", NULL), *part = malloc(4000);
    size_t used = (size_t)sprintf(part, "%s", at("far"));
    assert_int_equal(mkdir(part, 0777), 0);
    for (int i = 0; i < 10; i++) {
        used += (size_t)sprintf(part + used, "/%0200d", i);
        assert_int_equal(mkdir(part, 0777), 0);
    }
    char *folder = strdup(part);
    strcpy(part + used, "/language");
    assert_int_equal(symlink(golden, part), 0);
    assert_ok(OPEN(.folder = folder), &err);
    assert_refused(OPEN(.folder = folder, .answers = true), &err, "no length predictor");
    strcpy(part + used, "/easyfirst.json");
    save_text(part, "{\"attention\": \"some\"}");
    assert_refused(OPEN(.folder = folder), &err, "/easyfirst.json", "\"some\"",
                   "\"full\", \"block-causal\" or \"causal\"");
    save_text(part, "{\"attention\": \"blocks\"}"); /* the name of version 0.1 */
    assert_refused(OPEN(.folder = folder), &err, "\"blocks\"", "\"block-causal\"");
    strcpy(part + used, "/nothing");
    assert_refused(OPEN(.language = part), &err, "/nothing", "No such file");
    free(golden), free(part), free(folder);
}

/* The bundled model says what it learned. */
static void test_languages_said(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1); /* build/asan does not find it itself */
    run(&r, "text", "translate", "--from", "de", "--to", "Klingon", "Hallo");
    assert_message(&r, 1, "unknown language", "Klingon");
    run(&r, "text", "translate", "--from", "en", "--to", "fr", "Hello");
    assert_message(&r, 1, "does not translate English to French", "German to English");
    run(&r, "show", "translate", "--from", "en", "--to", "fr", "Hello");
    assert_message(&r, 1, "does not translate English to French", "English to German");
    run(&r, "info");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "translates: German to English, English to German\n"));
    run(&r, "text", "-q", "-n", "3", "translate", "--from", "german", "--to", "EN", "Hallo");
    expect(&r, 0, NULL);
    run(&r, "text", "-q", "-n", "3", "translate", "--from", "de", "--to", "en", "Hallo");
    expect(&r, 0, NULL);
    run_end(&r);
}

/* Training the language model makes its languages unknown; other training keeps them. */
static void test_languages_trained(void **state) {
    (void)state;
    static const char *const stages[] = {"adapt", "length"};
    Run r;
    Error err;
    char data[512], out[512], settings[600];
    run_start(&r);
    path_in(data, sizeof data, &r, "data.jsonl");
    save_text(data, "{\"inputs\": \"the dog\", \"targets\": \"the cat\"}\n"
                    "{\"inputs\": \"the sky\", \"targets\": \"the circle\"}\n");
    char *folder = make_empty("pairs");
    make_part("pairs/language", "language", "{}");
    char *length = strdup(at("pairs/length.safetensors"));
    assert_ok(file_copy(BASE "length.safetensors", length, false, &err), &err);
    save_in(folder, "easyfirst.json", "{\"languages\": [\"de-en\"]}");
    for (int i = 0; i < 2; i++) {
        json_t *json;
        path_in(out, sizeof out, &r, stages[i]);
        run(&r, "train", (char *)stages[i], "-m", folder, "--data", data, "--out", out, "--steps",
            "1", "-q", "--device", "cpu");
        expect(&r, 0, NULL);
        snprintf(settings, sizeof settings, "%s/model/easyfirst.json", out);
        assert_ok(config_read(&json, settings, &err), &err);
        assert_int_equal(json_object_get(json, "languages") != NULL, i == 1);
        json_decref(json);
    }
    free(folder), free(length);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language_config), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_vision_config),   cmocka_unit_test(test_preprocess_config),
        cmocka_unit_test(test_settings),        cmocka_unit_test(test_language_tensors),
        cmocka_unit_test(test_prefixes),        cmocka_unit_test(test_other_tensors),
        cmocka_unit_test(test_wrong_parts),     cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_places),          cmocka_unit_test(test_mistaken_files),
        cmocka_unit_test(test_lengths),         cmocka_unit_test(test_progress),
        cmocka_unit_test(test_long_path),       cmocka_unit_test(test_languages_trained),
        cmocka_unit_test(test_languages_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
