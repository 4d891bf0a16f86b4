/* Muon: the iteration against its definition in double, what it is for (singular values near 1),
 * the update against an oracle and against torch, and its use in the optimizer. */
#include <math.h>

#include "data/checkpoints/checkpoint.h"
#include "kernels/backend.h"
#include "kernels/muon.h"
#include "kernels/optimizer.h"
#include "kernels/params_private.h"
#include "tests/guarded_device.h"
#include "tests/matrix.h"
#include "tests/test.h"

enum { MOST = 64 * 64 };

/* ---- Oracles in double. ---- */

/* x = h(x), by the definition, with x x^T for any shape. */
static void oracle_orthogonalize(double *x, int n, int k) {
    double *g = malloc((size_t)(2 * n * n + n * k) * sizeof *g), *p = g + n * n, *y = p + n * n;
    for (int step = 0; step < 5; step++) {
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int l = 0; l < k; l++) sum += x[i * k + l] * x[j * k + l];
                g[i * n + j] = sum;
            }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int l = 0; l < n; l++) sum += g[i * n + l] * g[l * n + j];
                p[i * n + j] = -4.7750 * g[i * n + j] + 2.0315 * sum + (i == j ? 3.4445 : 0);
            }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < k; j++) {
                double sum = 0;
                for (int l = 0; l < n; l++) sum += p[i * n + l] * x[l * k + j];
                y[i * k + j] = sum;
            }
        memcpy(x, y, (size_t)(n * k) * sizeof *x);
    }
    free(g);
}

static double length_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* One update as torch.optim.Muon writes it. */
static void oracle_step(double *w, double *m, const float *g, int n, int k, const MuonStep *s) {
    double u[MOST], longer = n > k ? n : k;
    for (int i = 0; i < n * k; i++) {
        double gradient = (double)g[i] * s->grad_scale;
        m[i] += (1 - (double)s->momentum) * (gradient - m[i]);
        u[i] = gradient + (double)s->momentum * (m[i] - gradient);
    }
    double length = fmax(length_of(u, n * k), 1e-7);
    for (int i = 0; i < n * k; i++) u[i] /= length;
    oracle_orthogonalize(u, n, k);
    for (int i = 0; i < n * k; i++) {
        w[i] *= 1 - (double)s->rate * s->weight_decay;
        w[i] -= s->rate * 0.2 * sqrt(longer) * u[i];
    }
}

/* ||a - b|| / ||b||, where both are given as distances from `origin` (or NULL). */
static void assert_near(const float *a, const double *b, const float *origin, int64_t n,
                        double limit, const char *what) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double from = origin ? origin[i] : 0;
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += (b[i] - from) * (b[i] - from);
    }
    double error = sqrt(difference / size);
    if (!(error <= limit))
        fail_msg("%s: relative error %g, at most %g allowed", what, error, limit);
}

/* ---- Devices: in bf16 if supported, and in f32. ---- */

static bool processor_has_bf16(void) {
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    bool has = device_has_bf16(device);
    device_close(device);
    return has;
}

/* NULL if the processor lacks it. */
static Device *device_fresh(bool bf16) {
    if (bf16 && !processor_has_bf16()) return NULL;
    Device *device = guarded_open();
    device->bf16 = bf16;
    assert_int_equal(muon_compute(device), bf16 ? DTYPE_BF16 : DTYPE_F32);
    return device;
}

/* f32 matmuls are accurate to f32; the iteration amplifies a small singular value's error, at most
 * 485 times in five steps. In bf16 rounding errors are 2^-9 of the largest values. */
static double limit_of(bool bf16) {
    return bf16 ? 0.06 : 5e-5;
}

static Tensor upload(Arena *arena, const float *values, int n, int k) {
    Tensor t;
    Error err;
    assert_ok(arena_take(arena, &t, DTYPE_F32, n, k, &err), &err);
    assert_ok(device_upload(arena->device, t.data, values, tensor_bytes(t), &err), &err);
    return t;
}

static void download(Arena *arena, Tensor t, void *to) {
    Error err;
    assert_ok(device_download(arena->device, to, t.data, tensor_bytes(t), &err), &err);
}

