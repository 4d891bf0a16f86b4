/* The optimizer against an oracle in double and against torch, diverged steps, schedules. */
#include <math.h>

#include "data/checkpoints/checkpoint.h"
#include "kernels/optimizer.h"
#include "tests/guarded_device.h"
#include "tests/matrix.h"
#include "tests/test.h"

/* A table of alternating weights and biases, so that runs with and without decay alternate. */
typedef struct Model {
    Params params;
    Tensor slots[6];
} Model;

enum { MODEL_VALUES = 11 * 13 + 13 + 7 * 3 + 7 + 65 + 64 * 2 };

static void model_make(Model *m, Device *device, Dtype compute, uint64_t seed) {
    static const struct {
        ParamRole role;
        int64_t rows, columns;
    } kinds[] = {{PARAM_MATRIX, 11, 13}, {PARAM_VECTOR, 13, 0}, {PARAM_TABLE, 7, 3},
                 {PARAM_VECTOR, 7, 0},   {PARAM_VECTOR, 65, 0}, {PARAM_MATRIX, 64, 2}};
    Error err;
    params_init(&m->params, device);
    for (int i = 0; i < 6; i++) {
        ParamSpec spec = {.slot = &m->slots[i],
                          .role = kinds[i].role,
                          .init = INIT_NORMAL,
                          .init_std = 0.5f,
                          .ndim = kinds[i].columns ? 2 : 1,
                          .shape = {kinds[i].rows, kinds[i].columns}};
        assert_ok(params_declare(&m->params, &spec, &err, "p.%d", i), &err);
    }
    assert_ok(params_allocate(&m->params, DTYPE_F32, &err), &err);
    params_initialise(&m->params, seed);
    assert_ok(params_train(&m->params, compute, &err), &err);
}

static void read_flat(const Params *p, float *to, const void *table) {
    Error err;
    assert_ok(device_download(p->device, to, table, (size_t)p->flat * sizeof *to, &err), &err);
}

/* Random gradients everywhere but in the gaps, as after a backward pass. */
static void fill_gradients(const Params *p, float *host, TestRandom *random, double size) {
    Error err;
    memset(host, 0, (size_t)p->flat * sizeof *host);
    for (int i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        int64_t n = tensor_count(q->value);
        for (int64_t j = 0; j < n; j++)
            host[q->offset + j] = (float)(size * test_random_normal(random));
    }
    assert_ok(device_upload(p->device, p->grad, host, (size_t)p->flat * sizeof *host, &err), &err);
}

/* The definition (Loshchilov, Hutter, 2019), in double, value by value. */
typedef struct Oracle {
    double w[1024], m[1024], v[1024];
} Oracle;

static void oracle_step(Oracle *o, const Params *p, const float *g, const OptimizerConfig *c,
                        double rate, double scale, int step) {
    for (int i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        double decay = q->role == PARAM_VECTOR && !c->decay_vectors ? 0 : c->weight_decay;
        for (int64_t j = q->offset; j < q->offset + tensor_count(q->value); j++) {
            double gradient = g[j] * scale;
            o->m[j] = c->beta1 * o->m[j] + (1 - (double)c->beta1) * gradient;
            o->v[j] = c->beta2 * o->v[j] + (1 - (double)c->beta2) * gradient * gradient;
            double m = o->m[j] / (1 - pow(c->beta1, step)), v = o->v[j] / (1 - pow(c->beta2, step));
            o->w[j] -= rate * (m / (sqrt(v) + c->eps) + decay * o->w[j]);
        }
    }
}

static void assert_near(const float *a, const double *b, int64_t n, double limit,
                        const char *what) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    double error = sqrt(difference / size);
    if (!(error <= limit))
        fail_msg("%s: relative error %g, at most %g allowed", what, error, limit);
}

static void check_working(const Params *p) {
    float masters[1024];
    uint16_t working[1024];
    Error err;
    read_flat(p, masters, p->master);
    assert_ok(device_download(p->device, working, p->working, (size_t)p->flat * 2, &err), &err);
    for (int64_t i = 0; i < p->flat; i++) assert_int_equal(working[i], f32_to_bf16(masters[i]));
}

