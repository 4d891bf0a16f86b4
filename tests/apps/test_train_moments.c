/* Training with AdamW's moments in 8 bits: losses, resuming, memory, refusals. */
#include "tests/train_setup.h"

#include <math.h>

/* A model with matrices of more than 4,096 values. */
static void model_make(Run *r, char *path, size_t size) {
    path_in(path, size, r, "wide");
    run_ok(r, "new", path, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "64", "--heads",
           "4", "--ffn", "128", "--positions", "130", "--seed", "6");
}

static double last_loss(const Run *r, const char *name, int steps) {
    double losses[200], sum = 0;
    char path[128];
    snprintf(path, sizeof path, "%s/metrics.jsonl", name);
    assert_int_equal(read_losses(r, path, "loss", losses, 200), steps);
    for (int i = steps - 4; i <= steps; i++) sum += losses[i];
    return sum / 5;
}

#define MOMENTS_RUN(model, out, moments, ...)                                                \
    "train", "adapt", "-m", model, "--data", t.pairs, "--out", out, "--batch-tokens", "256", \
        "--log-every", "1", "--warmup-steps", "3", "-q", "--moments", moments, __VA_ARGS__

/* Three runs of different learning rates, precisions and seeds: the losses differ, by less than
 * 0.5 %. */
static void test_losses(void **state) {
    (void)state;
    static char *const runs[][4] = {
        {"2e-3", "f32", "1", "0"}, {"1e-3", "bf16", "2", "0"}, {"5e-3", "f32", "3", "64"}};
    TrainSetup t;
    char model[512], out[2][512], name[32];
    train_setup(&t);
    Run *r = &t.run;
    model_make(r, model, sizeof model);
    for (int i = 0; i < 3; i++) {
        double loss[2];
        for (int narrow = 0; narrow < 2; narrow++) {
            snprintf(name, sizeof name, "run-%d-%d", i, narrow);
            path_in(out[narrow], sizeof out[narrow], r, name);
            run_ok(r, MOMENTS_RUN(model, out[narrow], narrow ? "8bit" : "32bit", "--steps", "60",
                                  "--lr", runs[i][0], "--dtype", runs[i][1], "--seed", runs[i][2],
                                  "--lora-rank", runs[i][3]));
            loss[narrow] = last_loss(r, name, 60);
        }
        const double share = fabs(loss[1] / loss[0] - 1);
        printf("note: losses %.5f and %.5f, %.3f %%\n", loss[0], loss[1], 100 * share);
        if (!(share > 0 && share < 0.005)) fail_msg("losses %g and %g", loss[0], loss[1]);
    }
    train_setup_end(&t);
}

static void test_resumed(void **state) {
    (void)state;
    TrainSetup t;
    char model[512], path[700];
    train_setup(&t);
    Run *r = &t.run;
    model_make(r, model, sizeof model);
    run_ok(r, MOMENTS_RUN(model, t.whole, "8bit", "--steps", "6"));
    run_ok(r, MOMENTS_RUN(model, t.out, "8bit", "--steps", "6", "--stop-after", "3"));
    run(r, "train", "--resume", "--out", t.out, "--moments", "32bit", "-q");
    assert_message(r, 2, "--moments", "8bit", "keeps it");
    run_ok(r, "train", "--resume", "--out", t.out, "-q");
    assert_same_run(r, "whole", "out", 6);
    assert_same_file(r, "whole/checkpoint-00000006/training/language.safetensors",
                     "out/checkpoint-00000006/training/language.safetensors");
    /* A state with moments of another kind. */
    temporary_remove(t.whole);
    run_ok(r, MOMENTS_RUN(model, t.whole, "32bit", "--steps", "6", "--stop-after", "3"));
    snprintf(path, sizeof path, "%s/settings.json", t.whole);
    json_t *settings = json_load_file(path, 0, NULL);
    json_object_set_new(settings, "moments", json_string("8bit"));
    assert_int_equal(json_dump_file(settings, path, 0), 0);
    json_decref(settings);
    run(r, "train", "--resume", "--out", t.whole, "-q");
    assert_message(r, 1, "language.safetensors", "state of another training run", "u8");
    run(r, MOMENTS_RUN(model, t.out, "8bit", "--optimizer", "muon"));
    assert_message(r, 2, "--moments 8bit", "muon");
    train_setup_end(&t);
}