static const int shapes[][2] = {{33, 57}, {57, 33}, {40, 40}, {1, 7}, {9, 1}, {1, 1}, {64, 3}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_iteration(bool bf16) {
    Device *device = device_fresh(bf16);
    if (!device) return;
    TestRandom random = {41 + bf16};
    Arena arena;
    Error err;
    for (int c = 0; c < SHAPES; c++) {
        int n = shapes[c][0], k = shapes[c][1];
        float x[MOST], got[MOST];
        double want[MOST];
        for (int i = 0; i < n * k; i++) want[i] = test_random_normal(&random);
        double length = length_of(want, n * k);
        for (int i = 0; i < n * k; i++) x[i] = (float)(want[i] / length), want[i] = x[i];
        assert_ok(arena_open(&arena, device, muon_work_bytes(device, n, k), &err), &err);
        Tensor t = upload(&arena, x, n, k);
        size_t before = arena.used;
        assert_ok(muon_orthogonalize(&arena, t, &err), &err);
        assert_int_equal(arena.used, before);
        assert_int_equal(arena.peak, arena.size); /* exactly the predicted size */
        download(&arena, t, got);
        oracle_orthogonalize(want, n, k);
        assert_near(got, want, NULL, n * k, limit_of(bf16), "orthogonalize");
        arena_close(&arena);
    }
    guarded_close(device);
}

static void test_iteration(void **state) {
    (void)state;
    check_iteration(false), check_iteration(true);
}

/* ---- Singular values. ---- */

/* The eigenvalues of a symmetric matrix (Jacobi's rotations), on its diagonal afterwards. */
static void eigenvalues(double *a, int n) {
    for (int sweep = 0; sweep < 30; sweep++)
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                if (fabs(a[p * n + q]) < 1e-15) continue;
                double angle = 0.5 * atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]);
                double c = cos(angle), s = sin(angle);
                for (int i = 0; i < n; i++) {
                    double x = a[i * n + p], y = a[i * n + q];
                    a[i * n + p] = c * x - s * y, a[i * n + q] = s * x + c * y;
                }
                for (int i = 0; i < n; i++) {
                    double x = a[p * n + i], y = a[q * n + i];
                    a[p * n + i] = c * x - s * y, a[q * n + i] = s * x + c * y;
                }
            }
}

/* Makes the columns of x [n, k], k <= n, orthonormal (Gram and Schmidt, twice). */
static void orthonormal(double *x, int n, int k, TestRandom *random) {
    for (int i = 0; i < n * k; i++) x[i] = test_random_normal(random);
    for (int twice = 0; twice < 2; twice++)
        for (int j = 0; j < k; j++) {
            for (int before = 0; before < j; before++) {
                double dot = 0;
                for (int i = 0; i < n; i++) dot += x[i * k + j] * x[i * k + before];
                for (int i = 0; i < n; i++) x[i * k + j] -= dot * x[i * k + before];
            }
            double length = 0;
            for (int i = 0; i < n; i++) length += x[i * k + j] * x[i * k + j];
            for (int i = 0; i < n; i++) x[i * k + j] /= sqrt(length);
        }
}

