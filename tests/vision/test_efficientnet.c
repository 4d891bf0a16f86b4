/* EfficientNet-Lite towers against what torch computes with the package's own blocks
 * (tests/reference/make_efficientnet.py), and files that are none. */
#include <math.h>
#include <unistd.h>

#include "data/files/path.h"
#include "projector/train_model.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "vision/preprocess.h"

static const char *const towers[] = {"tests/golden/efficientnet/odd",
                                     "tests/golden/efficientnet/stages",
                                     "tests/golden/efficientnet/point"};
enum { TOWERS = sizeof towers / sizeof *towers };

typedef struct Opened {
    Device *device;
    Model model;
    Checkpoint golden;
} Opened;

static void tower_open(Opened *o, const char *folder, Dtype dtype) {
    Error err;
    char path[256];
    assert_ok(device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    ModelOptions options = {.vision = folder, .feature_layer = FEATURE_LAYER_UNSET, .dtype = dtype};
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    if (access(path, F_OK) == 0) assert_ok(checkpoint_open(&o->golden, path, NULL, &err), &err);
}

static void tower_close(Opened *o) {
    checkpoint_close(&o->golden);
    model_close(&o->model);
    device_close(o->device);
}

/* Features of these pixels [B, 3, S, S], as f32 in new memory. */
static float *features_of(const Opened *o, Tensor pixels) {
    Error err;
    const Tower *tower = &o->model.tower;
    int images = (int)pixels.shape[0];
    int64_t rows = (int64_t)images * tower_feature_rows(tower), d = tower_width(tower);
    Arena arena;
    Tensor features;
    assert_ok(arena_open(&arena, o->device,
                         tower_work_bytes(tower, images) + arena_bytes(DTYPE_F32, rows, d), &err),
              &err);
    assert_ok(arena_take(&arena, &features, DTYPE_F32, rows, d, &err), &err);
    assert_ok(tower_forward(tower, &arena, features, pixels, &err), &err);
    assert_true(arena.used <= arena_bytes(DTYPE_F32, rows, d)); /* left as it was */
    float *out = malloc((size_t)(rows * d) * sizeof *out);
    assert_non_null(out);
    memcpy(out, features.data, (size_t)(rows * d) * sizeof *out);
    arena_close(&arena);
    return out;
}

static void check_features(const char *folder, Dtype dtype, double limit) {
    Opened o = {0};
    tower_open(&o, folder, dtype);
    Tensor pixels = golden(&o.golden, "pixels", 0), want = golden(&o.golden, "features", 0);
    const Tower *tower = &o.model.tower;
    assert_int_equal(tower_feature_rows(tower), want.shape[1]);
    assert_int_equal(tower_grid(tower) * tower_grid(tower), want.shape[1]);
    assert_int_equal(tower_width(tower), want.shape[2]);
    assert_int_equal(tower_image_size(tower), pixels.shape[3]);
    float *got = features_of(&o, pixels);
    assert_close(got, want.data, (size_t)tensor_count(want), limit, folder);
    free(got);
    tower_close(&o);
}

static void test_features(void **state) {
    (void)state;
    for (int i = 0; i < TOWERS; i++) check_features(towers[i], DTYPE_F32, 1e-5);
}

static void test_features_bf16(void **state) {
    (void)state;
    Opened o = {0};
    tower_open(&o, towers[0], DTYPE_F32);
    bool bf16 = device_has_bf16(o.device);
    tower_close(&o);
    if (!bf16) skip();
    for (int i = 0; i < TOWERS; i++) check_features(towers[i], DTYPE_BF16, 2e-2);
}

/* The first row is the mean of the others, which are the same as without it. */
static void test_class_row(void **state) {
    (void)state;
    for (int i = 0; i < TOWERS; i++) {
        Opened o = {0};
        tower_open(&o, towers[i], DTYPE_F32);
        Tensor pixels = golden(&o.golden, "pixels", 0), mean = golden(&o.golden, "mean", 0);
        size_t places = (size_t)tower_feature_rows(&o.model.tower), d = (size_t)mean.shape[1];
        float *plain = features_of(&o, pixels);
        o.model.net.config.class_token = true;
        assert_int_equal(tower_feature_rows(&o.model.tower), places + 1);
        float *with = features_of(&o, pixels);
        for (size_t p = 0; p < 3; p++) {
            const float *image = with + p * (places + 1) * d;
            assert_close(image, (const float *)mean.data + p * d, d, 1e-5, "mean");
            assert_memory_equal(image + d, plain + p * places * d, places * d * sizeof(float));
        }
        free(plain), free(with);
        tower_close(&o);
    }
}

/* Eleven images, of which some are computed together: each as if it were alone. */
static void check_alone(const char *folder, Dtype dtype) {
    enum { MANY = 11 };
    Opened o = {0};
    tower_open(&o, folder, dtype);
    TestRandom random = {5};
    int side = tower_image_size(&o.model.tower);
    size_t image = 3 * (size_t)side * (size_t)side;
    size_t values =
        (size_t)tower_feature_rows(&o.model.tower) * (size_t)tower_width(&o.model.tower);
    float *data = malloc(MANY * image * sizeof *data);
    assert_non_null(data);
    for (size_t i = 0; i < MANY * image; i++) data[i] = test_random_normal(&random);
    float *all = features_of(&o, tensor_nd(data, DTYPE_F32, 4, (int64_t[]){MANY, 3, side, side}));
    for (size_t p = 0; p < MANY; p++) {
        Tensor one = tensor_nd(data + p * image, DTYPE_F32, 4, (int64_t[]){1, 3, side, side});
        float *alone = features_of(&o, one);
        assert_memory_equal(alone, all + p * values, values * sizeof *alone);
        free(alone);
    }
    free(data), free(all);
    tower_close(&o);
}

static void test_alone(void **state) {
    (void)state;
    for (int i = 0; i < TOWERS; i++) check_alone(towers[i], DTYPE_F32);
    check_alone(towers[0], DTYPE_NONE);
}

/* ---- The real one, where EASYFIRST_PRETRAINED names the folder that data/prep/pretrained.py made. */

static void test_lite0(void **state) {
    (void)state;
    const char *root = getenv("EASYFIRST_PRETRAINED");
    if (!root) skip();
    Error err;
    char *folder = path_join(root, "efficientnet-lite0", &err);
    Opened o = {0};
    Image image, square;
    assert_non_null(folder);
    tower_open(&o, folder, DTYPE_F32);
    const char *path = "tests/golden/efficientnet/lite0.safetensors";
    assert_ok(checkpoint_open(&o.golden, path, NULL, &err), &err);
    path = "tests/golden/images/rgb8_224x224.png";
    assert_ok(preprocess_read(&square, NULL, NULL, path, &o.model.parts.preprocess, NULL, &err),
              &err);
    image_free(&square);
    assert_ok(image_read(&image, path, NULL, &err), &err);
    float *pixels = malloc(3 * 224 * 224 * sizeof *pixels);
    assert_ok(preprocess_image(pixels, &image, &o.model.parts.preprocess, &err), &err);
    float *got = features_of(&o, tensor_nd(pixels, DTYPE_F32, 4, (int64_t[]){1, 3, 224, 224}));
    Tensor places = golden(&o.golden, "places", 0), mean = golden(&o.golden, "mean", 0);
    float averages[1280];
    for (int d = 0; d < 1280; d++) {
        double sum = 0;
        for (int p = 0; p < 49; p++) sum += got[p * 1280 + d];
        averages[d] = (float)(sum / 49);
    }
    for (int i = 0; i < 5; i++)
        assert_close(got + i * 12 * 1280, (const float *)places.data + i * 1280, 1280, 1e-5,
                     "lite0");
    assert_close(averages, mean.data, 1280, 1e-5, "lite0's mean");
    free(got), free(pixels), free(folder);
    image_free(&image);
    tower_close(&o);
}

/* ---- Folders that are not right. ---- */

typedef struct Folder {
    char path[256];
    Checkpoint from;
    CheckpointEntry entries[160];
    size_t count;
} Folder;

static void folder_begin(Folder *f) {
    Error err;
    *f = (Folder){0};
    temporary_folder(f->path, sizeof f->path);
    assert_ok(
        checkpoint_open(&f->from, "tests/golden/efficientnet/stages/model.safetensors", NULL, &err),
        &err);
    assert_in_range(f->from.count, 1, 160);
    for (; f->count < f->from.count; f->count++)
        f->entries[f->count] =
            (CheckpointEntry){f->from.tensors[f->count].name, f->from.tensors[f->count].value};
}

static Tensor *folder_tensor(Folder *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->entries[i].name, name)) return &f->entries[i].value;
    fail_msg("no tensor %s", name);
    return NULL;
}

