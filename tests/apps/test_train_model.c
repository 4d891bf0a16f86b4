/* What training takes in memory: told beforehand, it is what a prepared model has, what `info`
 * says, and what `train` prints. */
#include "apps/train/settings.h"
#include "apps/train/trainer.h"
#include "tests/train_setup.h"

#include <math.h>

#define FOLDERS "tests/golden/llama/folders"
enum { MICRO_BATCH_TOKENS = 600 };

typedef struct Case {
    TrainStage stage;
    bool images, train_vision, freeze_language, recompute, fresh, muon;
    int lora;
    Dtype dtype;
    const char *folder; /* NULL: TINY_BASE */
} Case;

static const Case cases[] = {
    {STAGE_ADAPT},
    {STAGE_ALIGN, .images = true},
    {STAGE_TUNE, .images = true, .muon = true},
    {STAGE_LENGTH},
    {STAGE_PRETRAIN, .recompute = true},
    {STAGE_INSTRUCT, .lora = 3},
    {STAGE_TUNE, .images = true, .train_vision = true},
    {STAGE_TUNE, .images = true, .freeze_language = true, .fresh = true},
    {STAGE_TUNE, .images = true, .lora = 2, .train_vision = true, .recompute = true},
    {STAGE_ADAPT, .dtype = DTYPE_BF16},
    {STAGE_ALIGN, .images = true, .dtype = DTYPE_BF16},
    {STAGE_SEGMENT, .images = true},
    {STAGE_SEGMENT, .images = true, .muon = true},
    {STAGE_LENGTH, .muon = true},
    {STAGE_TUNE, .images = true, .lora = 2, .muon = true},
    {STAGE_TUNE, .images = true, .train_vision = true, .muon = true},
    {STAGE_SEGMENT, .images = true, .recompute = true, .dtype = DTYPE_BF16},
    {STAGE_INSTRUCT, .folder = FOLDERS "/llada"},
    {STAGE_ADAPT, .recompute = true, .folder = FOLDERS "/dream"},
    {STAGE_PRETRAIN, .lora = 2, .dtype = DTYPE_BF16, .folder = FOLDERS "/dream"},
    {STAGE_INSTRUCT, .muon = true, .folder = FOLDERS "/llada"},
};

static void case_settings(TrainSettings *s, const Case *c) {
    train_settings_default(s, c->stage);
    s->model.folder = c->folder ? c->folder : TINY_BASE;
    s->model.dtype = c->dtype;
    s->micro_batch_tokens = MICRO_BATCH_TOKENS;
    s->train_vision = c->train_vision;
    s->freeze_language = c->freeze_language;
    s->recompute = c->recompute;
    s->optimizer.kind = c->muon ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    if (c->fresh) s->new_projector = PROJECTOR_LINEAR;
    if (c->lora) s->lora = (LoraConfig){.rank = c->lora, .alpha = 4, .targets = 5};
}

static size_t sum_of(TrainMemory m) {
    return m.weights + m.gradients + m.moments + m.arena;
}

static TrainMemory memory_of(Device *device, const Case *c, bool describe) {
    TrainSettings s;
    TrainModel t;
    Error err;
    case_settings(&s, c);
    assert_ok(train_model_open(&t, &s, device, &err), &err);
    if (c->stage == STAGE_SEGMENT)
        assert_ok(train_model_classes(&t, NULL, 1, NULL, 77, &err), &err);
    if (describe)
        assert_ok(train_model_describe(&t, &s, c->images, &err), &err);
    else
        assert_ok(train_model_prepare(&t, &s, c->images, NULL, &err), &err);
    TrainSizes unit = {.images = c->images};
    TrainSizes sizes = train_model_sizes(&s, &unit, multimodal_image_rows(&t.model.parts));
    TrainMemory m = train_model_memory(&t, &s, &sizes);
    s.optimizer.kind = OPTIMIZER_ADAMW;
    size_t work = m.moments - train_model_memory(&t, &s, &sizes).moments;
    assert_true((work > 0) == c->muon);
    if (!describe) assert_int_equal(t.optimizer.work.size, work);
    train_model_close(&t);
    train_settings_free(&s);
    return m;
}