/* For any singular values (1 to 60 here) the update is equally large in all directions. */
static void check_property(bool bf16, int n, int k) {
    Device *device = device_fresh(bf16);
    if (!device) return;
    TestRandom random = {77};
    Arena arena;
    Error err;
    const int r = n < k ? n : k;
    double left[MOST], right[MOST], gram[MOST] = {0};
    float x[MOST], m[MOST] = {0};
    orthonormal(left, n, r, &random), orthonormal(right, k, r, &random);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++) {
            double sum = 0;
            for (int l = 0; l < r; l++)
                sum += left[i * r + l] * right[j * r + l] * pow(60, (double)l / (r - 1));
            x[i * k + j] = (float)sum;
        }
    size_t bytes = muon_work_bytes(device, n, k) + 3 * arena_bytes(DTYPE_F32, n, k);
    assert_ok(arena_open(&arena, device, bytes, &err), &err);
    Tensor g = upload(&arena, x, n, k), momentum = upload(&arena, m, n, k);
    Tensor p = upload(&arena, m, n, k);
    MuonStep step = {.rate = 1, .momentum = 0.9f, .grad_scale = 1};
    assert_ok(muon_step(&arena, p, TENSOR_NONE, momentum, g, &step, &err), &err);
    download(&arena, p, x);
    const double factor = 0.2 * sqrt(n > k ? n : k);
    for (int a = 0; a < r; a++)
        for (int b = 0; b < r; b++)
            for (int l = 0; l < (n > k ? n : k); l++)
                gram[a * r + b] += n < k ? (double)x[a * k + l] * x[b * k + l]
                                         : (double)x[l * k + a] * x[l * k + b];
    eigenvalues(gram, r);
    for (int i = 0; i < r; i++) {
        double value = sqrt(gram[i * r + i]) / factor;
        if (!(value > 0.66 && value < 1.15))
            fail_msg("[%d, %d]: a singular value is %g, expected 0.68 to 1.14", n, k, value);
    }
    /* Against the gradient, as a descent must go. */
    for (int l = 0; l < r; l++) {
        double along = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < k; j++) along += left[i * r + l] * x[i * k + j] * right[j * r + l];
        assert_true(along / factor < -0.6);
    }
    arena_close(&arena);
    guarded_close(device);
}

static void test_property(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_property(bf16, 20, 45);
        check_property(bf16, 45, 20);
        check_property(bf16, 24, 24);
    }
}

/* ---- Updates. ---- */

static void check_steps(bool bf16, int n, int k) {
    Device *device = device_fresh(bf16);
    if (!device) return;
    TestRandom random = {5};
    Arena arena;
    Error err;
    float start[MOST], zero[MOST] = {0}, host[MOST];
    double w[MOST], m[MOST] = {0};
    uint16_t narrow[MOST];
    for (int i = 0; i < n * k; i++) w[i] = start[i] = (float)(0.3 * test_random_normal(&random));
    size_t bytes = muon_work_bytes(device, n, k) + 3 * arena_bytes(DTYPE_F32, n, k) +
                   arena_bytes(DTYPE_BF16, n, k);
    assert_ok(arena_open(&arena, device, bytes, &err), &err);
    Tensor p = upload(&arena, start, n, k), momentum = upload(&arena, zero, n, k);
    Tensor g = upload(&arena, zero, n, k), copy;
    assert_ok(arena_take(&arena, &copy, DTYPE_BF16, n, k, &err), &err);
    static const double sizes[] = {1, 1e-4, 30, 0.5, 0};
    for (int s = 0; s < 5; s++) {
        MuonStep step = {.rate = 0.02f * (float)(s + 1),
                         .momentum = 0.8f,
                         .weight_decay = s % 2 ? 0 : 0.3f,
                         .grad_scale = s == 2 ? 0.03f : 1};
        for (int i = 0; i < n * k; i++) host[i] = (float)(sizes[s] * test_random_normal(&random));
        assert_ok(device_upload(device, g.data, host, tensor_bytes(g), &err), &err);
        assert_ok(muon_step(&arena, p, copy, momentum, g, &step, &err), &err);
        oracle_step(w, m, host, n, k, &step);
        download(&arena, momentum, host);
        assert_near(host, m, NULL, n * k, 1e-6, "momentum");
        download(&arena, p, host);
        assert_near(host, w, start, n * k, limit_of(bf16), "change of the weights");
        download(&arena, copy, narrow);
        for (int i = 0; i < n * k; i++) assert_int_equal(narrow[i], f32_to_bf16(host[i]));
    }
    arena_close(&arena);
    guarded_close(device);
}

static void test_steps(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_steps(bf16, 17, 41);
        check_steps(bf16, 41, 17);
        check_steps(bf16, 23, 23);
    }
}