static void assert_zero(const Params *p, const void *table) {
    float values[1024];
    read_flat(p, values, table);
    for (int64_t i = 0; i < p->flat; i++) assert_true(values[i] == 0);
}

static void check_steps(Device *device, Dtype compute, const OptimizerConfig *config) {
    const double part_rates[2] = {1, 0.25};
    static const double sizes[] = {1e-3, 3, 0.02, 50, 1e-5, 1, 0.1};
    Model models[2];
    Oracle *oracles = calloc(2, sizeof *oracles);
    Optimizer optimizer;
    Error err;
    TestRandom random = {(uint64_t)compute + 77};
    assert_ok(optimizer_open(&optimizer, device, config, &err), &err);
    float host[2][1024];
    for (int i = 0; i < 2; i++) {
        model_make(&models[i], device, compute, 100 + (uint64_t)i);
        size_t before = guarded_bytes();
        assert_ok(optimizer_add(&optimizer, &models[i].params, (float)part_rates[i], &err), &err);
        if (guarded_owns(models[i].params.master))
            assert_int_equal(guarded_bytes() - before, optimizer_bytes(&models[i].params));
        assert_zero(&models[i].params, optimizer.parts[i].m.data);
        read_flat(&models[i].params, host[0], models[i].params.master);
        for (int64_t j = 0; j < models[i].params.flat; j++) oracles[i].w[j] = host[0][j];
    }
    for (int step = 1; step <= 7; step++) {
        double want = 0, norm, rate = 1e-2 / step;
        for (int i = 0; i < 2; i++) {
            fill_gradients(&models[i].params, host[i], &random, sizes[step - 1]);
            for (int64_t j = 0; j < models[i].params.flat; j++)
                want += (double)host[i][j] * host[i][j];
        }
        want = sqrt(want);
        assert_ok(optimizer_step(&optimizer, rate, &norm, &err), &err);
        assert_true(fabs(norm - want) <= 1e-12 * want);
        double scale = config->clip > 0 && want > config->clip ? config->clip / (want + 1e-6) : 1;
        for (int i = 0; i < 2; i++) {
            const Params *p = &models[i].params;
            oracle_step(&oracles[i], p, host[i], config, rate * part_rates[i], scale, step);
            float values[1024];
            read_flat(p, values, p->master);
            assert_near(values, oracles[i].w, p->flat, 3e-7, "weights");
            read_flat(p, values, optimizer.parts[i].m.data);
            assert_near(values, oracles[i].m, p->flat, 1e-6, "first moments");
            read_flat(p, values, optimizer.parts[i].v.data);
            assert_near(values, oracles[i].v, p->flat, 1e-6, "second moments");
            assert_zero(p, p->grad);
            if (compute == DTYPE_BF16) check_working(p);
        }
        assert_int_equal(optimizer.step, step);
    }
    optimizer_close(&optimizer);
    for (int i = 0; i < 2; i++) params_free(&models[i].params);
    free(oracles);
}

static Device *device_fresh(void) {
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    return device;
}

static const OptimizerConfig plain = {
    .beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-6f, .weight_decay = 0.1f, .clip = 1};

static void test_steps(void **state) {
    (void)state;
    OptimizerConfig config = plain;
    Device *device = device_fresh();
    check_steps(device, DTYPE_F32, &config);
    config.decay_vectors = true;
    check_steps(device, DTYPE_F32, &config);
    config.clip = 0, config.weight_decay = 0;
    check_steps(device, DTYPE_F32, &config);
    device_close(device);
    device = guarded_open();
    check_steps(device, DTYPE_BF16, &plain);
    guarded_close(device);
}

/* A non-finite gradient: nothing changes but the gradients, which are zeroed, in the other part
 * too. The next step is as if this one had not happened. */