static const char good_config[] =
    "{\"model_type\": \"efficientnet-lite\", \"image_size\": 50, \"hidden_dim\": 19, \"strides\": "
    "[1, 2, 1], \"num_block_repeats\": [2, 3, 1]}";

/* Writes the folder and tries to open it; one line with these words must refuse it. */
static void folder_refused(Folder *f, const char *config, const char *word, const char *other) {
    Error err, ignored;
    Device *device;
    Model model;
    char *weights = path_join(f->path, "model.safetensors", &err);
    char *settings = path_join(f->path, "config.json", &err);
    assert_true(weights && settings);
    assert_ok(checkpoint_write(weights, f->entries, f->count, &err), &err);
    FILE *file = fopen(settings, "w");
    assert_non_null(file);
    fputs(config, file);
    assert_int_equal(fclose(file), 0);
    assert_ok(device_open(&device, &(DeviceOptions){0}, &ignored), &ignored);
    ModelOptions options = {.vision = f->path, .feature_layer = FEATURE_LAYER_UNSET};
    if (word) {
        assert_refused(model_open(&model, &options, device, &err), &err, word, other);
        assert_null(strchr(err.text, '\n'));
    } else {
        assert_ok(model_open(&model, &options, device, &err), &err);
        model_close(&model);
    }
    device_close(device);
    free(weights), free(settings);
    checkpoint_close(&f->from);
    temporary_remove(f->path);
}

