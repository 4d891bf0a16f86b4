/* What each of several processes that train one model takes in memory: what is predicted is what is
 * allocated, and what `info` says. */
#include "apps/train/settings.h"
#include "projector/train_model.h"
#include "tests/guarded_device.h"
#include "tests/train_setup.h"

#include <math.h>

enum { MICRO_BATCH_TOKENS = 300 };

typedef struct Case {
    TrainStage stage;
    bool images, train_vision, muon, narrow, masterless, overlap;
    int lora;
    Dtype dtype;
    const char *folder; /* NULL: one with matrices large enough for 8-bit moments */
} Case;

static const Case cases[] = {
    {STAGE_ADAPT, .folder = TINY_XL},
    {STAGE_ADAPT, .dtype = DTYPE_F32, .folder = TINY_XL},
    {STAGE_ADAPT, .dtype = DTYPE_BF16, .folder = TINY_BASE},
    {STAGE_TUNE, .images = true, .train_vision = true, .folder = TINY_BASE},
    {STAGE_TUNE, .images = true, .dtype = DTYPE_BF16, .folder = TINY_XL},
    {STAGE_ALIGN, .images = true, .folder = TINY_BASE},
    {STAGE_INSTRUCT, .lora = 3, .folder = TINY_BASE},
    {STAGE_INSTRUCT, .muon = true, .folder = TINY_XL},
    {STAGE_ADAPT, .narrow = true},
    {STAGE_ADAPT, .narrow = true, .dtype = DTYPE_BF16},
    {STAGE_ADAPT, .narrow = true, .masterless = true, .dtype = DTYPE_BF16},
    {STAGE_TUNE, .images = true, .masterless = true, .dtype = DTYPE_BF16, .folder = TINY_BASE},
    {STAGE_INSTRUCT, .folder = "tests/golden/llama/folders/dream"},
    {STAGE_ADAPT, .overlap = true, .folder = TINY_XL},
    {STAGE_TUNE, .images = true, .dtype = DTYPE_BF16, .overlap = true, .folder = TINY_BASE},
};

static char wide[300]; /* that model */

static void case_settings(TrainSettings *s, const Case *c, int ranks, int rank, int zero) {
    train_settings_default(s, c->stage);
    s->model.folder = c->folder ? c->folder : wide;
    s->model.dtype = c->dtype;
    s->micro_batch_tokens = MICRO_BATCH_TOKENS;
    s->train_vision = c->train_vision;
    s->optimizer.kind = c->muon ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    s->optimizer.moments = c->narrow ? MOMENTS_8BIT : MOMENTS_32BIT;
    s->optimizer.masters = c->masterless ? MASTERS_NONE : MASTERS_F32;
    if (c->lora) s->lora = (LoraConfig){.rank = c->lora, .alpha = 4, .targets = 5};
    s->ranks = ranks, s->rank = rank, s->zero = zero;
    s->overlap = c->overlap ? OVERLAP_ON : OVERLAP_AUTO;
}

/* The prediction, and with `used` what a prepared model has allocated on the device. */
static TrainMemory memory_of(Device *device, const Case *c, int ranks, int rank, int zero,
                             size_t *used) {
    TrainSettings s;
    TrainModel t;
    Error err;
    case_settings(&s, c, ranks, rank, zero);
    const size_t before = used ? guarded_bytes() : 0;
    assert_ok(train_model_open(&t, &s, device, &err), &err);
    if (used) {
        assert_ok(train_model_prepare(&t, &s, c->images, NULL, &err), &err);
        *used = guarded_bytes() - before;
    } else {
        assert_ok(train_model_describe(&t, &s, c->images, &err), &err);
    }
    TrainSizes unit = {.images = c->images};
    TrainSizes sizes = train_model_sizes(&s, &unit, multimodal_image_rows(&t.model.parts));
    TrainMemory m = train_model_memory(&t, &s, &sizes);
    train_model_close(&t);
    train_settings_free(&s);
    return m;
}

static void check_case(Device *device, const Case *c, int ranks, int zero) {
    size_t all = 0, alone = 0;
    memory_of(device, c, 1, 0, 0, &alone);
    for (int rank = 0; rank < ranks; rank++) {
        size_t used;
        TrainMemory m = memory_of(device, c, ranks, rank, zero, NULL);
        memory_of(device, c, ranks, rank, zero, &used);
        if (c->narrow) assert_true(m.moments < m.gradients * 2);
        const double predicted = (double)(m.weights + m.gradients + m.moments);
        if (!(fabs(predicted - (double)used) <= 0.03 * (double)used))
            fail_msg("%s of %s, rank %d of %d, ZeRO %d: %.0f bytes are predicted, it has %zu",
                     stage_name(c->stage), c->folder ? c->folder : wide, rank, ranks, zero,
                     predicted, used);
        all += used;
    }
    /* Something is divided, unless nothing is to be. */
    if (zero == 0) assert_int_equal(all, (size_t)ranks * alone);
    if (zero > 0) assert_true(all < (size_t)ranks * alone);
}