static void test_diverged(void **state) {
    (void)state;
    Device *device = guarded_open();
    Model models[2];
    Optimizer optimizer;
    Error err;
    TestRandom random = {3};
    static float before[2][3][1024], after[1024], host[1024];
    assert_ok(optimizer_open(&optimizer, device, &plain, &err), &err);
    for (int i = 0; i < 2; i++) {
        model_make(&models[i], device, DTYPE_BF16, 1);
        assert_ok(optimizer_add(&optimizer, &models[i].params, 1, &err), &err);
        fill_gradients(&models[i].params, host, &random, 1);
    }
    double norm;
    assert_ok(optimizer_step(&optimizer, 0.1, &norm, &err), &err);
    for (int i = 0; i < 2; i++) {
        read_flat(&models[i].params, before[i][0], models[i].params.master);
        read_flat(&models[i].params, before[i][1], optimizer.parts[i].m.data);
        read_flat(&models[i].params, before[i][2], optimizer.parts[i].v.data);
    }
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 2; i++) fill_gradients(&models[i].params, host, &random, 1);
        float *at = models[1].params.grad + models[1].params.items[3].offset + 2;
        assert_ok(device_upload(device, at, &bad[k], sizeof *bad, &err), &err);
        norm = 0;
        assert_ok(optimizer_step(&optimizer, 0.1, &norm, &err), &err);
        assert_true(k == 0 ? isnan(norm) : isinf(norm));
        assert_int_equal(optimizer.step, 1);
        for (int i = 0; i < 2; i++) {
            const Params *p = &models[i].params;
            size_t bytes = (size_t)p->flat * sizeof(float);
            read_flat(p, after, p->master);
            assert_memory_equal(after, before[i][0], bytes);
            read_flat(p, after, optimizer.parts[i].m.data);
            assert_memory_equal(after, before[i][1], bytes);
            read_flat(p, after, optimizer.parts[i].v.data);
            assert_memory_equal(after, before[i][2], bytes);
            assert_zero(p, p->grad);
            check_working(p);
        }
    }
    optimizer_close(&optimizer);
    for (int i = 0; i < 2; i++) params_free(&models[i].params);
    guarded_close(device);
}

/* ---- Torch's values. ---- */

static const char *const golden_names[] = {"one.weight", "one.bias", "two.weight", "two.bias"};

static Tensor golden(const Checkpoint *c, const char *stem, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", stem, name);
    const CheckpointTensor *t = checkpoint_find(c, full);
    if (!t) fail_msg("no tensor %s", full);
    return t->value;
}

static void check_golden(const Checkpoint *c, Device *device, bool all) {
    Params params[2];
    Tensor slots[4];
    Optimizer optimizer;
    OptimizerConfig config = plain;
    config.decay_vectors = all;
    Error err;
    assert_ok(optimizer_open(&optimizer, device, &config, &err), &err);
    for (int i = 0; i < 2; i++) {
        params_init(&params[i], device);
        for (int k = 2 * i; k < 2 * i + 2; k++) {
            Tensor start = golden(c, "start", golden_names[k]);
            ParamSpec spec = {.slot = &slots[k],
                              .role = start.ndim == 2 ? PARAM_MATRIX : PARAM_VECTOR,
                              .ndim = start.ndim,
                              .shape = {start.shape[0], start.shape[1]}};
            assert_ok(params_declare(&params[i], &spec, &err, "%s", golden_names[k]), &err);
            assert_ok(params_set(params_find(&params[i], golden_names[k]), start, &err), &err);
        }
        assert_ok(params_train(&params[i], DTYPE_F32, &err), &err);
        assert_ok(optimizer_add(&optimizer, &params[i], i ? 0.25f : 1, &err), &err);
    }
    const double *rates = checkpoint_find(c, "rates")->value.data;
    const float *norms = checkpoint_find(c, "norms")->value.data;
    for (int step = 0; step < 10; step++) {
        for (int k = 0; k < 4; k++) {
            const float *g = golden(c, "grad", golden_names[k]).data;
            int64_t n = tensor_count(slots[k]);
            assert_ok(device_upload(device, slots[k].grad, g + step * n, (size_t)n * 4, &err),
                      &err);
        }
        double norm;
        assert_ok(optimizer_step(&optimizer, rates[step], &norm, &err), &err);
        assert_true(fabs(norm - norms[step]) <= 1e-6 * norm);
        for (int k = 0; k < 4; k++) {
            const float *want = golden(c, all ? "all" : "matrices", golden_names[k]).data;
            float values[128];
            int64_t n = tensor_count(slots[k]);
            assert_ok(params_fetch(&params[k / 2], params_find(&params[k / 2], golden_names[k]),
                                   values, DTYPE_F32, &err),
                      &err);
            assert_close(values, want + step * n, (size_t)n, 1e-6, golden_names[k]);
        }
    }
    optimizer_close(&optimizer);
    params_free(&params[0]), params_free(&params[1]);
}