/* No gradient yet: nothing to make orthogonal, and nothing is made of it. The decay alone acts. */
static void test_zero(void **state) {
    (void)state;
    Device *device = device_fresh(false);
    Arena arena;
    Error err;
    float zero[15] = {0}, weights[15], after[15];
    for (int i = 0; i < 15; i++) weights[i] = (float)i - 7;
    size_t bytes = muon_work_bytes(device, 5, 3) + 3 * arena_bytes(DTYPE_F32, 5, 3);
    assert_ok(arena_open(&arena, device, bytes, &err), &err);
    Tensor p = upload(&arena, weights, 5, 3), m = upload(&arena, zero, 5, 3);
    Tensor g = upload(&arena, zero, 5, 3);
    MuonStep step = {.rate = 0.5f, .momentum = 0.9f, .weight_decay = 0.25f, .grad_scale = 1};
    assert_ok(muon_step(&arena, p, TENSOR_NONE, m, g, &step, &err), &err);
    download(&arena, p, after);
    for (int i = 0; i < 15; i++) assert_true(after[i] == weights[i] * 0.875f);
    download(&arena, m, after);
    for (int i = 0; i < 15; i++) assert_true(after[i] == 0);
    arena_close(&arena);
    /* An arena that is too small says so. */
    assert_ok(arena_open(&arena, device, muon_work_bytes(device, 5, 3) - 256, &err), &err);
    Tensor t = tensor_2d(arena.block, DTYPE_F32, 5, 3);
    assert_refused(muon_step(&arena, t, TENSOR_NONE, t, t, &step, &err), &err, "arena");
    arena_close(&arena);
    guarded_close(device);
}

/* torch's own iteration is in bf16, with other roundings than ours: it is as far from the oracle as
 * from us. */
static void check_torch(bool bf16) {
    Device *device = device_fresh(bf16);
    if (!device) return;
    Checkpoint c;
    Error err;
    Arena arena;
    static const char *const names[] = {"tall", "wide", "square"};
    assert_ok(checkpoint_open(&c, "tests/golden/optimizer/muon.safetensors", NULL, &err), &err);
    const double *rates = checkpoint_find(&c, "rates")->value.data;
    for (int i = 0; i < 3; i++) {
        char name[3][32];
        snprintf(name[0], sizeof name[0], "start.%s", names[i]);
        snprintf(name[1], sizeof name[1], "grad.%s", names[i]);
        snprintf(name[2], sizeof name[2], "after.%s", names[i]);
        Tensor start = checkpoint_find(&c, name[0])->value;
        const float *grads = checkpoint_find(&c, name[1])->value.data;
        const float *want = checkpoint_find(&c, name[2])->value.data;
        int n = (int)start.shape[0], k = (int)start.shape[1];
        float zero[MOST] = {0}, host[MOST];
        double wanted[MOST];
        size_t bytes = muon_work_bytes(device, n, k) + 3 * arena_bytes(DTYPE_F32, n, k);
        assert_ok(arena_open(&arena, device, bytes, &err), &err);
        Tensor p = upload(&arena, start.data, n, k), m = upload(&arena, zero, n, k);
        Tensor g = upload(&arena, zero, n, k);
        for (int s = 0; s < 4; s++) {
            MuonStep step = {(float)rates[s], 0.95f, 0.1f, 1};
            assert_ok(device_upload(device, g.data, grads + s * n * k, tensor_bytes(g), &err),
                      &err);
            assert_ok(muon_step(&arena, p, TENSOR_NONE, m, g, &step, &err), &err);
            download(&arena, p, host);
            for (int j = 0; j < n * k; j++) wanted[j] = want[s * n * k + j];
            assert_near(host, wanted, start.data, n * k, 0.04, names[i]);
        }
        arena_close(&arena);
    }
    checkpoint_close(&c);
    guarded_close(device);
}

static void test_torch(void **state) {
    (void)state;
    check_torch(false), check_torch(true);
}

/* ---- In the optimizer. ---- */

/* A hidden matrix, a joined group of two, a stack of three in one parameter, all among others. */
typedef struct Model {
    Params params;
    Tensor slots[8];
} Model;

static const struct {
    const char *name;
    ParamRole role;
    int64_t rows, columns;
    bool joined;
    int hidden;
} kinds[] = {{"table", PARAM_TABLE, 7, 5, false, 0},    {"first", PARAM_MATRIX, 6, 14, false, 1},
             {"first.b", PARAM_VECTOR, 6, 0, false, 0}, {"left", PARAM_MATRIX, 9, 9, false, 1},
             {"right", PARAM_MATRIX, 9, 9, true, 1},    {"qkv", PARAM_MATRIX, 15, 5, false, 3},
             {"class", PARAM_MATRIX, 5, 6, false, 0},   {"last.b", PARAM_VECTOR, 5, 0, false, 0}};