static float *folder_own(Folder *f, const char *name) {
    Tensor *t = folder_tensor(f, name);
    void *own = malloc(tensor_bytes(*t));
    assert_non_null(own);
    memcpy(own, t->data, tensor_bytes(*t));
    t->data = own;
    return own;
}

static void value_refused(const char *name, size_t at, float value, const char *word) {
    Folder f;
    folder_begin(&f);
    float *values = folder_own(&f, name);
    values[at] = value;
    folder_refused(&f, good_config, name, word);
    free(values);
}

static void config_refused(const char *config, const char *word, const char *other) {
    Folder f;
    folder_begin(&f);
    folder_refused(&f, config, word, other);
}

#define CONFIG(more) "{\"model_type\": \"efficientnet-lite\", \"image_size\": 50, " more "}"

static void test_values(void **state) {
    (void)state;
    config_refused(good_config, NULL, NULL);
    value_refused("_conv_stem.weight", 7, NAN, "finite");
    value_refused("_blocks.2._depthwise_conv.weight", 0, INFINITY, "finite");
    value_refused("_blocks.1._bn1.running_mean", 3, -INFINITY, "finite");
    value_refused("_blocks.4._bn2.running_var", 1, -0.25f, "at least 0");
    value_refused("_bn1.weight", 18, NAN, "damaged");
    Folder f; /* finite by themselves, but not together */
    folder_begin(&f);
    float *a = folder_own(&f, "_conv_head.weight"), *b = folder_own(&f, "_bn1.weight");
    a[0] = b[0] = 3e38f;
    folder_refused(&f, good_config, "_conv_head.weight", "not finite");
    free(a), free(b);
}

