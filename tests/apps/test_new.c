/* Models with fresh weights: that they are models like any other, and that bad sizes are told. */
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/commands.h"
#include "projector/model.h"
#include "data/checkpoints/model_files.h"
#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define BASE   MODELS "tiny-base"
#define XL     MODELS "tiny-xl"
#define WORDS  BASE "/language/sentencepiece.bpe.model"
#define PIC    MODELS "image0.png"

/* The command in this process, its standard error caught in r->err. */
static void make(Run *r, char *const *args) {
    char path[512], *argv[64] = {(char *)"new"};
    int argc = 1;
    path_in(path, sizeof path, r, "stderr");
    for (; *args; args++) argv[argc++] = *args;
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    int status = command_new(argc, argv);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    free(r->err), free(r->out);
    r->err = file_bytes(path, NULL), r->out = strdup("");
    r->status = status;
}
#define make_new(r, ...) make((r), (char *[]){__VA_ARGS__, NULL})

static bool there(const char *folder, const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* Whether a model's folder has an unfinished one beside it. */
static bool partial_left(const Run *r) {
    DIR *entries = opendir(r->folder);
    bool left = false;
    for (const struct dirent *e; (e = readdir(entries));)
        left |= strstr(e->d_name, ".partial") != 0;
    closedir(entries);
    return left;
}

static Device *device_new(void) {
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){.threads = 1}, &err), &err);
    return device;
}

static void model_new(Model *m, const char *folder, Device *device) {
    Error err;
    ModelOptions options = {.folder = folder, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(model_open(m, &options, device, &err), &err);
}

/* The mean square of a parameter's values, which must all be numbers. */
static double mean_square(const ModelPart *part, const char *name) {
    double sum = 0;
    for (int i = 0; i < part->params.count; i++) {
        const Param *p = &part->params.items[i];
        if (strcmp(p->name, name)) continue;
        int64_t n = tensor_count(p->value);
        float *values = malloc((size_t)n * sizeof *values);
        values_convert(values, DTYPE_F32, p->value.data, p->value.dtype, (size_t)n);
        for (int64_t k = 0; k < n; k++) sum += (double)values[k] * values[k] / (double)n;
        free(values);
        if (!isfinite(sum)) fail_msg("%s has values that are no numbers", name);
        return sum;
    }
    fail_msg("there is no %s", name);
    return 0;
}

static void test_whole(void **state) {
    (void)state;
    Run r;
    char out[400], again[400], path[500];
    run_start(&r);
    path_in(out, sizeof out, &r, "model");
    path_in(again, sizeof again, &r, "again/");
    for (int i = 0; i < 2; i++)
        make_new(&r, i ? again : out, "--tokenizer", WORDS, "--layers", "3", "--width", "40",
                 "--heads", "5", "--ffn", "72", "--positions", "66", "--image-size", "35",
                 "--patch", "7", "--vision-layers", "2", "--vision-width", "24", "--vision-heads",
                 "3", "--vision-ffn", "56", "--projector", "mlp2x_gelu", "--length-classes", "21",
                 "--attention", "block-causal", "--answer-position", "40", "--feature-layer", "-1",
                 "--seed", "12"),
            expect(&r, 0, "");
    for (int i = 0; i < 4; i++)
        assert_non_null(
            strstr(r.err, (const char *[]){"language", "vision", "projector", "length"}[i]));
    assert_false(partial_left(&r));
    Device *device = device_new();
    Model m;
    model_new(&m, out, device);
    const XlmrConfig *x = &m.xlmr.config;
    assert_int_equal(m.parts.answer_position, 40);
    assert_int_equal(x->layers, 3);
    assert_int_equal(x->block.width, 40);
    assert_int_equal(x->block.heads, 5);
    assert_int_equal(x->block.ffn, 72);
    assert_int_equal(x->positions, 66);
    assert_int_equal(x->vocab, tokenizer_size(m.tokenizer));
    assert_false(x->block.pre_norm);
    assert_false(x->untied);
    const VitConfig *v = &m.vit.config;
    assert_int_equal(v->image_size, 35);
    assert_int_equal(v->patch, 7);
    assert_int_equal(v->layers, 2);
    assert_int_equal(v->feature_layer, -1);
    assert_int_equal(v->block.heads, 3);
    assert_int_equal(v->block.activation, ACTIVATION_QUICK_GELU);
    assert_int_equal(m.projector_model.kind, PROJECTOR_MLP2X_GELU);
    assert_int_equal(m.length_model.classes, 21);
    assert_int_equal(m.parts.attention, ATTENTION_BLOCK_CAUSAL);
    assert_int_equal(m.language.stored, DTYPE_F32);
    /* As declared: normal of the width's deviation, zeros, ones. */
    double square = mean_square(&m.language, "roberta.encoder.layer.2.attention.self.value.weight");
    assert_true(fabs(sqrt(square) / params_init_std(x->block.width) - 1) < 0.1);
    square = mean_square(&m.vision, "vision_model.encoder.layers.1.mlp.fc1.weight");
    assert_true(fabs(sqrt(square) / params_init_std(v->block.width) - 1) < 0.1);
    assert_true(mean_square(&m.language, "lm_head.bias") == 0);
    assert_true(fabs(mean_square(&m.language, "lm_head.layer_norm.weight") - 1) < 1e-12);
    assert_true(fabs(mean_square(&m.vision, "vision_model.post_layernorm.weight") - 1) < 1e-12);
    /* Shapes are those of public files. */
    const CheckpointTensor *t =
        checkpoint_find(m.vision.checkpoint, "vision_model.embeddings.class_embedding");
    assert_non_null(t);
    assert_int_equal(t->value.ndim, 1);
    t = checkpoint_find(m.language.checkpoint, "roberta.embeddings.token_type_embeddings.weight");
    assert_non_null(t);
    assert_int_equal(t->value.ndim, 2);
    model_close(&m);
    device_close(device);
    /* The same seed gives the same bytes. */
    static const char *const files[] = {
        "language/model.safetensors", "vision/model.safetensors",
        "projector.safetensors",      "length.safetensors",
        "language/config.json",       "easyfirst.json",
        "vision/config.json",         "vision/preprocessor_config.json",
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t a, b;
        snprintf(path, sizeof path, "%s/%s", out, files[i]);
        char *one = file_bytes(path, &a);
        snprintf(path, sizeof path, "%s/%s", again, files[i]);
        char *two = file_bytes(path, &b);
        assert_non_null(one);
        assert_non_null(two);
        assert_int_equal(a, b);
        assert_memory_equal(one, two, a);
        free(one), free(two);
    }
    /* It answers, if only nonsense. */
    run(&r, "ask", "-m", out, "-n", "4", "-q", PIC, "What is this?");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 1);
    run(&r, "text", "-m", out, "-q", "What is this?");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 1);
    run(&r, "info", out);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "block-causal"));
    make_new(&r, out, "--tokenizer", WORDS, "--width", "24", "--heads", "2");
    assert_message(&r, 1, "model", "exists already");
    run_end(&r);
}