enum { KINDS = sizeof kinds / sizeof kinds[0], FLAT = 1024 };

static void model_make(Model *m, Device *device, Dtype compute) {
    Error err;
    params_init(&m->params, device);
    for (int i = 0; i < KINDS; i++) {
        ParamSpec spec = {.slot = &m->slots[i],
                          .role = kinds[i].role,
                          .init = INIT_NORMAL,
                          .init_std = 0.5f,
                          .joined = kinds[i].joined,
                          .ndim = kinds[i].columns ? 2 : 1,
                          .shape = {kinds[i].rows, kinds[i].columns}};
        int first = m->params.count;
        assert_ok(params_declare(&m->params, &spec, &err, "%s", kinds[i].name), &err);
        if (kinds[i].hidden) params_mark_hidden(&m->params, first);
        if (kinds[i].hidden > 1) m->params.items[i].hidden = kinds[i].hidden;
    }
    assert_ok(params_allocate(&m->params, DTYPE_F32, &err), &err);
    params_initialise(&m->params, 9);
    assert_ok(params_train(&m->params, compute, &err), &err);
    assert_in_range(m->params.flat, 1, FLAT);
}

static void flat_read(const Params *p, const void *table, void *to, size_t size) {
    Error err;
    assert_ok(device_download(p->device, to, table, (size_t)p->flat * size, &err), &err);
}

static const OptimizerConfig plain = {.beta1 = 0.9f,
                                      .beta2 = 0.98f,
                                      .eps = 1e-6f,
                                      .weight_decay = 0.1f,
                                      .clip = 1,
                                      .muon_momentum = 0.9f};

/* Three steps with Muon against three without: the parameters that are not hidden have the same
 * bits in both, the hidden ones follow the oracle, one small matrix after the other. */
static void check_optimizer(bool bf16) {
    Device *device = device_fresh(bf16);
    if (!device) return;
    Model models[2];
    Optimizer optimizers[2];
    Error err;
    TestRandom random = {12};
    OptimizerConfig config = plain;
    static float start[FLAT], got[2][3][FLAT], grad[FLAT];
    static double w[FLAT], m[FLAT];
    Dtype compute = bf16 ? DTYPE_BF16 : DTYPE_F32;
    for (int i = 0; i < 2; i++) {
        model_make(&models[i], device, compute);
        config.kind = i == 1 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
        Params *p = &models[i].params;
        size_t work = i ? muon_work_bytes(device, 9, 9) : 0, before = guarded_bytes();
        if (muon_work_bytes(device, 6, 14) > work && i) work = muon_work_bytes(device, 6, 14);
        assert_int_equal(optimizer_work_bytes(&config, p), work);
        assert_ok(optimizer_open(&optimizers[i], device, &config, &err), &err);
        assert_ok(optimizer_add(&optimizers[i], p, 0.5f, &err), &err);
        assert_int_equal(guarded_bytes() - before, optimizer_bytes(p) + work);
    }
    const Params *p = &models[1].params;
    flat_read(p, p->master, start, 4);
    for (int j = 0; j < FLAT; j++) w[j] = start[j], m[j] = 0;
    for (int s = 0; s < 3; s++) {
        double rate = 0.02 / (s + 1), norm = 0;
        memset(grad, 0, sizeof grad);
        for (int i = 0; i < p->count; i++)
            for (int64_t j = 0; j < param_elements(&p->items[i]); j++)
                grad[p->items[i].offset + j] = test_random_normal(&random);
        for (int i = 0; i < 2; i++) {
            const Params *q = &models[i].params;
            assert_ok(device_upload(device, q->grad, grad, (size_t)q->flat * 4, &err), &err);
            assert_ok(optimizer_step(&optimizers[i], rate, &norm, &err), &err);
            flat_read(q, q->master, got[i][0], 4);
            flat_read(q, optimizers[i].parts[0].m.data, got[i][1], 4);
            flat_read(q, optimizers[i].parts[0].v.data, got[i][2], 4);
        }
        MuonStep step = {(float)(0.5 * rate), config.muon_momentum, config.weight_decay,
                         (float)(1 / (norm + 1e-6))};
        for (int i = 0; i < p->count; i++) {
            const Param *item = &p->items[i];
            int64_t at = item->offset, n = param_elements(item);
            for (int table = 0; !kinds[i].hidden && table < 3; table++)
                assert_memory_equal(&got[0][table][at], &got[1][table][at], (size_t)n * 4);
            if (!kinds[i].hidden) continue;
            int rows = (int)kinds[i].rows / kinds[i].hidden, columns = (int)kinds[i].columns;
            for (int part = 0; part < kinds[i].hidden; part++) {
                int64_t here = at + part * rows * columns;
                oracle_step(w + here, m + here, grad + here, rows, columns, &step);
            }
            assert_near(&got[1][0][at], w + at, start + at, n, limit_of(bf16), item->name);
            assert_near(&got[1][1][at], m + at, NULL, n, 1e-6, item->name);
            for (int64_t j = 0; j < n; j++) assert_true(got[1][2][at + j] == 0);
        }
        /* Gradients are cleared, gaps and copies are what they should be. */
        flat_read(p, p->grad, got[0][0], 4);
        for (int64_t j = 0; j < p->flat; j++) assert_true(got[0][0][j] == 0);
        static uint16_t working[FLAT];
        if (bf16) flat_read(p, p->working, working, 2);
        for (int64_t j = 0; bf16 && j < p->flat; j++)
            assert_int_equal(working[j], f32_to_bf16(got[1][0][j]));
    }
    for (int i = 0; i < 2; i++) {
        optimizer_close(&optimizers[i]);
        params_free(&models[i].params);
    }
    guarded_close(device);
}

