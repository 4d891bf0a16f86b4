/* Fresh projectors: whatever the tower's features are, image tokens have the scale of words. */
#include <math.h>

#include "apps/train/settings.h"
#include "projector/model_fresh.h"
#include "projector/train_model.h"
#include "tests/test.h"

#define MODELS "tests/golden/models/"

static const char *const pictures[] = {MODELS "image0.png", MODELS "image1.png",
                                       "data/bundled/images/tractor.jpg"};
enum { PICTURES = sizeof pictures / sizeof pictures[0] };

/* The root mean square of n values of a type. */
static double rms_of(const void *data, Dtype dtype, int64_t n) {
    float *values = malloc((size_t)n * sizeof *values);
    double sum = 0;
    values_convert(values, DTYPE_F32, data, dtype, (size_t)n);
    for (int64_t i = 0; i < n; i++) sum += (double)values[i] * (double)values[i];
    free(values);
    return sqrt(sum / (double)n);
}

/* That of the word embeddings without <s>, <pad>, </s>, <unk> and <mask>. */
static double words_of(Model *m) {
    const Param *p = params_find(&m->language.params, "roberta.embeddings.word_embeddings.weight");
    int64_t width = p->shape[1], rows = tokenizer_mask_id(m->tokenizer) - 4;
    const char *from = (const char *)p->value.data + 4 * (size_t)width * dtype_size(p->value.dtype);
    return rms_of(from, p->value.dtype, rows * width);
}

/* That of the image tokens of real images; the parts that see are prepared here. */
static double seen_by(Model *m) {
    Image images[PICTURES];
    Tensor tokens;
    Error err;
    assert_ok(params_prepare(&m->vision.params, m->vision.compute, NULL, NULL, &err), &err);
    assert_ok(params_prepare(&m->projector.params, m->vision.compute, NULL, NULL, &err), &err);
    if (!m->parts.preprocess.size) {
        m->parts.preprocess = preprocess_clip_default();
        m->parts.preprocess.size = m->vit.config.image_size;
    }
    for (int i = 0; i < PICTURES; i++)
        assert_ok(image_read(&images[i], pictures[i], NULL, &err), &err);
    assert_ok(multimodal_encode(&m->parts, images, PICTURES, &tokens, &err), &err);
    float *values = malloc(tensor_bytes(tokens));
    assert_ok(device_download(m->device, values, tokens.data, tensor_bytes(tokens), &err), &err);
    double rms = rms_of(values, DTYPE_F32, tensor_count(tokens));
    free(values);
    device_free(m->device, tokens.data);
    for (int i = 0; i < PICTURES; i++) image_free(&images[i]);
    return rms;
}

/* Makes the features of a fresh tower larger or smaller: what writes to the stream between its
 * blocks, which the blocks themselves read through norms. */
static void scale_features(Model *m, float factor) {
    static const char *const writes[] = {"pre_layrnorm", "out_proj", "mlp.fc2"};
    for (int i = 0; i < m->vision.params.count; i++) {
        const Param *p = &m->vision.params.items[i];
        bool scaled = false;
        for (int k = 0; k < 3; k++) scaled |= strstr(p->name, writes[k]) != NULL;
        float *values = p->value.data;
        for (int64_t n = 0; scaled && n < tensor_count(p->value); n++) values[n] *= factor;
    }
}

static void model_take(Model *m, const char *folder, Device *device) {
    Error err;
    ModelOptions options = {
        .folder = folder, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    assert_ok(model_open(m, &options, device, &err), &err);
}

static void projector_take(Model *m, ProjectorKind kind, FreshWeights fresh) {
    Error err;
    assert_ok(model_fresh_projector(m, kind, fresh, &err), &err);
    assert_ok(model_fresh_projector_scale(m, fresh.seed, &err), &err);
}

static Device *device_new(int threads) {
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){.threads = threads}, &err), &err);
    return device;
}

static void check_scale(Model *m, const char *what, double factor) {
    double words = words_of(m), seen = seen_by(m);
    if (!(seen > words / 2 && seen < words * 2))
        fail_msg("%s, features times %g: image tokens of %g, words of %g", what, factor, seen,
                 words);
}

/* Stored towers and language models of two families. */
static void test_stored(void **state) {
    (void)state;
    static const char *const folders[] = {MODELS "tiny-base", MODELS "tiny-xl"};
    Device *device = device_new(2);
    for (int i = 0; i < 2; i++)
        for (int kind = PROJECTOR_LINEAR; kind <= PROJECTOR_MLP2X_GELU; kind++)
            for (int type = 0; type < 2; type++) {
                Model m;
                model_take(&m, folders[i], device);
                projector_take(&m, (ProjectorKind)kind,
                               (FreshWeights){type ? DTYPE_BF16 : DTYPE_F32, 5});
                check_scale(&m, folders[i], 1);
                model_close(&m);
            }
    device_close(device);
}