static void test_shapes(void **state) {
    (void)state;
    Folder f;
    folder_begin(&f);
    folder_tensor(&f, "_blocks.3._expand_conv.weight")->shape[1] -= 1;
    folder_refused(&f, good_config, "_blocks.3._expand_conv.weight", "shape found");
    folder_begin(&f);
    folder_tensor(&f, "_blocks.3._bn1.running_var")->shape[0] -= 1;
    folder_refused(&f, good_config, "_blocks.3._bn1.running_var", "shape found");
    folder_begin(&f);
    *folder_tensor(&f, "_conv_stem.weight") =
        tensor_2d(folder_tensor(&f, "_conv_stem.weight")->data, DTYPE_F32, 8, 27);
    folder_refused(&f, good_config, "_conv_stem.weight", "dimensions");
    folder_begin(&f); /* as many values, but not a square */
    *folder_tensor(&f, "_blocks.0._depthwise_conv.weight") =
        tensor_nd(folder_tensor(&f, "_blocks.0._depthwise_conv.weight")->data, DTYPE_F32, 4,
                  (int64_t[]){16, 1, 25, 1});
    folder_refused(&f, good_config, "_blocks.0._depthwise_conv.weight", "expected");
    folder_begin(&f);
    f.entries[3].name = "_blocks.0._se_reduce.weight";
    folder_refused(&f, good_config, "lacks", f.from.tensors[3].name);
    folder_begin(&f);
    f.entries[f.count++] = (CheckpointEntry){"_blocks.0._se_reduce.weight", f.entries[0].value};
    folder_refused(&f, good_config, "_blocks.0._se_reduce.weight", "would not be used");
}

static void test_configs(void **state) {
    (void)state;
    config_refused(CONFIG("\"strides\": [1, 2, 1]"), "3 \"strides\"", "2 stages");
    config_refused(CONFIG("\"strides\": [1, 2, 1, 1], \"num_block_repeats\": [2, 3, 1]"),
                   "4 \"strides\"", "3 stages");
    config_refused(CONFIG("\"strides\": [1, 2, 0]"), "strides", "integer");
    config_refused(CONFIG("\"strides\": [1, 2, 9], \"num_block_repeats\": [2, 3, 1]"), "stride 9",
                   "block 5");
    config_refused(CONFIG("\"strides\": \"many\""), "strides", "list");
    config_refused(CONFIG("\"strides\": [1, 2, 1], \"num_block_repeats\": [2, 3, 2]"), "7 blocks",
                   "have 6");
    config_refused(CONFIG("\"hidden_act\": \"swish\""), "swish", "relu6");
    config_refused(CONFIG("\"hidden_dim\": 1280"), "1280", "19");
    config_refused(CONFIG("\"batch_norm_eps\": 7, \"strides\": [1, 2]"), "epsilon", "7");
    config_refused("{\"model_type\": \"efficientnet\"}", "model_type", "efficientnet-lite");
    config_refused("{\"model_type\": \"efficientnet-lite\", \"image_size\": 0}", "image_size",
                   "from 1 to");
}

/* ---- What it is not for. ---- */

static void test_frozen(void **state) {
    (void)state;
    Error err;
    Device *device;
    TrainModel t;
    TrainSettings s;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    train_settings_default(&s, STAGE_SEGMENT);
    s.model = (ModelOptions){.vision = towers[1], .feature_layer = FEATURE_LAYER_UNSET};
    assert_refused(train_model_open(&t, &s, device, &err), &err, "stages", "train segment");
    train_settings_default(&s, STAGE_TUNE);
    s.model = (ModelOptions){.language = "tests/golden/models/tiny-base/language",
                             .vision = towers[1],
                             .feature_layer = FEATURE_LAYER_UNSET};
    s.new_projector = PROJECTOR_LINEAR;
    s.train_vision = true;
    assert_refused(train_model_open(&t, &s, device, &err), &err, "stages", "frozen");
    Model m;
    ModelOptions options = {.vision = towers[0], .feature_layer = -2};
    assert_refused(model_open(&m, &options, device, &err), &err, "odd", "feature layer");
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),  cmocka_unit_test(test_features_bf16),
        cmocka_unit_test(test_class_row), cmocka_unit_test(test_alone),
        cmocka_unit_test(test_lite0),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_shapes),    cmocka_unit_test(test_configs),
        cmocka_unit_test(test_frozen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
