/* test_quantize.c - `easyfirst quantize`: the weights, what models of them compute, and files that
 * are refused. */
#include "tests/golden_models.h"
#include "tests/program.h"

#include <math.h>
#include <unistd.h>

#include "data/checkpoints/model_files.h"
#include "kernels/int8.h"

typedef struct Opened {
    Device *device;
    Model model;
} Opened;

static void opened_open(Opened *o, const char *folder, Dtype dtype, bool describe) {
    Error err;
    ModelOptions options = {.folder = folder,
                            .dtype = dtype,
                            .feature_layer = FEATURE_LAYER_UNSET,
                            .describe_only = describe};
    assert_ok(device_open(&o->device, &(DeviceOptions){.threads = 2}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
}

static void opened_close(Opened *o) {
    model_close(&o->model);
    device_close(o->device);
}

/* Runs `quantize`, or the way back in f32, and expects success. */
static void quantize(Run *r, const char *model, const char *out, bool back) {
    char *from = (char *)(uintptr_t)model, *to = (char *)(uintptr_t)out;
    if (back)
        run(r, "quantize", "-q", "-m", from, "--dequantize", "--dtype", "f32", to);
    else
        run(r, "quantize", "-q", "-m", from, to);
    if (r->status) fail_msg("%s", r->err);
}

/* What the whole folder computes: hidden state and logits of some ids, and image tokens. */
typedef struct Results {
    float *logits, *image;
    size_t logit_count, image_count;
} Results;

static Results results_of(const Opened *o) {
    enum { TOKENS = 13 };
    const Model *m = &o->model;
    const Xlmr *x = &m->xlmr;
    Error err;
    int32_t ids[TOKENS], positions[TOKENS], rows[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (7 * i + 3) % x->config.vocab, positions[i] = XLMR_FIRST_POSITION + i, rows[i] = i;
    AttentionSpan span = {0, TOKENS, 1, {{0, TOKENS}}};
    XlmrBatch batch = {.tokens = TOKENS,
                       .ids = ids,
                       .positions = positions,
                       .plan = {.spans = &span, .span_count = 1}};
    int side = m->vit.config.image_size, features = vit_feature_rows(&m->vit.config);
    Arena arena;
    Tensor hidden, head, logits, pixels, seen, image;
    Results r = {.logit_count = (size_t)(TOKENS * x->config.vocab),
                 .image_count = (size_t)features * (size_t)m->projector_model.out};
    assert_ok(arena_open(&arena, o->device, 64 << 20, &err), &err);
    assert_ok(xlmr_forward(x, &arena, &batch, &hidden, NULL, &err), &err);
    assert_ok(xlmr_head(x, &arena, hidden, rows, TOKENS, &head, &err), &err);
    assert_ok(arena_take(&arena, &logits, DTYPE_F32, TOKENS, x->config.vocab, &err), &err);
    assert_ok(vocab_logits(o->device, logits, head, x->vocab_w, x->vocab_b, &err), &err);
    assert_ok(arena_take(&arena, &pixels, DTYPE_F32, 1, 3 * side * side, &err), &err);
    TestRandom random = {2};
    for (int i = 0; i < 3 * side * side; i++)
        ((float *)pixels.data)[i] = test_random_normal(&random);
    pixels = tensor_nd(pixels.data, DTYPE_F32, 4, (int64_t[]){1, 3, side, side});
    Dtype compute = m->vision.compute;
    assert_ok(arena_take(&arena, &seen, compute, features, m->vit.config.block.width, &err), &err);
    assert_ok(vit_forward(&m->vit, &arena, seen, pixels, NULL, &err), &err);
    assert_ok(arena_take(&arena, &image, compute, features, m->projector_model.out, &err), &err);
    assert_ok(projector_forward(&m->projector_model, &arena, image, seen, &err), &err);
    r.logits = malloc(r.logit_count * sizeof *r.logits);
    r.image = malloc(r.image_count * sizeof *r.image);
    assert_true(r.logits && r.image);
    memcpy(r.logits, logits.data, r.logit_count * sizeof *r.logits);
    values_convert(r.image, DTYPE_F32, image.data, compute, r.image_count);
    arena_close(&arena);
    return r;
}

static void results_free(Results *r) {
    free(r->logits), free(r->image);
}

/* Each matrix of the int8 folder, by itself: integers and scales of the nearest integers, half a
 * step from the weights at most; everything else as it was. */
static void check_weights(const Params *before, const Params *after) {
    int quantized = 0;
    for (int i = 0; i < before->count; i++) {
        const Param *p = &before->items[i], *q = &after->items[i];
        assert_string_equal(p->name, q->name);
        if (!p->present) continue;
        if (q->value.dtype != DTYPE_I8) {
            assert_int_equal(p->value.dtype, q->value.dtype);
            assert_memory_equal(p->value.data, q->value.data, tensor_bytes(p->value));
            continue;
        }
        quantized++;
        int64_t n = tensor_count(p->value), columns = n / p->shape[0];
        float *values = malloc((size_t)n * sizeof *values);
        assert_non_null(values);
        assert_true(values_convert(values, DTYPE_F32, p->value.data, p->value.dtype, (size_t)n));
        for (int64_t r = 0; r < p->shape[0]; r++) {
            double most = 0, scale = q->value.scale[r];
            for (int64_t k = 0; k < columns; k++) most = fmax(most, fabs(values[r * columns + k]));
            assert_true(most == 0 ? scale == 1 : fabs(scale * 127 / most - 1) < 1e-6);
            for (int64_t k = 0; k < columns; k++) {
                double v = ((const int8_t *)q->value.data)[r * columns + k] * scale;
                assert_true(fabs(v - values[r * columns + k]) <= 0.50001 * scale);
            }
        }
        free(values);
    }
    assert_true(quantized > 0);
}

static void check_folders(const char *before, const char *after) {
    Opened a, b;
    opened_open(&a, before, DTYPE_F32, true);
    opened_open(&b, after, DTYPE_F32, true);
    const ModelPart *p[] = {&a.model.language, &a.model.vision, &a.model.projector};
    const ModelPart *q[] = {&b.model.language, &b.model.vision, &b.model.projector};
    for (int i = 0; i < 2; i++) check_weights(&p[i]->params, &q[i]->params);
    assert_int_equal(b.model.language.stored, DTYPE_I8);
    assert_true(params_prepared_bytes(&q[0]->params, DTYPE_F32) <
                params_prepared_bytes(&p[0]->params, DTYPE_F32) * 3 / 4); /* rows are short */
    opened_close(&a), opened_close(&b);
}

/* In f32 the int8 folder computes what the dequantized one does; in bf16, where rows may be
 * quantized too, nearly that: a twentieth in the mean square. */
static void compare_folders(const char *int8, const char *plain, Dtype dtype, double limit) {
    Opened a, b;
    opened_open(&a, int8, dtype, false);
    if (dtype == DTYPE_BF16 && !device_has_bf16(a.device)) {
        opened_close(&a);
        return;
    }
    opened_open(&b, plain, DTYPE_F32, false);
    Results got = results_of(&a), want = results_of(&b);
    print_message("# %s: logits %.2g, image tokens %.2g\n", dtype_name(dtype),
                  relative_error(got.logits, want.logits, want.logit_count),
                  relative_error(got.image, want.image, want.image_count));
    assert_close(got.logits, want.logits, want.logit_count, limit, "logits");
    assert_close(got.image, want.image, want.image_count, limit, "image tokens");
    results_free(&got), results_free(&want);
    opened_close(&a), opened_close(&b);
}

static void models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        Run r;
        run_start(&r);
        char int8[600], plain[600], again[600];
        path_in(int8, sizeof int8, &r, "int8");
        path_in(plain, sizeof plain, &r, "plain");
        path_in(again, sizeof again, &r, "again");
        quantize(&r, golden_folders[i], int8, false);
        check_folders(golden_folders[i], int8);
        quantize(&r, int8, plain, true);
        compare_folders(int8, plain, DTYPE_F32, 1e-5);
        compare_folders(int8, plain, DTYPE_BF16, 0.05);
        /* Once more: the same integers. */
        quantize(&r, plain, again, false);
        Opened a, b;
        opened_open(&a, int8, DTYPE_F32, true);
        opened_open(&b, again, DTYPE_F32, true);
        for (int k = 0; k < a.model.language.params.count; k++) {
            const Tensor *x = &a.model.language.params.items[k].value;
            const Tensor *y = &b.model.language.params.items[k].value;
            if (x->dtype == DTYPE_I8) assert_memory_equal(x->data, y->data, tensor_bytes(*x));
        }
        opened_close(&a), opened_close(&b);
        run_end(&r);
    }
}

/* Other commands on such a folder. */
static void commands(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char int8[600], file[600], out[600], data[600], pruned[600];
    path_in(int8, sizeof int8, &r, "int8");
    path_in(out, sizeof out, &r, "trained");
    path_in(pruned, sizeof pruned, &r, "pruned");
    char *model = (char *)(uintptr_t)golden_folders[0];
    run(&r, "quantize", "-m", model, int8);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.err, "parameters in 8 bits"));
    run(&r, "info", int8);
    assert_non_null(strstr(r.out, "stored as i8"));
    snprintf(file, sizeof file, "%s/language/model.safetensors", int8);
    run(&r, "info", file);
    assert_int_equal(r.status, 0);
    assert_null(strstr(r.out, "_scale")); /* a part of its tensor */
    run(&r, "text", "-m", int8, "--length", "3", "red");
    if (r.status) fail_msg("%s", r.err);
    static const char lines[] =
        "{\"inputs\": \"What colour is the circle?\", \"targets\": \"red\"}\n";
    write_file(&r, "data.jsonl", lines, strlen(lines), data, sizeof data);
    run(&r, "prune", "-m", int8, "--data", data, pruned);
    if (r.status) fail_msg("%s", r.err);
    run(&r, "text", "-m", pruned, "--length", "3", "red");
    if (r.status) fail_msg("%s", r.err);
    Opened o;
    opened_open(&o, pruned, DTYPE_F32, true);
    assert_int_equal(o.model.language.stored, DTYPE_I8);
    opened_close(&o);
    run(&r, "train", "adapt", "-m", int8, "--data", data, "--steps", "2", "--out", out);
    if (r.status) fail_msg("%s", r.err);
    run(&r, "quantize", "-m", int8, int8);
    assert_message(&r, 1, "exists already");
    run(&r, "quantize", "-m", model, "--dequantize", out);
    assert_message(&r, 1, "exists already");
    path_in(out, sizeof out, &r, "other");
    run(&r, "quantize", "-m", model, "--dequantize", out);
    assert_message(&r, 1, "nothing to dequantize");
    run(&r, "quantize", "-m", model, "--dtype", "f32", out);
    assert_message(&r, 2, "--dequantize");
    run_end(&r);
}