static void test_text_only(void **state) {
    (void)state;
    Run r;
    char out[400];
    run_start(&r);
    path_in(out, sizeof out, &r, "model");
    make_new(&r, out, "--tokenizer", WORDS, "--layers", "2", "--width", "32", "--heads", "4",
             "--ffn", "48", "--pre-norm", "--vocabulary", "400", "--dtype", "bf16",
             "--length-classes", "0");
    expect(&r, 0, "");
    assert_false(there(out, "vision"));
    assert_false(there(out, "projector.safetensors"));
    assert_false(there(out, "length.safetensors"));
    Device *device = device_new();
    Model m;
    model_new(&m, out, device);
    assert_int_equal(m.xlmr.config.vocab, 400);
    assert_int_equal(m.xlmr.config.positions, 514);
    assert_true(m.xlmr.config.block.pre_norm);
    assert_int_equal(m.language.stored, DTYPE_BF16);
    assert_int_equal(m.parts.attention, ATTENTION_FULL);
    assert_null(m.parts.length);
    model_close(&m);
    device_close(device);
    run(&r, "text", "-m", out, "-q", "-n", "3", "Why?");
    expect(&r, 0, NULL);
    run_end(&r);
}

/* Every tensor of a part that is taken along is the same in the new folder. */
static void check_taken(const ModelPart *a, const ModelPart *b) {
    assert_int_equal(a->params.count, b->params.count);
    for (int i = 0; i < a->params.count; i++) {
        const Param *p = &a->params.items[i], *q = &b->params.items[i];
        assert_string_equal(p->name, q->name);
        assert_int_equal(p->present, q->present);
        if (!p->present) continue;
        assert_int_equal(p->value.dtype, q->value.dtype);
        assert_int_equal(tensor_bytes(p->value), tensor_bytes(q->value));
        assert_memory_equal(p->value.data, q->value.data, tensor_bytes(p->value));
    }
}