static void test_golden(void **state) {
    (void)state;
    Checkpoint c;
    Error err;
    Device *device = device_fresh();
    assert_ok(checkpoint_open(&c, "tests/golden/optimizer/adamw.safetensors", NULL, &err), &err);
    check_golden(&c, device, true);
    check_golden(&c, device, false);
    checkpoint_close(&c);
    device_close(device);
}

static void test_refused(void **state) {
    (void)state;
    Device *device = guarded_open();
    Optimizer optimizer;
    Error err;
    OptimizerConfig config = plain;
    config.beta2 = 1;
    assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "beta2", "less than 1");
    config = plain, config.beta1 = NAN;
    assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "beta1", "nan");
    config = plain, config.eps = 0;
    assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "eps", "more than 0");
    config = plain, config.weight_decay = -1;
    assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "decay", "-1");
    config = plain, config.clip = NAN;
    assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "norm", "nan");

    Model model;
    assert_ok(optimizer_open(&optimizer, device, &plain, &err), &err);
    model_make(&model, device, DTYPE_F32, 1);
    assert_refused(optimizer_add(&optimizer, &model.params, -1, &err), &err, "rate", "-1");
    guarded_fail_after(1);
    assert_refused(optimizer_add(&optimizer, &model.params, 1, &err), &err, "out of memory",
                   "moments");
    guarded_fail_after(-1);
    params_free(&model.params);
    /* Tables without trainable parameters cost nothing and change nothing. */
    Params empty;
    params_init(&empty, device);
    for (int i = optimizer.part_count; i < OPTIMIZER_PARTS; i++)
        assert_ok(optimizer_add(&optimizer, &empty, 1, &err), &err);
    assert_refused(optimizer_add(&optimizer, &empty, 1, &err), &err, "more than 8");
    optimizer_close(&optimizer);
    assert_ok(optimizer_open(&optimizer, device, &plain, &err), &err);
    assert_ok(optimizer_add(&optimizer, &empty, 1, &err), &err);
    double norm = 1;
    assert_ok(optimizer_step(&optimizer, 1, &norm, &err), &err);
    assert_true(norm == 0);
    optimizer_close(&optimizer);
    guarded_close(device);
}

/* ---- Schedules. ---- */

static void check_rate(const Schedule *s, int64_t step, double want) {
    double rate = schedule_rate(s, step);
    if (!(fabs(rate - want) <= 1e-12 * s->rate))
        fail_msg("%s, step %lld: rate %.12g, expected %.12g", schedule_name(s->kind),
                 (long long)step, rate, want);
}

