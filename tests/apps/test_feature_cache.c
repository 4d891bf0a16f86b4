/* `train --feature-cache`: the same losses as without, from features of this run, of an earlier one,
 * and after interruptions; and convolutional towers through new, info and train. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/train/feature_cache.h"
#include "tests/train_setup.h"

#define TOWER "tests/golden/efficientnet/odd"

typedef struct Setup {
    Run run;
    LlavaSet set;
    char model[300], cache[300];
} Setup;

/* A model of the tiny language model and a convolutional tower, and captions of images. */
static void setup(Setup *s) {
    *s = (Setup){0};
    run_start(&s->run);
    llava_set_make(&s->set, s->run.folder, 6);
    path_in(s->model, sizeof s->model, &s->run, "model");
    path_in(s->cache, sizeof s->cache, &s->run, "features");
    run(&s->run, "new", "--language", TINY_BASE "/language", "--vision", TOWER, s->model);
    assert_int_equal(s->run.status, 0);
}

static void setup_end(Setup *s) {
    run_end(&s->run);
}

enum { STEPS = 8 };

/* Trains the projector with more options and reads the losses. */
static void train(Setup *s, const char *name, double losses[STEPS + 2], const char *cache,
                  const char *dtype) {
    char out[300], metrics[64];
    path_in(out, sizeof out, &s->run, name);
    char *args[40] = {"train",
                      "align",
                      "-m",
                      s->model,
                      "--data",
                      s->set.captions,
                      "--images",
                      s->set.images,
                      "--out",
                      out,
                      "--steps",
                      "8",
                      "--batch-sequences",
                      "3",
                      "--lr",
                      "1e-2",
                      "--log-every",
                      "1",
                      "--dtype",
                      "f32",
                      "-q",
                      NULL};
    int n = 21;
    if (cache) args[n++] = "--feature-cache", args[n++] = (char *)cache;
    if (dtype) args[n++] = "--feature-dtype", args[n++] = (char *)dtype;
    run_files(&s->run, "/dev/null", NULL, args);
    if (s->run.status) fail_msg("%s", s->run.err);
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", name);
    assert_int_equal(read_losses(&s->run, metrics, "loss", losses, STEPS + 2), STEPS);
}

static off_t file_size(const char *path) {
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

static void assert_losses(const double *a, const double *b, double limit) {
    for (int i = 1; i <= STEPS; i++)
        if (!(fabs(a[i] - b[i]) <= limit * fabs(b[i])))
            fail_msg("step %d: loss %.9g, without the cache %.9g", i, a[i], b[i]);
}

static void test_same_losses(void **state) {
    (void)state;
    Setup s;
    double without[STEPS + 2], first[STEPS + 2], again[STEPS + 2], rounded[STEPS + 2];
    char other[300];
    setup(&s);
    train(&s, "without", without, NULL, NULL);
    train(&s, "first", first, s.cache, "f32");
    off_t size = file_size(s.cache);
    /* Six images and three photographs at most, each once: features of 5 x 5 places, 11 wide. */
    assert_true(size > 256 && size <= 256 + (s.set.image_count + 3) * (128 + 25 * 11 * 4));
    assert_int_equal((size - 256) % (128 + 25 * 11 * 4), 0);
    train(&s, "again", again, s.cache, "f32");
    assert_int_equal(file_size(s.cache), size);
    assert_losses(first, without, 0);
    assert_losses(again, without, 0);
    path_in(other, sizeof other, &s.run, "rounded.features");
    train(&s, "rounded", rounded, other, NULL);
    assert_losses(rounded, without, 4e-3);
    train(&s, "rounded2", again, other, "bf16");
    assert_losses(again, rounded, 0);
    setup_end(&s);
}

/* A record cut short, a damaged one and a changed image are computed again. */
static void test_repaired(void **state) {
    (void)state;
    Setup s;
    double first[STEPS + 2], again[STEPS + 2];
    setup(&s);
    train(&s, "first", first, s.cache, "f32");
    off_t size = file_size(s.cache), record = 128 + 25 * 11 * 4;
    assert_int_equal(truncate(s.cache, size - 7), 0);
    train(&s, "cut", again, s.cache, "f32");
    assert_losses(again, first, 0);
    assert_int_equal(file_size(s.cache), size);
    FILE *file = fopen(s.cache, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 256 + 128 + 40, SEEK_SET), 0);
    fputs("damage", file);
    assert_int_equal(fclose(file), 0);
    train(&s, "damaged", again, s.cache, "f32");
    assert_losses(again, first, 0);
    assert_int_equal(file_size(s.cache), size + record);
    train(&s, "repaired", again, s.cache, "f32");
    assert_losses(again, first, 0);
    assert_int_equal(file_size(s.cache), size + record);
    shell("find %s -type f -exec touch -d '2001-02-03 04:05' {} +", s.set.images);
    train(&s, "touched", again, s.cache, "f32");
    assert_losses(again, first, 0);
    assert_true(file_size(s.cache) > size + record); /* all but photographs, which are links */
    assert_int_equal((file_size(s.cache) - 256) % record, 0);
    setup_end(&s);
}

