/* `easyfirst bench ops`: that every operation is timed, with numbers that mean something. */
#include <math.h>
#include <sys/stat.h>

#include <jansson.h>

#include "apps/bench_ops.h"
#include "tests/matrix.h"
#include "tests/program.h"
#include "tests/train_setup.h"

/* Odd sizes, and everything that a model may have. */
static const OpShapes tiny = {.name = "tiny",
                              .rows = 7,
                              .width = 24,
                              .heads = 3,
                              .ffn = 40,
                              .activation = ACTIVATION_GELU,
                              .vocabulary = 101,
                              .answers = 2,
                              .channels = 3,
                              .side = 6,
                              .patch = 2};

#define NAME_OF(name) #name,
static const char *const names[] = {OP_LIST(NAME_OF)};
enum { NAMES = sizeof names / sizeof *names };

static void test_every_operation_has_a_case(void **state) {
    (void)state;
    for (int i = 0; i < NAMES; i++) assert_string_equal(op_cases[i].op, names[i]);
    assert_null(op_cases[NAMES].op);
    int of_values = 0, of_vocabulary = 0;
    OpShapes bare = tiny;
    bare.vocabulary = bare.patch = 0;
    for (const OpCase *c = op_cases; c->op; c++) {
        assert_true(op_case_applies(c, &tiny));
        of_values += op_case_applies(c, &bare), of_vocabulary += !strncmp(c->op, "vocab_", 6);
    }
    assert_int_equal(of_values + of_vocabulary + 2, NAMES); /* patches and convolutions */
}

static bool moves_only(const char *op) {
    return !strcmp(op, "convert_forward") || !strcmp(op, "patches_forward");
}

static void test_every_case_is_timed(void **state) {
    Error err;
    for (int bf16 = 0; bf16 < (device_has_bf16(*state) ? 2 : 1); bf16++)
        for (const OpCase *c = op_cases; c->op; c++)
            for (int variant = 0; variant < op_case_variants(c); variant++) {
                OpResult r;
                assert_ok(op_case_time(&r, c, *state, &tiny, bf16 ? DTYPE_BF16 : DTYPE_F32, variant,
                                       3, &err),
                          &err);
                const bool right = !r.skipped && isfinite(r.ms) && r.ms > 0 && r.ms_min > 0 &&
                                   r.ms_min <= r.ms && r.ms <= r.ms_max && r.bytes > 0 &&
                                   isfinite(r.bytes) && r.needed > 0 && r.shape[0] &&
                                   moves_only(c->op) == (r.operations == 0);
                if (!right) fail_msg("%s: %g ms, %g bytes", c->op, r.ms, r.bytes);
            }
}

static const OpCase *case_of(const char *op) {
    const OpCase *c = op_cases;
    while (strcmp(c->op, op)) c++;
    return c;
}

static void assert_counts(Device *device, const char *op, Dtype compute, int variant, double bytes,
                          double operations) {
    OpWork work;
    Error err;
    assert_ok(op_work_plan(&work, case_of(op), device, &tiny, compute, variant, &err), &err);
    if (work.bytes != bytes || work.operations != operations)
        fail_msg("%s: %g bytes and %g operations, expected %g and %g", op, work.bytes,
                 work.operations, bytes, operations);
    op_work_close(&work);
}

/* Counted by hand, from the sizes above. */
static void test_bytes_and_operations(void **state) {
    assert_counts(*state, "scale_forward", DTYPE_F32, 0, 2 * 4 * 7 * 40, 7 * 40);
    assert_counts(*state, "convert_forward", DTYPE_F32, 0, 6 * 7 * 24, 0);
    assert_counts(*state, "linear_forward", DTYPE_F32, 0, 4 * (7 * 24 + 72 * 24 + 72 + 7 * 72),
                  2 * 7 * 24 * 72);
    assert_counts(*state, "linear_backward", DTYPE_F32, 3, /* 24 x 40; dw, db: read and written */
                  4 * (7 * 24 + 7 * 40 + 24 * 40 + 7 * 40 + 2 * 24 * 40 + 2 * 24),
                  2 * 2 * 7 * 24 * 40);
    assert_counts(*state, "gather_backward", DTYPE_F32, 0, 4 * (2 * 7 * 24 + 7 * 24 + 7), 7 * 24);
    assert_counts(*state, "attention_forward", DTYPE_F32, 0, 4 * (7 * 72 + 7 * 24 + 7 * 3),
                  2 * 2 * 7 * 7 * 24);
    assert_counts(*state, "adamw_step", DTYPE_F32, 0, 4 * 8 * 40 * 24, 16 * 40 * 24);
    assert_counts(*state, "conv2d_forward", DTYPE_F32, 1,
                  4 * (784 * 40 + 240 * 40 + 240 + 784 * 240), 2.0 * 784 * 40 * 240);
    assert_counts(*state, "vocab_logits", DTYPE_F32, 0, 4 * (2 * 24 + 101 * 24 + 101 + 2 * 101),
                  2 * 2 * 24 * 101);
}