static void test_schedules(void **state) {
    (void)state;
    Schedule s = {SCHEDULE_CONSTANT, 0.5, 4, 12};
    for (int kind = SCHEDULE_CONSTANT; kind <= SCHEDULE_LINEAR; kind++) {
        s.kind = (ScheduleKind)kind;
        check_rate(&s, 1, 0.125), check_rate(&s, 2, 0.25);
        check_rate(&s, 3, 0.375), check_rate(&s, 4, 0.5);
    }
    s.kind = SCHEDULE_CONSTANT;
    check_rate(&s, 5, 0.5), check_rate(&s, 12, 0.5), check_rate(&s, 1000, 0.5);
    s.kind = SCHEDULE_INVERSE_SQRT;
    check_rate(&s, 5, 0.5 * sqrt(0.8)), check_rate(&s, 16, 0.25), check_rate(&s, 400, 0.05);
    s.kind = SCHEDULE_COSINE; /* eight steps after the warmup: from p = 0 to 7/8 */
    check_rate(&s, 5, 0.5), check_rate(&s, 7, 0.25 * (1 + sqrt(0.5))), check_rate(&s, 9, 0.25);
    check_rate(&s, 12, 0.25 * (1 + cos(7 * acos(-1) / 8))), check_rate(&s, 13, 0);
    check_rate(&s, 99, 0);
    s.kind = SCHEDULE_LINEAR;
    check_rate(&s, 5, 0.5), check_rate(&s, 6, 0.4375), check_rate(&s, 12, 0.0625);
    check_rate(&s, 13, 0), check_rate(&s, 99, 0);

    s.kind = SCHEDULE_WSD, s.decay = 4; /* from step 9 on: p = 0 to 3/4 */
    check_rate(&s, 2, 0.25), check_rate(&s, 5, 0.5), check_rate(&s, 8, 0.5);
    check_rate(&s, 9, 0.5), check_rate(&s, 10, 0.375), check_rate(&s, 12, 0.125);
    check_rate(&s, 13, 0);
    s.decay = 100; /* at most what is after the warmup: as linear */
    check_rate(&s, 4, 0.5), check_rate(&s, 5, 0.5), check_rate(&s, 6, 0.4375);
    s.decay = 0;
    check_rate(&s, 12, 0.5);

    s.warmup = 0;
    s.kind = SCHEDULE_INVERSE_SQRT;
    check_rate(&s, 1, 0.5), check_rate(&s, 4, 0.25);
    s.kind = SCHEDULE_COSINE;
    check_rate(&s, 1, 0.5), check_rate(&s, 7, 0.25);
    /* All steps are warmup: the end of a schedule that never began. */
    s.warmup = s.steps = 3;
    check_rate(&s, 3, 0.5), check_rate(&s, 4, 0.5), check_rate(&s, 5, 0);

    assert_string_equal(schedule_name(SCHEDULE_CONSTANT), "constant");
    assert_string_equal(schedule_name(SCHEDULE_INVERSE_SQRT), "inverse-sqrt");
    assert_string_equal(schedule_name(SCHEDULE_COSINE), "cosine");
    assert_string_equal(schedule_name(SCHEDULE_LINEAR), "linear");
    assert_string_equal(schedule_name(SCHEDULE_WSD), "wsd");
    assert_string_equal(schedule_name((ScheduleKind)99), "unknown");
}

/* Without masters: 1,000 updates, each a sixteenth of what bf16 resolves, are not lost; vectors are
 * f32, and memory is what is predicted. Two tables, and two runs, are rounded alike only where they
 * should be. */