static double told_moments(Run *r, char *model, char *moments, char *rank) {
    run(r, "info", "-m", model, "--train", "adapt", "--moments", moments, "--lora-rank", rank,
        "--json");
    expect(r, 0, NULL);
    json_t *json = json_loads(r->out, 0, NULL);
    const json_t *bytes = json_object_get(json_object_get(json, "training_bytes"), "moments");
    if (!json_is_number(bytes)) fail_msg("no moments in %s", r->out);
    const double value = json_number_value(bytes);
    json_decref(json);
    return value;
}

/* Two layers of 4 d^2 + 2 d f in matrices, and the head's of d^2. */
static void test_predicted(void **state) {
    (void)state;
    enum { MATRICES = 2 * (4 * 64 * 64 + 2 * 64 * 128) + 64 * 64, LORA = 2 * 2 * 2 * 64 * 64 };
    TrainSetup t;
    char model[512];
    train_setup(&t);
    Run *r = &t.run;
    model_make(r, model, sizeof model);
    const double wide = told_moments(r, model, "32bit", "0"),
                 narrow = told_moments(r, model, "8bit", "0");
    const double saved = 2 * MATRICES * (3 - 4.0 / 256);
    if (!(fabs(wide - narrow - saved) < 10000)) fail_msg("%g and %g bytes", wide, narrow);
    assert_true(told_moments(r, model, "32bit", "64") == 2 * 4 * LORA);
    assert_true(told_moments(r, model, "8bit", "64") < 2.1 * LORA + 4096);
    run(r, "info", "-m", model, "--moments", "8bit");
    assert_message(r, 2, "--moments", "--train");
    run(r, "info", "-m", model, "--train", "adapt", "--moments", "8bit", "--optimizer", "muon");
    assert_message(r, 1, "--moments 8bit", "muon");
    run(r, "info", "-m", model, "--train", "length", "--lora-rank", "4");
    assert_message(r, 1, "--lora-rank", "length");
    train_setup_end(&t);
}

/* Without master weights: another run than with them, resumed to the bit, on any number of threads;
 * what it does not go with is refused. */
static void test_masters(void **state) {
    (void)state;
    TrainSetup t;
    char model[512];
    double losses[2];
    train_setup(&t);
    Run *r = &t.run;
    model_make(r, model, sizeof model);
    for (int none = 0; none < 2; none++) {
        char *out = none ? t.whole : t.out;
        run_ok(r, MOMENTS_RUN(model, out, "8bit", "--steps", "60", "--dtype", "bf16",
                              "--master-weights", none ? "none" : "f32", "--lr", "1e-3"));
        losses[none] = last_loss(r, none ? "whole" : "out", 60);
    }
    const double share = fabs(losses[1] / losses[0] - 1);
    printf("note: losses %.5f and %.5f, %.3f %%\n", losses[0], losses[1], 100 * share);
    if (!(share > 0 && share < 0.01)) fail_msg("losses %g and %g", losses[0], losses[1]);
    temporary_remove(t.whole), temporary_remove(t.out);
#define MASTERLESS "--steps", "6", "--dtype", "bf16", "--master-weights", "none"
    run_ok(r, MOMENTS_RUN(model, t.whole, "8bit", MASTERLESS, "--threads", "2"));
    run_ok(r, MOMENTS_RUN(model, t.out, "8bit", MASTERLESS, "--stop-after", "3", "--threads", "2"));
    run(r, "train", "--resume", "--out", t.out, "--master-weights", "f32", "-q");
    assert_message(r, 2, "--master-weights", "none", "keeps it");
    run_ok(r, "train", "--resume", "--out", t.out, "-q");
    assert_same_run(r, "whole", "out", 6);
    assert_same_file(r, "whole/checkpoint-00000006/training/language.safetensors",
                     "out/checkpoint-00000006/training/language.safetensors");
    temporary_remove(t.out);
    run(r, MOMENTS_RUN(model, t.out, "32bit", "--dtype", "f32", "--master-weights", "none"));
    assert_message(r, 1, "without master weights", "expected compute type bf16");
    run(r, MOMENTS_RUN(model, t.out, "32bit", "--optimizer", "muon", "--master-weights", "none"));
    assert_message(r, 2, "--master-weights none", "muon");
    run(r, "info", "-m", model, "--train", "adapt", "--master-weights", "none", "--optimizer",
        "muon");
    assert_message(r, 1, "--master-weights none", "muon");
    run(r, "info", "-m", model, "--master-weights", "none");
    assert_message(r, 2, "--master-weights", "--train");
    train_setup_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses), cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_predicted), cmocka_unit_test(test_masters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
