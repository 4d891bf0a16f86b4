/* AdamW's moments in 8 bits: the step against numpy (tests/reference/make_moments.py), the layout,
 * and an optimizer with them. */
#include "data/checkpoints/checkpoint.h"
#include "kernels/moments.h"
#include "kernels/optimizer.h"
#include "tests/guarded_device.h"
#include "tests/matrix.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 700, STEPS = 4, BLOCKS = 3 };

static const void *value_of(const Checkpoint *c, const char *name) {
    const CheckpointTensor *t = checkpoint_find(c, name);
    if (!t) fail_msg("%s lacks %s", c->path, name);
    return t->value.data;
}

typedef struct State {
    float p[N], maps[4 * MOMENT_BLOCK], scales[2][BLOCKS];
    uint8_t codes[2][N];
    uint16_t copy[N];
    Moments8 moments;
} State;

static void state_make(State *s) {
    memset(s, 0, sizeof *s);
    moments_maps(s->maps);
    s->moments = (Moments8){.m = tensor_1d(s->codes[0], DTYPE_U8, N),
                            .v = tensor_1d(s->codes[1], DTYPE_U8, N),
                            .m_scale = tensor_1d(s->scales[0], DTYPE_F32, BLOCKS),
                            .v_scale = tensor_1d(s->scales[1], DTYPE_F32, BLOCKS),
                            .maps = tensor_2d(s->maps, DTYPE_F32, 4, MOMENT_BLOCK)};
}

static const AdamW settings = {.lr = 0.01f,
                               .beta1 = 0.9f,
                               .beta2 = 0.98f,
                               .eps = 1e-8f,
                               .weight_decay = 0.1f,
                               .grad_scale = 0.5f,
                               .step = 1};

/* To the bit: each operation is one of f32, in one order. */
static void test_step(void **state) {
    Error err;
    Checkpoint c;
    State *s = malloc(sizeof *s);
    assert_ok(checkpoint_open(&c, "tests/golden/optimizer/moments8.safetensors", NULL, &err), &err);
    state_make(s);
    memcpy(s->p, value_of(&c, "p0"), sizeof s->p);
    const float *maps = value_of(&c, "maps"), *g = value_of(&c, "g");
    for (int i = 0; i < 2; i++)
        assert_memory_equal(s->maps + 2 * i * MOMENT_BLOCK, maps + i * MOMENT_BLOCK,
                            MOMENT_BLOCK * sizeof(float));
    AdamW a = settings;
    for (; a.step <= STEPS; a.step++) {
        const int at = (int)a.step - 1;
        const Tensor gradients = tensor_1d((float *)(uintptr_t)(g + at * N), DTYPE_F32, N);
        assert_ok(adamw8_step(*state, tensor_1d(s->p, DTYPE_F32, N),
                              tensor_1d(s->copy, DTYPE_BF16, N), &s->moments, gradients, &a, &err),
                  &err);
        assert_memory_equal(s->codes[0], (const uint8_t *)value_of(&c, "m") + at * N, N);
        assert_memory_equal(s->codes[1], (const uint8_t *)value_of(&c, "v") + at * N, N);
        assert_memory_equal(s->scales[0], (const float *)value_of(&c, "m.scale") + at * BLOCKS,
                            sizeof s->scales[0]);
        assert_memory_equal(s->scales[1], (const float *)value_of(&c, "v.scale") + at * BLOCKS,
                            sizeof s->scales[1]);
        assert_memory_equal(s->p, (const float *)value_of(&c, "p") + at * N, sizeof s->p);
        uint16_t copy[N];
        values_convert(copy, DTYPE_BF16, s->p, DTYPE_F32, N);
        assert_memory_equal(copy, s->copy, sizeof copy);
    }
    checkpoint_close(&c);
    free(s);
}

static void test_refused(void **state) {
    Error err;
    State *s = malloc(sizeof *s);
    const Tensor none = {0};
    state_make(s);
    const Tensor p = tensor_1d(s->p, DTYPE_F32, N);
    const Moments8 right = s->moments;
    assert_ok(adamw8_step(*state, p, none, &s->moments, p, &settings, &err), &err);
    assert_refused(adamw8_step(*state, p, none, NULL, p, &settings, &err), &err, "adamw8_step",
                   "moments are missing");
    s->moments.m.shape[0] = N - 1;
    assert_refused(adamw8_step(*state, p, none, &s->moments, p, &settings, &err), &err, "m is",
                   "[699]", "[700]");
    s->moments = right, s->moments.v.dtype = DTYPE_F32;
    assert_refused(adamw8_step(*state, p, none, &s->moments, p, &settings, &err), &err, "v is f32",
                   "u8");
    s->moments = right, s->moments.v_scale.shape[0] = BLOCKS + 1;
    assert_refused(adamw8_step(*state, p, none, &s->moments, p, &settings, &err), &err, "v_scale");
    s->moments = right;
    AdamW wrong = settings;
    wrong.step = 0;
    assert_refused(adamw8_step(*state, p, none, &s->moments, p, &wrong, &err), &err, "step is 0");
    free(s);
}

/* ---- An optimizer. ---- */

/* A large matrix, a small one, an embedding, a vocabulary and a vector. */
typedef struct Trained {
    Params params;
    Tensor slots[6];
    Optimizer optimizer;
} Trained;

enum { LARGE = 67 * 70 };