/* ---- Files. ---- */

enum { ROWS = 5, COLUMNS = 7 };

static const float good[ROWS] = {1, 2, 0.5f, 1e-6f, 3};

/* Opens a file with a matrix "m.weight", and scales unless their type is DTYPE_NONE. */
static int open_with(const Run *r, Checkpoint *c, Tensor matrix, Tensor scales, Error *err) {
    char path[600];
    path_in(path, sizeof path, r, "file.safetensors");
    CheckpointEntry entries[] = {{"m.weight", matrix}, {"m.weight_scale", scales}};
    assert_ok(checkpoint_write(path, entries, scales.dtype == DTYPE_NONE ? 1 : 2, err), err);
    return checkpoint_open(c, path, NULL, err);
}

static void files(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    Error err;
    Checkpoint c;
    int8_t integers[ROWS * COLUMNS] = {1, -2, 3, -128, 127};
    float scales[ROWS];
    memcpy(scales, good, sizeof scales);
    Tensor m = tensor_2d(integers, DTYPE_I8, ROWS, COLUMNS);
    Tensor s = tensor_1d(scales, DTYPE_F32, ROWS);
    assert_ok(open_with(&r, &c, m, s, &err), &err);
    assert_int_equal(c.count, 1);
    assert_string_equal(c.tensors[0].name, "m.weight");
    assert_memory_equal(c.tensors[0].value.scale, good, sizeof good);
    checkpoint_close(&c);
    assert_ok(open_with(&r, &c, m, TENSOR_NONE, &err), &err); /* no weight, but a tensor */
    assert_null(c.tensors[0].value.scale);
    checkpoint_close(&c);
    float plain[ROWS * COLUMNS] = {0}; /* a name that ends so by chance */
    assert_ok(open_with(&r, &c, tensor_2d(plain, DTYPE_F32, ROWS, COLUMNS), s, &err), &err);
    assert_int_equal(c.count, 2);
    checkpoint_close(&c);

    const float bad[] = {0, -1, NAN, INFINITY, -0.0f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scales[3] = bad[i];
        assert_refused(open_with(&r, &c, m, s, &err), &err, "file.safetensors", "row 3",
                       "m.weight_scale");
    }
    memcpy(scales, good, sizeof scales);
    assert_refused(open_with(&r, &c, m, tensor_1d(scales, DTYPE_F32, ROWS - 1), &err), &err,
                   "m.weight_scale", "F32 [4]", "F32 [5]");
    assert_refused(open_with(&r, &c, m, tensor_2d(scales, DTYPE_F32, ROWS, 1), &err), &err,
                   "F32 [5, 1]");
    assert_refused(open_with(&r, &c, m, tensor_1d(scales, DTYPE_I32, ROWS), &err), &err, "I32 [5]");
    assert_refused(open_with(&r, &c, tensor_1d(integers, DTYPE_I8, ROWS), s, &err), &err,
                   "m.weight", "1 dimensions");
    run_end(&r);
}