static void test_masterless(void **state) {
    (void)state;
    enum { SIZE = 120, STEPS = 1000 };
    Error err;
    Device *device = guarded_open();
    if (!device_has_bf16(device)) {
        device_close(device);
        print_message("no bf16 matmuls here\n");
        skip();
    }
    static uint16_t found[4][SIZE * SIZE];
    for (int run = 0; run < 3; run++) {
        const OptimizerConfig config = {.beta1 = 0.9f,
                                        .beta2 = 0.99f,
                                        .eps = 1e-8f,
                                        .masters = MASTERS_NONE,
                                        .seed = run == 2 ? 9 : 8};
        Params params[2];
        Tensor slots[2][2] = {{{0}}};
        Optimizer optimizer;
        assert_ok(optimizer_open(&optimizer, device, &config, &err), &err);
        for (int k = 0; k < 2; k++) {
            Params *p = &params[k];
            params_init(p, device);
            p->masterless = true;
            const ParamSpec vector = {.slot = &slots[k][0],
                                      .role = PARAM_VECTOR,
                                      .init = INIT_ONE,
                                      .ndim = 1,
                                      .shape = {65}};
            const ParamSpec matrix = {.slot = &slots[k][1],
                                      .role = PARAM_MATRIX,
                                      .init = INIT_ONE,
                                      .ndim = 2,
                                      .shape = {SIZE, SIZE}};
            assert_ok(params_declare(p, &vector, &err, "vector"), &err);
            assert_ok(params_declare(p, &matrix, &err, "matrix"), &err);
            assert_ok(params_allocate(p, DTYPE_F32, &err), &err);
            params_initialise(p, 1);
            const size_t before = guarded_bytes(), predicted = params_training_bytes(p, DTYPE_BF16);
            assert_ok(params_train(p, DTYPE_BF16, &err), &err);
            assert_int_equal(guarded_bytes() - before, predicted);
            assert_int_equal(predicted, 6 * p->flat + 4 * 128);
            assert_int_equal(params_training_bytes(p, DTYPE_BF16), predicted);
            assert_ok(optimizer_add(&optimizer, p, 1, &err), &err);
        }
        float *gradients = malloc((size_t)params[0].flat * sizeof *gradients);
        for (int64_t i = 0; i < params[0].flat; i++)
            gradients[i] = i < 65 || (i >= 128 && i < 128 + SIZE * SIZE) ? 1 : 0;
        for (int step = 0; step < STEPS; step++) {
            double norm;
            for (int k = 0; k < 2; k++)
                assert_ok(device_upload(device, params[k].grad, gradients,
                                        (size_t)params[k].flat * sizeof *gradients, &err),
                          &err);
            assert_ok(optimizer_step(&optimizer, 0x1p-12, &norm, &err), &err);
        }
        /* From 1 down by 1000 / 4096. */
        const double want = 1 - STEPS * 0x1p-12;
        for (int k = 0; k < 2; k++) {
            float vector[65], values[SIZE * SIZE];
            const Param *p = params_find(&params[k], "matrix");
            double sum = 0;
            uint16_t *bits = found[run ? run + 1 : k];
            assert_ok(params_fetch(&params[k], p, values, DTYPE_F32, &err), &err);
            if (run == 0 || k == 0)
                assert_ok(params_fetch(&params[k], p, bits, DTYPE_BF16, &err), &err);
            for (int i = 0; i < SIZE * SIZE; i++) sum += values[i];
            if (!(fabs(sum / (SIZE * SIZE) - want) < 1e-3))
                fail_msg("the mean is %g, expected %g", sum / (SIZE * SIZE), want);
            assert_ok(device_download(device, vector, slots[k][0].data, sizeof vector, &err), &err);
            for (int i = 0; i < 65; i++) assert_true(fabs(vector[i] - want) < 1e-4);
            assert_ok(params_store(&params[k], p, values, &err), &err);
            float again[SIZE * SIZE];
            assert_ok(params_fetch(&params[k], p, again, DTYPE_F32, &err), &err);
            assert_memory_equal(values, again, sizeof values);
        }
        free(gradients);
        optimizer_close(&optimizer);
        for (int k = 0; k < 2; k++) params_free(&params[k]);
    }
    assert_memory_not_equal(found[0], found[1], sizeof found[0]); /* another table */
    assert_memory_equal(found[0], found[2], sizeof found[0]);     /* the same run again */
    assert_memory_not_equal(found[0], found[3], sizeof found[0]); /* another seed */
    device_close(device);
    Optimizer muon;
    const OptimizerConfig config = {.beta1 = 0.9f,
                                    .beta2 = 0.9f,
                                    .eps = 1e-8f,
                                    .kind = OPTIMIZER_MUON,
                                    .masters = MASTERS_NONE};
    assert_refused(optimizer_open(&muon, NULL, &config, &err), &err, "master weights", "Muon");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masterless), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_diverged),   cmocka_unit_test(test_golden),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