static void test_too_large_is_left_out(void **state) {
    OpShapes huge = tiny;
    huge.vocabulary = 2000000000, huge.width = 1 << 20;
    OpResult r;
    Error err;
    assert_ok(op_case_time(&r, case_of("vocab_logits"), *state, &huge, DTYPE_F32, 0, 1, &err),
              &err);
    assert_true(r.skipped && r.needed > (size_t)1 << 50);
}

/* The program: a line of JSON for each case, and a table. */
static void test_program(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run(&r, "bench", "ops", "--model-name", "vit-l-14", "--op", "scale_forward", "--dtype", "f32",
        "--runs", "2", "--device", "cpu", "--json");
    expect(&r, 0, NULL);
    json_t *line = json_loads(r.out, 0, NULL);
    assert_non_null(line);
    static const char *const numbers[] = {"ms_median",     "ms_min",     "ms_max",     "bytes",
                                          "gb_per_s",      "gflops",     "operations", "share",
                                          "peak_gb_per_s", "peak_gflops"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const double value = json_number_value(json_object_get(line, numbers[i]));
        if (!(isfinite(value) && value > 0)) fail_msg("%s is %g", numbers[i], value);
    }
    static const char *const texts[][2] = {{"model", "vit-l-14"},
                                           {"op", "scale_forward"},
                                           {"dtype", "f32"},
                                           {"shape", "257 x 4096"},
                                           {"limit", "memory"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(json_string_value(json_object_get(line, texts[i][0])), texts[i][1]);
    json_decref(line);
    run(&r, "bench", "ops", "--op", "scale_forwrd");
    assert_message(&r, 2, "scale_forwrd", "\"scale_forward\"");
    run(&r, "bench", "ops", "words");
    assert_message(&r, 2, "\"words\"");
    run_end(&r);
}

/* Images of a folder, of an archive and by name: the time of each; and what cannot be decoded. */
static void test_images(void **state) {
    (void)state;
    Run r;
    char folder[300], path[400];
    run_start(&r);
    path_in(folder, sizeof folder, &r, "images");
    assert_int_equal(mkdir(folder, 0700), 0);
    size_t size;
    char *png = file_bytes("tests/golden/models/image0.png", &size);
    snprintf(path, sizeof path, "%s/a.png", folder);
    write_bytes(path, png, size);
    run(&r, "bench", "images", "--threads", "2", "--count", "5", "--runs", "2", "--size", "60",
        "--json", folder, "tests/golden/models/image1.png");
    expect(&r, 0, NULL);
    json_t *line = json_loads(r.out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(line, "files")), 2);
    assert_int_equal(json_integer_value(json_object_get(line, "images")), 5);
    static const char *const numbers[] = {"images_per_s", "processor_ms_per_image", "kb_per_image",
                                          "megapixels_per_image"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_true(json_number_value(json_object_get(line, numbers[i])) > 0);
    json_decref(line);
    snprintf(path, sizeof path, "%s/b.png", folder);
    write_bytes(path, png, size / 2);
    free(png);
    run(&r, "bench", "images", "--count", "2", folder);
    assert_message(&r, 1, "b.png");
    run(&r, "bench", "images");
    assert_message(&r, 2, "no images are given");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_has_a_case),
        cmocka_unit_test(test_every_case_is_timed),
        cmocka_unit_test(test_bytes_and_operations),
        cmocka_unit_test(test_too_large_is_left_out),
        cmocka_unit_test(test_program),
        cmocka_unit_test(test_images),
    };
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