/* A table that is written in several pieces, with integers of its own next to it. */
static void large_parts(void **state) {
    (void)state;
    enum { N = 2311, K = 1999, SMALL = 33 };
    Run r;
    run_start(&r);
    Error err;
    Device *device;
    Params p;
    Tensor slot[3];
    char path[600];
    path_in(path, sizeof path, &r, "part.safetensors");
    assert_ok(device_open(&device, &(DeviceOptions){.threads = 2}, &err), &err);
    params_init(&p, device);
    ParamSpec specs[] = {
        {.slot = &slot[0], .role = PARAM_MATRIX, .ndim = 2, .shape = {N, K}},
        {.slot = &slot[1], .role = PARAM_TABLE, .ndim = 2, .shape = {SMALL, SMALL}},
        {.slot = &slot[2], .role = PARAM_MATRIX, .ndim = 2, .shape = {3, 7}}};
    float *values = malloc((size_t)N * K * sizeof *values), small[21] = {1, 2, 3};
    int8_t integers[SMALL * SMALL] = {1, -2, 3};
    float scales[SMALL];
    assert_non_null(values);
    TestRandom random = {1};
    for (int i = 0; i < N * K; i++) values[i] = (float)test_random_uniform(&random) - 0.4f;
    for (int i = 0; i < SMALL; i++) scales[i] = (float)(i + 1) / 7;
    Tensor given = tensor_2d(integers, DTYPE_I8, SMALL, SMALL);
    given.scale = scales;
    for (int i = 0; i < 3; i++) assert_ok(params_declare(&p, &specs[i], &err, "p%d", i), &err);
    assert_ok(params_set(&p.items[0], tensor_2d(values, DTYPE_F32, N, K), &err), &err);
    assert_ok(params_set(&p.items[1], given, &err), &err);
    assert_ok(params_set(&p.items[2], tensor_2d(small, DTYPE_F32, 3, 7), &err), &err);
    assert_ok(part_write_int8(&p, path, &err), &err);
    Checkpoint c;
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_int_equal(c.count, 3);
    const Tensor *t = &c.tensors[0].value;
    assert_int_equal(t->dtype, DTYPE_I8);
    for (int row = 0; row < N; row++)
        for (int k = 0; k < K; k++) {
            float v = (float)((const int8_t *)t->data)[row * K + k] * t->scale[row];
            assert_true(fabsf(v - values[row * K + k]) <= 0.50001f * t->scale[row]);
        }
    assert_memory_equal(c.tensors[1].value.data, integers, sizeof integers);
    assert_memory_equal(c.tensors[1].value.scale, scales, sizeof scales);
    assert_int_equal(c.tensors[2].value.dtype, DTYPE_F32);
    checkpoint_close(&c);
    /* With its own types, and dequantized. */
    assert_ok(part_write(&p, NULL, 0, path, DTYPE_NONE, &err), &err);
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_memory_equal(c.tensors[1].value.scale, scales, sizeof scales);
    checkpoint_close(&c);
    assert_ok(part_write_dequantized(&p, path, DTYPE_BF16, &err), &err);
    assert_ok(checkpoint_open(&c, path, NULL, &err), &err);
    assert_int_equal(c.tensors[0].value.dtype, DTYPE_F32);
    assert_int_equal(c.tensors[1].value.dtype, DTYPE_BF16);
    assert_true(bf16_to_f32(((uint16_t *)c.tensors[1].value.data)[2]) ==
                bf16_to_f32(f32_to_bf16(3 * scales[0])));
    checkpoint_close(&c);
    values[N * K - 1] = NAN;
    assert_refused(part_write_int8(&p, path, &err), &err, "p0", "row 2310", "not finite");
    free(values);
    params_free(&p);
    device_close(device);
    run_end(&r);
}