static void test_measured(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    path_in(wide, sizeof wide, &r, "wide");
    run(&r, "new", wide, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "72", "--heads", "6",
        "--ffn", "200", "--positions", "70");
    expect(&r, 0, NULL);
    Device *device = guarded_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].dtype == DTYPE_BF16 && !device_has_bf16(device)) continue;
        for (int zero = 0; zero <= 3; zero++)
            check_case(device, &cases[i], zero == 1 ? 2 : 3, zero);
    }
    guarded_close(device);
    run_end(&r);
}

/* The sum that `info` prints for a case. */
static int64_t told(Run *r, const Case *c, char *ranks, char *zero) {
    char tokens[16];
    snprintf(tokens, sizeof tokens, "%d", MICRO_BATCH_TOKENS);
    run(r, "info", "--train", (char *)stage_name(c->stage), "--micro-batch-tokens", tokens,
        "--optimizer", c->muon ? "muon" : "adamw", "--ranks", ranks, "--zero", zero, "--overlap",
        c->overlap && zero[0] > '1' ? "on" : "auto", "--device", "cpu", "--json",
        (char *)c->folder);
    expect(r, 0, NULL);
    json_t *json = json_loads(r->out, 0, NULL);
    const int64_t sum =
        json_integer_value(json_object_get(json_object_get(json, "training_bytes"), "sum"));
    json_decref(json);
    return sum;
}

static void test_info(void **state) {
    (void)state;
    Run r;
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    run_start(&r);
    static const int some[] = {0, 7, 13};
    for (int k = 0; k < 3; k++) {
        const Case *c = &cases[some[k]];
        int64_t most[4] = {0};
        for (int zero = 0; zero <= 3; zero++) {
            for (int rank = 0; rank < 5; rank++) {
                TrainMemory m = memory_of(device, c, 5, rank, zero, NULL);
                int64_t sum = (int64_t)train_memory_sum(&m);
                if (sum > most[zero]) most[zero] = sum;
            }
            char level[] = {(char)('0' + zero), 0};
            assert_int_equal(told(&r, c, "5", level), most[zero]);
        }
        /* With overlap a block's gradients twice, which is most of such a model. */
        assert_true(most[0] > most[1] && most[2] > most[3] && (c->overlap || most[1] > most[2]));
    }
    run(&r, "info", "--train", "adapt", "--ranks", "4", "--zero", "1", TINY_XL);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "of memory on each of 4 processes, ZeRO 1: weights"));
    run(&r, "info", "--ranks", "4", TINY_XL);
    expect(&r, 2, NULL);
    assert_non_null(strstr(r.err, "--ranks and --zero are of --train"));
    run(&r, "info", "--train", "adapt", "--zero", "2", TINY_XL);
    expect(&r, 2, NULL);
    assert_non_null(strstr(r.err, "give --ranks"));
    run(&r, "info", "--train", "adapt", "--ranks", "2", "--zero", "1", "--overlap", "on", TINY_XL);
    expect(&r, 2, NULL);
    assert_non_null(strstr(r.err, "--overlap is of --zero 2 and 3"));
    run_end(&r);
    device_close(device);
}

/* One process with --zero says that nothing is divided; resumed, which it may be, it does not. */
static void test_notice(void **state) {
    (void)state;
    TrainSetup t;
    train_setup(&t);
    Run *r = &t.run;
    run_ok(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", t.out, "--steps", "2",
           "--stop-after", "1", "--batch-sequences", "2", "--zero", "2");
    assert_non_null(strstr(r->err, "--zero 2 divides nothing"));
    run_ok(r, "train", "--resume", "--out", t.out);
    assert_null(strstr(r->err, "divides nothing"));
    run(r, "train", "adapt", "-m", t.model, "--data", t.pairs, "--out", t.out, "--zero", "1",
        "--overlap", "on");
    expect(r, 2, NULL);
    assert_non_null(strstr(r->err, "expected --zero 2 or 3"));
    train_setup_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_measured), cmocka_unit_test(test_info),
                                       cmocka_unit_test(test_notice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