static void test_estimate(void **state) {
    (void)state;
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].dtype && !device_has_bf16(device)) continue;
        TrainMemory estimate = memory_of(device, &cases[i], true);
        TrainMemory used = memory_of(device, &cases[i], false);
        assert_true(used.weights > 0 && used.gradients > 0 && used.arena > 0);
        assert_int_equal(estimate.weights, used.weights);
        assert_int_equal(estimate.gradients, used.gradients);
        assert_int_equal(estimate.moments, used.moments);
        assert_int_equal(estimate.arena, used.arena);
    }
    device_close(device);
}

/* The parameters that Muon updates: all matrices of the four modules but the patch embedding and
 * the length classes; no tables, vocabularies or LoRA matrices. */
static void test_muon_matrices(void **state) {
    (void)state;
    Device *device;
    TrainSettings s;
    TrainModel t;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    case_settings(&s, &(Case){STAGE_TUNE, .images = true, .lora = 2});
    assert_ok(train_model_open(&t, &s, device, &err), &err);
    const Params *tables[] = {&t.model.vision.params, &t.model.projector.params,
                              &t.model.language.params, &t.model.length.params};
    for (int i = 0; i < 4; i++) {
        int hidden = 0;
        for (int k = 0; k < tables[i]->count; k++) {
            const Param *p = &tables[i]->items[k];
            bool other = strstr(p->name, "patch_embedding") || strstr(p->name, "predictor.2.");
            int want = p->role != PARAM_MATRIX || other ? 0 : strstr(p->name, "in_proj") ? 3 : 1;
            if (p->hidden != want) fail_msg("%s: %d matrices, not %d", p->name, p->hidden, want);
            hidden += want;
        }
        assert_true(hidden > 0);
    }
    assert_true(t.lora.count > 0);
    for (int k = 0; k < t.lora.count; k++) assert_int_equal(t.lora.items[k].hidden, 0);
    train_model_close(&t);
    train_settings_free(&s);
    device_close(device);
}

static void test_refused(void **state) {
    (void)state;
    Device *device;
    TrainSettings s;
    TrainModel t;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    case_settings(&s, &(Case){.stage = STAGE_ALIGN});
    assert_ok(train_model_open(&t, &s, device, &err), &err);
    assert_refused(train_model_describe(&t, &s, false, &err), &err, "align", "image");
    train_model_close(&t);
    train_settings_free(&s);
    device_close(device);
}

/* The number after `before` on standard error, in megabytes. */
static double printed_megabytes(const Run *r, const char *before) {
    const char *at = strstr(r->err, before);
    if (!at) fail_msg("no \"%s\" in: %s", before, r->err);
    return strtod(at + strlen(before), NULL);
}

static void test_commands_agree(void **state) {
    (void)state;
    Device *device;
    Error err;
    Run r;
    LlavaSet set;
    char pairs[300], out[400], tokens[16];
    const char *text =
        "{\"inputs\": \"A dog sleeps.\", \"targets\": \"The dog is tired.\"}\n"
        "{\"inputs\": \"It is raining.\", \"targets\": \"She holds an umbrella.\"}\n";
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    run_start(&r);
    llava_set_make(&set, r.folder, 4);
    write_text_in(&r, "pairs.jsonl", text, pairs);
    snprintf(tokens, sizeof tokens, "%d", MICRO_BATCH_TOKENS);
    for (int i = 0; i < 4; i++) {
        const Case *c = &cases[i];
        char *stage = (char *)stage_name(c->stage);
        size_t sum = sum_of(memory_of(device, c, false));
        char *optimizer = c->muon ? "muon" : "adamw";
        run(&r, "info", "--train", stage, "--micro-batch-tokens", tokens, "--optimizer", optimizer,
            "--json", TINY_BASE);
        expect(&r, 0, NULL);
        json_t *json = json_loads(r.out, 0, NULL);
        json_t *training = json_object_get(json, "training_bytes");
        assert_int_equal(json_integer_value(json_object_get(training, "sum")), sum);
        json_decref(json);

        char *data = !c->images ? pairs : set.captions;
        path_in(out, sizeof out, &r, stage);
        run_ok(&r, "train", stage, "-m", TINY_BASE, "--data", data, "--out", out, "--steps", "1",
               "--batch-sequences", "2", "--micro-batch-tokens", tokens, "--optimizer", optimizer,
               c->images ? "--images" : NULL, set.images);
        double printed = printed_megabytes(&r, "memory     ");
        if (!(fabs(printed - (double)sum / 1e6) <= 0.51))
            fail_msg("train %s prints %.0f MB of %zu bytes", stage, printed, sum);
    }
    run_end(&r);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_muon_matrices),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_commands_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