/* A model whose weights lack scales, or have some for what is no integer. */
static void refused_models(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    Error err;
    Opened o;
    char path[600];
    opened_open(&o, golden_folders[0], DTYPE_F32, true);
    Params *p = &o.model.projector.params;
    CheckpointEntry entries[16];
    assert_true(p->count < 15);
    for (int i = 0; i < p->count; i++)
        entries[i] = (CheckpointEntry){p->items[i].name, p->items[i].value};
    path_in(path, sizeof path, &r, "projector.safetensors");
    char *model = (char *)(uintptr_t)golden_folders[0];
    Tensor kept = entries[0].value;
    assert_int_equal(kept.ndim, 2);
    int8_t *integers = calloc((size_t)tensor_count(kept), 1);
    float *values = calloc((size_t)tensor_count(kept), sizeof *values);
    assert_true(integers && values);

    entries[0].value = tensor_2d(integers, DTYPE_I8, kept.shape[0], kept.shape[1]);
    assert_ok(checkpoint_write(path, entries, (size_t)p->count, &err), &err);
    run(&r, "info", "-m", model, "--projector", path);
    assert_message(&r, 1, "projector.safetensors", "i8 with scales");

    entries[0].value = kept;
    char name[300];
    snprintf(name, sizeof name, "%s_scale", entries[0].name);
    entries[p->count] = (CheckpointEntry){name, tensor_1d(values, DTYPE_F32, kept.shape[0])};
    assert_ok(checkpoint_write(path, entries, (size_t)p->count + 1, &err), &err);
    run(&r, "ask", "-m", model, "--projector", path, "--length", "2",
        "tests/golden/images/rgb8_224x224.png", "red");
    assert_message(&r, 1, "_scale", "would not be used");

    free(integers), free(values);
    opened_close(&o);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(models), cmocka_unit_test(commands),
                                       cmocka_unit_test(files), cmocka_unit_test(large_parts),
                                       cmocka_unit_test(refused_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