static void test_optimizer(void **state) {
    (void)state;
    check_optimizer(false), check_optimizer(true);
}

/* A diverged step moves nothing, and nothing is taken for matrices that are frozen. */
static void test_left_alone(void **state) {
    (void)state;
    Device *device = device_fresh(false);
    Model model;
    Optimizer optimizer;
    Error err;
    OptimizerConfig config = plain;
    static float before[FLAT], after[FLAT];
    double norm;
    config.kind = OPTIMIZER_MUON;
    model_make(&model, device, DTYPE_F32);
    const Params *p = &model.params;
    assert_ok(optimizer_open(&optimizer, device, &config, &err), &err);
    assert_ok(optimizer_add(&optimizer, &model.params, 1, &err), &err);
    flat_read(p, p->master, before, 4);
    float bad = NAN;
    assert_ok(device_upload(device, p->grad + p->items[1].offset, &bad, 4, &err), &err);
    assert_ok(optimizer_step(&optimizer, 0.1, &norm, &err), &err);
    assert_true(isnan(norm));
    flat_read(p, p->master, after, 4);
    assert_memory_equal(before, after, (size_t)p->flat * 4);
    flat_read(p, optimizer.parts[0].m.data, after, 4);
    for (int64_t j = 0; j < p->flat; j++) assert_true(after[j] == 0);
    optimizer_close(&optimizer);
    params_freeze(&model.params, true);
    assert_int_equal(optimizer_work_bytes(&config, p), 0);
    params_freeze(&model.params, false);
    assert_ok(optimizer_open(&optimizer, device, &config, &err), &err);
    guarded_fail_after(2);
    assert_refused(optimizer_add(&optimizer, &model.params, 1, &err), &err, "out of memory",
                   "workspace");
    guarded_fail_after(-1);
    optimizer_close(&optimizer);
    params_free(&model.params);
    const float wrong[] = {-0.1f, 1, NAN};
    for (int i = 0; i < 3; i++) {
        config.muon_momentum = wrong[i];
        assert_refused(optimizer_open(&optimizer, device, &config, &err), &err, "momentum");
    }
    config.kind = OPTIMIZER_ADAMW; /* it is not read then */
    assert_ok(optimizer_open(&optimizer, device, &config, &err), &err);
    guarded_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iteration),  cmocka_unit_test(test_property),
        cmocka_unit_test(test_steps),      cmocka_unit_test(test_zero),
        cmocka_unit_test(test_torch),      cmocka_unit_test(test_optimizer),
        cmocka_unit_test(test_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