/* A language model with its length predictor in the same file, as the released Flan-XLM-R are. */
static void write_joined(const char *folder) {
    static const char *const files[] = {BASE "/language/model.safetensors",
                                        BASE "/length.safetensors"};
    enum { MOST = 200 };
    CheckpointEntry entries[MOST];
    Checkpoint parts[2];
    size_t count = 0;
    char path[600];
    Error err;
    assert_int_equal(mkdir(folder, 0777), 0);
    for (int i = 0; i < 2; i++) {
        assert_ok(checkpoint_open(&parts[i], files[i], NULL, &err), &err);
        for (size_t k = 0; k < parts[i].count; k++) {
            assert_true(count < MOST);
            const CheckpointTensor *t = &parts[i].tensors[k];
            entries[count++] = (CheckpointEntry){t->name, t->value};
        }
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(checkpoint_write(path, entries, count, &err), &err);
    for (int i = 0; i < 2; i++) checkpoint_close(&parts[i]);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_ok(file_copy(BASE "/language/config.json", path, false, &err), &err);
    snprintf(path, sizeof path, "%s/sentencepiece.bpe.model", folder);
    assert_ok(file_copy(WORDS, path, false, &err), &err);
}

static void test_taken(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {BASE "/language", XL "/vision"},
        {XL "/language/model.safetensors", BASE "/vision"}, /* a file; bf16 and f32 */
        {BASE "/language", MODELS "variants/clip-full"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Run r;
        Error err;
        char out[400];
        run_start(&r);
        path_in(out, sizeof out, &r, "model");
        make_new(&r, out, "--language", (char *)cases[i][0], "--vision", (char *)cases[i][1],
                 "--projector", "linear");
        expect(&r, 0, "");
        assert_true(there(out, "vision/preprocessor_config.json"));
        Device *device = device_new();
        Model from, m;
        ModelOptions options = {
            .language = cases[i][0], .vision = cases[i][1], .feature_layer = FEATURE_LAYER_UNSET};
        assert_ok(model_open(&from, &options, device, &err), &err);
        model_new(&m, out, device);
        check_taken(&from.language, &m.language);
        check_taken(&from.vision, &m.vision);
        /* Of a two-tower configuration there is the vision half. */
        json_t *config;
        char path[500];
        const char *type;
        snprintf(path, sizeof path, "%s/vision/config.json", out);
        assert_ok(config_read(&config, path, &err), &err);
        assert_null(json_object_get(config, "vision_config"));
        assert_ok(config_text(config, "model_type", path, "", &type, &err), &err);
        assert_string_equal(type, "clip_vision_model");
        json_decref(config);
        assert_int_equal(m.projector_model.kind, PROJECTOR_LINEAR);
        assert_int_equal(m.projector_model.in, from.vit.config.block.width);
        assert_int_equal(m.projector_model.out, from.xlmr.config.block.width);
        assert_int_equal(m.length_model.classes, from.xlmr.config.positions);
        model_close(&from);
        model_close(&m);
        device_close(device);
        run(&r, "ask", "-m", out, "-n", "4", "-q", PIC, "What is this?");
        expect(&r, 0, NULL);
        run_end(&r);
    }
}

/* A length predictor in the language model's file comes along, unless a new one is asked for. */
static void test_taken_length(void **state) {
    (void)state;
    Run r;
    char joined[400], out[400];
    run_start(&r);
    path_in(joined, sizeof joined, &r, "joined");
    write_joined(joined);
    Device *device = device_new();
    Model from, m;
    model_new(&from, BASE, device);
    for (int fresh = 0; fresh < 2; fresh++) {
        path_in(out, sizeof out, &r, fresh ? "fresh" : "taken");
        if (fresh)
            make_new(&r, out, "--language", joined, "--length-classes", "9");
        else
            make_new(&r, out, "--language", joined);
        expect(&r, 0, "");
        model_new(&m, out, device);
        check_taken(&from.language, &m.language);
        assert_true(m.length.checkpoint != m.language.checkpoint);
        if (fresh)
            assert_int_equal(m.length_model.classes, 9);
        else
            check_taken(&from.length, &m.length);
        model_close(&m);
    }
    model_close(&from);
    device_close(device);
    run_end(&r);
}

/* --empty: the same headers and sizes as with weights, every value zero, no space on the disk. */
static void test_empty(void **state) {
    (void)state;
    static const char *const files[] = {"language/model.safetensors", "vision/model.safetensors",
                                        "projector.safetensors", "length.safetensors"};
    Run r;
    run_start(&r);
    char full[300], empty[300];
    path_in(full, sizeof full, &r, "full"), path_in(empty, sizeof empty, &r, "empty");
    for (int i = 0; i < 2; i++) {
        make_new(&r, i ? empty : full, (char *)"--tokenizer", (char *)WORDS, "--layers", "3",
                 "--width", "48", "--heads", "3", "--ffn", "80", "--positions", "67",
                 "--image-size", "28", "--patch", "14", "--vision-layers", "2", "--vision-width",
                 "20", "--vision-heads", "2", "--vision-ffn", "32", i ? "--empty" : NULL);
        expect(&r, 0, "");
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char a[600], b[600];
        size_t a_size, b_size;
        uint64_t header;
        struct stat info;
        snprintf(a, sizeof a, "%s/%s", full, files[i]);
        snprintf(b, sizeof b, "%s/%s", empty, files[i]);
        char *weights = file_bytes(a, &a_size), *holes = file_bytes(b, &b_size);
        assert_int_equal(a_size, b_size);
        memcpy(&header, holes, 8);
        assert_memory_equal(weights, holes, 8 + header);
        for (size_t at = 8 + header; at < b_size; at++) assert_int_equal(holes[at], 0);
        assert_int_equal(stat(b, &info), 0);
        if (a_size > 1 << 16) assert_true((size_t)info.st_blocks * 512 < a_size);
        free(weights), free(holes);
    }
    run_end(&r);
}

static void test_refused(void **state) {
    (void)state;
    Run r;
    char out[400];
    run_start(&r);
    path_in(out, sizeof out, &r, "model");
#define OUT out, "--tokenizer", WORDS, "--layers", "1"
#define REFUSED(status, word1, word2, ...)        \
    do {                                          \
        make_new(&r, __VA_ARGS__);                \
        assert_message(&r, status, word1, word2); \
        assert_false(there(out, "language"));     \
        assert_false(partial_left(&r));           \
    } while (0)
    REFUSED(1, "width 31", "heads", OUT, "--width", "31", "--heads", "2");
    REFUSED(1, "--image-size 30", "--patch 7", OUT, "--image-size", "30", "--patch", "7");
    REFUSED(1, "width 33", "heads", OUT, "--width", "32", "--heads", "2", "--vision-width", "33",
            "--vision-heads", "2", "--vision-layers", "1");
    REFUSED(1, "576 tokens", "--positions", OUT, "--image-size", "336");
    REFUSED(1, "feature layer", "2 layers", OUT, "--width", "32", "--heads", "2", "--vision-layers",
            "2", "--vision-width", "32", "--vision-heads", "2", "--feature-layer", "5");
    REFUSED(1, "tokenizer", "only 20", OUT, "--vocabulary", "20");
    REFUSED(1, "tokenizer", "only 40", out, "--tokenizer", WORDS, "--language",
            MODELS "variants/released");
    REFUSED(1, "nofile", "", out, "--tokenizer", "nofile");
    REFUSED(1, "nofolder", "", out, "--language", "nofolder");
    REFUSED(2, "--tokenizer", "--language", out);
    REFUSED(2, "--language", "sizes", out, "--language", BASE "/language", "--layers", "2");
    REFUSED(2, "--vision", "sizes", OUT, "--vision", BASE "/vision", "--patch", "7");
    REFUSED(2, "--projector", "vision tower", OUT, "--projector", "linear");
    REFUSED(2, "name", "missing", "--tokenizer", WORDS);
    REFUSED(2, "other", "one too many", OUT, "other");
    REFUSED(2, "empty", "name", "", "--tokenizer", WORDS);
    REFUSED(2, "--width", "from 1", OUT, "--width", "0");
    make_new(&r, "/nonexistent-folder/model", "--tokenizer", WORDS, "--layers", "1", "--width",
             "32", "--heads", "2");
    assert_message(&r, 1, "/nonexistent-folder/model", "No such file");
    /* What cannot be written is found before any weight is made: these would take minutes. */
    make_new(&r, "/proc/self/fdinfo/model", "--tokenizer", WORDS, "--layers", "200", "--width",
             "4096", "--heads", "2", "--ffn", "16384");
    assert_message(&r, 1, "/proc/self/fdinfo/model", "cannot be created");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole), cmocka_unit_test(test_text_only),
        cmocka_unit_test(test_taken), cmocka_unit_test(test_taken_length),
        cmocka_unit_test(test_empty), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