static void trained_make(Trained *t, Device *device, MomentKind moments) {
    Error err;
    const ParamSpec specs[] = {
        {.slot = &t->slots[0], .role = PARAM_VECTOR, .ndim = 1, .shape = {9}},
        {.slot = &t->slots[1], .role = PARAM_MATRIX, .ndim = 2, .shape = {67, 70}},
        {.slot = &t->slots[2], .role = PARAM_MATRIX, .ndim = 2, .shape = {5, 7}},
        {.slot = &t->slots[3], .role = PARAM_TABLE, .ndim = 2, .shape = {80, 70}},
        {.slot = &t->slots[4],
         .table_slot = &t->slots[5],
         .role = PARAM_VOCABULARY,
         .ndim = 2,
         .shape = {90, 70}},
        {.slot = NULL, .role = PARAM_MATRIX, .ndim = 2, .shape = {64, 70}, .joined = true}};
    params_init(&t->params, device);
    for (int i = 0; i < 5; i++) {
        ParamSpec spec = specs[i];
        spec.init = INIT_NORMAL, spec.init_std = 0.1f;
        assert_ok(params_declare(&t->params, &spec, &err, "p%d", i), &err);
        if (i != 1) continue;
        spec = specs[5]; /* joined with the large matrix */
        spec.init = INIT_NORMAL, spec.init_std = 0.1f;
        assert_ok(params_declare(&t->params, &spec, &err, "joined"), &err);
    }
    assert_ok(params_allocate(&t->params, DTYPE_F32, &err), &err);
    params_initialise(&t->params, 3);
    const size_t predicted = moments_bytes(&t->params);
    assert_ok(params_train(&t->params, DTYPE_F32, &err), &err);
    assert_int_equal(moments_bytes(&t->params), predicted);
    const OptimizerConfig config = {.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-8f,
                                    .weight_decay = 0.1f,
                                    .clip = 1,
                                    .moments = moments};
    assert_ok(optimizer_open(&t->optimizer, device, &config, &err), &err);
    const size_t before = guarded_bytes();
    assert_ok(optimizer_add(&t->optimizer, &t->params, 1, &err), &err);
    if (moments == MOMENTS_8BIT) assert_int_equal(guarded_bytes() - before, predicted);
}

static void trained_close(Trained *t) {
    optimizer_close(&t->optimizer);
    params_free(&t->params);
}

static void set_gradients(Trained *t, uint64_t seed) {
    Error err;
    TestRandom random = {seed};
    TestMatrix g = matrix_random(&random, DTYPE_F32, 1, t->params.flat, 0, 0.1, 0);
    for (int i = 0; i < t->params.count; i++) {
        const Param *p = &t->params.items[i];
        const Tensor value = tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape);
        assert_ok(device_upload(t->params.device, t->params.grad + p->offset,
                                (float *)g.t.data + p->offset, tensor_bytes(value), &err),
                  &err);
    }
    matrix_free(&g);
}

/* What is kept in 32 bits is the same to the bit; the rest differs, and little. */
static void test_optimizer(void **state) {
    (void)state;
    Error err;
    Device *device = guarded_open();
    Trained wide, narrow;
    trained_make(&wide, device, MOMENTS_32BIT);
    trained_make(&narrow, device, MOMENTS_8BIT);
    const size_t saved = optimizer_bytes(&wide.params) - moments_bytes(&wide.params);
    const size_t matrices = LARGE + 64 * 70;
    assert_true(saved > 2 * 2.7 * (double)matrices && saved < 2 * 3 * matrices);
    for (int step = 0; step < 5; step++) {
        double norms[2];
        set_gradients(&wide, 5 + (uint64_t)step), set_gradients(&narrow, 5 + (uint64_t)step);
        assert_ok(optimizer_step(&wide.optimizer, 1e-2, &norms[0], &err), &err);
        assert_ok(optimizer_step(&narrow.optimizer, 1e-2, &norms[1], &err), &err);
        assert_true(norms[0] == norms[1] && norms[0] > 1);
    }
    for (int i = 0; i < wide.params.count; i++) {
        float a[90 * 70], b[90 * 70];
        const Param *p = &wide.params.items[i];
        const size_t n = (size_t)tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape));
        assert_ok(params_fetch(&wide.params, p, a, DTYPE_F32, &err), &err);
        assert_ok(params_fetch(&narrow.params, &narrow.params.items[i], b, DTYPE_F32, &err), &err);
        double most = 0;
        for (size_t k = 0; k < n; k++) most = fmax(most, fabs((double)a[k] - (double)b[k]));
        const bool bytes = !strcmp(p->name, "p1") || !strcmp(p->name, "joined");
        assert_int_equal(moments_narrow(p), bytes);
        if (bytes ? !(most > 0 && most < 2e-2) : most > 0)
            fail_msg("%s: weights differ by %g", p->name, most);
    }
    trained_close(&wide), trained_close(&narrow);
    device_close(device);
}

static void test_muon(void **state) {
    Error err;
    Optimizer o;
    const OptimizerConfig config = {.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-8f,
                                    .kind = OPTIMIZER_MUON,
                                    .moments = MOMENTS_8BIT};
    assert_refused(optimizer_open(&o, *state, &config, &err), &err, "8 bits", "Muon");
    optimizer_close(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_step), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_optimizer),
                                       cmocka_unit_test(test_muon)};
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