#define TRAIN(s, ...)                                                                           \
    run(&(s)->run, "train", "align", "-m", (s)->model, "--data", (s)->set.captions, "--images", \
        (s)->set.images, "--out", out, "--steps", "1", "-q", __VA_ARGS__)

static void test_refused(void **state) {
    (void)state;
    Setup s;
    double losses[STEPS + 2];
    char out[300], text[300];
    setup(&s);
    path_in(out, sizeof out, &s.run, "out");
    train(&s, "first", losses, s.cache, "f32");
    TRAIN(&s, "--feature-cache", s.cache);
    assert_message(&s.run, 1, s.cache, "another vision tower", "delete");
    TRAIN(&s, "--feature-cache", s.cache, "--feature-dtype", "f32", "--vision",
          "tests/golden/efficientnet/stages", "--new-projector", "linear");
    assert_int_equal(s.run.status, 1); /* other rows than the folder says, or another tower */
    write_text_in(&s.run, "notes", "not features at all\n", text);
    TRAIN(&s, "--feature-cache", text);
    assert_message(&s.run, 1, text, "not a feature cache");
    TRAIN(&s, "--feature-cache", s.run.folder);
    assert_message(&s.run, 1, s.run.folder);
    TRAIN(&s, "--feature-dtype", "f32");
    assert_int_not_equal(s.run.status, 0);
    assert_non_null(strstr(s.run.err, "--feature-cache"));
    run(&s.run, "train", "tune", "-m", s.model, "--data", s.set.conversations, "--images",
        s.set.images, "--out", out, "--train-vision", "-q");
    assert_message(&s.run, 1, "convolutional", "frozen");
    setup_end(&s);
}

/* Two processes never write to one file. */
static void test_locked(void **state) {
    (void)state;
    Error err;
    Device *device;
    Model model;
    FeatureCache *a, *b;
    char folder[256], path[300], key[FEATURE_KEY], other[FEATURE_KEY];
    float features[25 * 11], found[25 * 11];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/cache", folder);
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    ModelOptions o = {.vision = TOWER, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    assert_ok(model_open(&model, &o, device, &err), &err);
    assert_ok(feature_cache_open(&a, path, &model, DTYPE_F32, &err), &err);
    assert_refused(feature_cache_open(&b, path, &model, DTYPE_F32, &err), &err, path, "in use");
    assert_true(feature_cache_key(key, TOWER "/config.json"));
    assert_true(feature_cache_key(other, TOWER "/model.safetensors"));
    assert_false(feature_cache_key(other + 0, TOWER "/none"));
    for (int i = 0; i < 25 * 11; i++) features[i] = (float)i;
    assert_false(feature_cache_read(a, key, found));
    feature_cache_add(a, key, features), feature_cache_add(a, key, found);
    assert_true(feature_cache_read(a, key, found));
    assert_memory_equal(features, found, sizeof found);
    assert_int_equal(feature_cache_count(a), 1);
    for (int i = 0; i < 3000; i++) { /* the index grows */
        snprintf(other, sizeof other, "%063d", i);
        features[0] = (float)i;
        feature_cache_add(a, other, features);
    }
    feature_cache_close(a);
    assert_ok(feature_cache_open(&a, path, &model, DTYPE_F32, &err), &err);
    assert_int_equal(feature_cache_count(a), 3001);
    snprintf(other, sizeof other, "%063d", 2222);
    assert_true(feature_cache_read(a, other, found));
    assert_true(found[0] == 2222 && found[1] == 1);
    assert_null(feature_cache_problem(a));
    feature_cache_close(a);
    model.net.config.block[0].stride = 2; /* another tower */
    assert_refused(feature_cache_open(&a, path, &model, DTYPE_F32, &err), &err, "another vision");
    model_close(&model);
    device_close(device);
    temporary_remove(folder);
}

/* The model of `new` has the tower as it was, and opens as MODEL/vision. */
static void test_folder(void **state) {
    (void)state;
    Setup s;
    char path[400];
    setup(&s);
    snprintf(path, sizeof path, "%s/vision/model.safetensors", s.model);
    run(&s.run, "info", "-m", s.model);
    assert_int_equal(s.run.status, 0);
    assert_non_null(strstr(s.run.out, "33 px to a grid of 5 x 5"));
    Checkpoint a = {0}, b = {0};
    Error err;
    assert_ok(checkpoint_open(&a, TOWER "/model.safetensors", NULL, &err), &err);
    assert_ok(checkpoint_open(&b, path, NULL, &err), &err);
    for (size_t i = 0; i < b.count; i++) {
        const CheckpointTensor *from = checkpoint_find(&a, b.tensors[i].name);
        assert_non_null(from);
        assert_true(tensor_same_shape(from->value, b.tensors[i].value));
        assert_memory_equal(from->value.data, b.tensors[i].value.data, tensor_bytes(from->value));
    }
    assert_true(b.count > 40);
    checkpoint_close(&a), checkpoint_close(&b);
    run(&s.run, "info", "--vision", "tests/golden/efficientnet/stages");
    assert_int_equal(s.run.status, 0);
    assert_non_null(strstr(s.run.out, "classifier of 4 classes (_fc) is not used"));
    setup_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_losses), cmocka_unit_test(test_repaired),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_locked),
        cmocka_unit_test(test_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