static void test_features(void **state) {
    (void)state;
    static const float factors[] = {1, 1000, 0.001f};
    const VitConfig tower = {.image_size = 35,
                             .patch = 7,
                             .layers = 3,
                             .feature_layer = -2,
                             .block = {.width = 40,
                                       .heads = 5,
                                       .ffn = 56,
                                       .pre_norm = true,
                                       .activation = ACTIVATION_QUICK_GELU,
                                       .eps = 1e-5f}};
    Device *device = device_new(2);
    for (int i = 0; i < 3; i++)
        for (int kind = PROJECTOR_LINEAR; kind <= PROJECTOR_MLP2X_GELU; kind++) {
            Model m;
            Error err;
            ModelOptions options = {.language = MODELS "tiny-base/language", .describe_only = true};
            assert_ok(model_open(&m, &options, device, &err), &err);
            FreshWeights fresh = {DTYPE_F32, 3};
            assert_ok(model_fresh_vision(&m, &tower, fresh, &err), &err);
            scale_features(&m, factors[i]);
            projector_take(&m, (ProjectorKind)kind, fresh);
            check_scale(&m, "a fresh tower", (double)factors[i]);
            model_close(&m);
        }
    device_close(device);
}

/* The last layer's matrix of a fresh projector, in a model that is only described. */
static float *last_matrix(Device *device, uint64_t seed, size_t *bytes) {
    Model m;
    model_take(&m, MODELS "tiny-base", device);
    projector_take(&m, PROJECTOR_MLP2X_GELU, (FreshWeights){DTYPE_F32, seed});
    const Param *p = params_find(&m.projector.params, "model.mm_projector.2.weight");
    *bytes = tensor_bytes(p->value);
    float *values = malloc(*bytes);
    memcpy(values, p->value.data, *bytes);
    const Param *bias = params_find(&m.projector.params, "model.mm_projector.2.bias");
    for (int64_t i = 0; i < tensor_count(bias->value); i++)
        assert_true(((const float *)bias->value.data)[i] == 0);
    model_close(&m);
    return values;
}

/* A seed gives the same weights again, and `train` the ones of `new`; another seed gives others. */
static void test_again(void **state) {
    (void)state;
    Device *device = device_new(1);
    size_t bytes;
    float *first = last_matrix(device, 7, &bytes), *again = last_matrix(device, 7, &bytes);
    float *other = last_matrix(device, 8, &bytes), *trained = malloc(bytes);
    assert_memory_equal(first, again, bytes);
    assert_true(memcmp(first, other, bytes) != 0);
    TrainSettings s;
    TrainModel t;
    Error err;
    train_settings_default(&s, STAGE_ALIGN);
    s.model.folder = MODELS "tiny-base";
    s.new_projector = PROJECTOR_MLP2X_GELU;
    s.seed = 7;
    assert_ok(train_model_open(&t, &s, device, &err), &err);
    assert_ok(train_model_prepare(&t, &s, true, NULL, &err), &err);
    Params *params = &t.model.projector.params;
    const Param *p = params_find(params, "model.mm_projector.2.weight");
    assert_ok(params_fetch(params, p, trained, DTYPE_F32, &err), &err);
    assert_memory_equal(first, trained, bytes);
    train_model_close(&t);
    train_settings_free(&s);
    free(first), free(again), free(other), free(trained);
    device_close(device);
}

/* Towers and words of which nothing can come. */
static void test_refused(void **state) {
    (void)state;
    Device *device = device_new(1);
    Error err;
    const float bad[] = {0, NAN};
    for (int i = 0; i < 2; i++) {
        Model m;
        model_take(&m, MODELS "tiny-base", device);
        VitConfig tower = m.vit.config;
        FreshWeights fresh = {DTYPE_F32, 3};
        vit_free(&m.vit);
        assert_ok(model_fresh_vision(&m, &tower, fresh, &err), &err);
        scale_features(&m, bad[i]);
        assert_ok(model_fresh_projector(&m, PROJECTOR_LINEAR, fresh, &err), &err);
        assert_refused(model_fresh_projector_scale(&m, 1, &err), &err, "vision tower",
                       "root mean square", i ? "nan" : "is 0,");
        model_close(&m);
        model_take(&m, MODELS "tiny-base", device);
        XlmrConfig language = m.xlmr.config;
        xlmr_free(&m.xlmr);
        assert_ok(model_fresh_language(&m, &language, fresh, &err), &err);
        Param *p = params_find(&m.language.params, "roberta.embeddings.word_embeddings.weight");
        for (int64_t n = 0; n < tensor_count(p->value); n++) ((float *)p->value.data)[n] *= bad[i];
        assert_ok(model_fresh_projector(&m, PROJECTOR_LINEAR, fresh, &err), &err);
        assert_refused(model_fresh_projector_scale(&m, 1, &err), &err, "word embeddings",
                       "root mean square", i ? "nan" : "is 0,");
        model_close(&m);
    }
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
