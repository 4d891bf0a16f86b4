/* The operations of a training step that are not a layer's own: gradients of matmuls, the loss
 * over the vocabulary, dropout, sums of squares. Each is compared with plain loops in double
 * precision; the loops of the gradients are compared with differences of the function itself. */
#include "tests/matrix.h"
#include "tests/parted.h"
#include "tests/test.h"

#include "kernels/moments.h"
#include "kernels/random.h"

#include <math.h>

enum { CHUNK = 4096 }; /* of a vocabulary, kernels/cpu/cpu.h; the tests hold for any other, too */

static const Tensor none; /* TENSOR_NONE */

static double limit_of(Dtype dtype) {
    return dtype == DTYPE_F32 ? 1e-5 : 1e-2;
}

/* ---- linear_backward ---- */

enum { WANT_DX = 1, WANT_DW = 2, WANT_DB = 4, WANT_ALL = 7 };

typedef struct LinearCase {
    int t, k, n;
    Dtype c, dx;
    bool slices, accumulate_dx;
    int want;
} LinearCase;

static void linear_case(Device *device, const LinearCase *c, TestRandom *random) {
    Error err;
    int64_t t = c->t, k = c->k, n = c->n;
    TestMatrix x = matrix_random(random, c->c, t, k, c->slices ? 5 : 0, 1, 0);
    TestMatrix w = matrix_random(random, c->c, n, k, c->slices ? 3 : 0, 1, 0);
    TestMatrix dy = matrix_random(random, c->c, t, n, c->slices ? 7 : 0, 1, 0.1);
    TestMatrix dx = matrix_random(random, c->dx, t, k, c->slices ? 2 : 0, 1, 0);
    TestMatrix dw = matrix_random(random, DTYPE_F32, n, k, 0, 1, 0);
    TestMatrix db = matrix_random(random, DTYPE_F32, 1, n, 0, 1, 0);
    double *xd = matrix_doubles(&x), *wd = matrix_doubles(&w), *dyd = matrix_doubles(&dy);
    double *dxd = matrix_doubles(&dx), *dwd = matrix_doubles(&dw), *dbd = matrix_doubles(&db);
    double *matmul = doubles(t * k);
    for (int64_t r = 0; r < t; r++)
        for (int64_t j = 0; j < n; j++) {
            double g = dyd[r * n + j];
            if (c->want & WANT_DB) dbd[j] += g;
            for (int64_t i = 0; i < k; i++) {
                matmul[r * k + i] += g * wd[j * k + i];
                if (c->want & WANT_DW) dwd[j * k + i] += g * xd[r * k + i];
            }
        }
    if (c->want & WANT_DX)
        for (int64_t i = 0; i < t * k; i++) dxd[i] = matmul[i] + (c->accumulate_dx ? dxd[i] : 0);
    /* Operands that the requested gradients do not need may be missing. */
    assert_ok(linear_backward(
                  device, c->want & WANT_DX ? dx.t : none, c->want & WANT_DW ? dw.t : none,
                  c->want & WANT_DB ? as_vector(&db) : none, dy.t, c->want & WANT_DW ? x.t : none,
                  c->want & WANT_DX ? w.t : none, c->accumulate_dx, &err),
              &err);
    char what[128];
    snprintf(what, sizeof what, "%d rows, %d to %d columns%s, want %d", c->t, c->k, c->n,
             c->slices ? ", slices" : "", c->want);
    matrix_assert_close(&dx, dxd, limit_of(c->dx == DTYPE_F32 ? c->c : c->dx), what);
    matrix_assert_close(&dw, dwd, 1e-5, what); /* bf16 operands, but exact products and f32 sums */
    matrix_assert_close(&db, dbd, 1e-6, what);
    matrix_free(&x), matrix_free(&w), matrix_free(&dy);
    matrix_free(&dx), matrix_free(&dw), matrix_free(&db);
    free(xd), free(wd), free(dyd), free(dxd), free(dwd), free(dbd), free(matmul);
}

static void linear_cases(void **state, Dtype dtype) {
    Device *device = device_of(state, dtype);
    TestRandom random = {11};
    static const int sizes[][3] = {{1, 7, 5},    {3, 1, 9},      {17, 33, 1},
                                   {65, 63, 35}, {300, 17, 129}, {300, 65, 33}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variant = 0; variant < 4; variant++)
            linear_case(device,
                        &(LinearCase){sizes[i][0], sizes[i][1], sizes[i][2], dtype,
                                      variant == 3 ? DTYPE_F32 : dtype, variant & 1, variant >= 2,
                                      WANT_ALL},
                        &random);
    for (int want = 0; want < WANT_ALL; want++)
        linear_case(device, &(LinearCase){17, 9, 13, dtype, dtype, false, false, want}, &random);
}

static void linear_f32(void **state) {
    linear_cases(state, DTYPE_F32);
}

static void linear_bf16(void **state) {
    linear_cases(state, DTYPE_BF16);
}

/* sum(dy * (x w^T + b)) in double. */
static double linear_function(const double *x, const double *w, const double *b, const double *dy,
                              int t, int k, int n) {
    double sum = 0;
    for (int r = 0; r < t; r++)
        for (int j = 0; j < n; j++) {
            double y = b[j];
            for (int i = 0; i < k; i++) y += x[r * k + i] * w[j * k + i];
            sum += dy[r * n + j] * y;
        }
    return sum;
}

/* Fails unless every value of `gradient` (f32) is the central difference of f by that value
 * of v. */
#define ASSERT_DERIVATIVE(gradient, v, count, h, limit, f)                                         \
    do {                                                                                           \
        for (int64_t at_ = 0; at_ < (count); at_++) {                                              \
            double keep_ = (v)[at_], high_, low_;                                                  \
            (v)[at_] = keep_ + (h), high_ = (f);                                                   \
            (v)[at_] = keep_ - (h), low_ = (f);                                                    \
            (v)[at_] = keep_;                                                                      \
            double want_ = (high_ - low_) / (2 * (h));                                             \
            double got_ = (gradient)[at_];                                                         \
            if (!(distance(got_, want_, 1e-2) <= (limit)))                                         \
                fail_msg("%s[%lld] is %.9g, by differences %.9g", #gradient, (long long)at_, got_, \
                         want_);                                                                   \
        }                                                                                          \
    } while (0)

static void linear_differences(void **state) {
    Device *device = *state;
    Error err;
    enum { T = 5, K = 7, N = 3 };
    TestRandom random = {12};
    TestMatrix x = matrix_random(&random, DTYPE_F32, T, K, 0, 1, 0);
    TestMatrix w = matrix_random(&random, DTYPE_F32, N, K, 0, 1, 0);
    TestMatrix dy = matrix_random(&random, DTYPE_F32, T, N, 0, 1, 0);
    TestMatrix dx = matrix_new(DTYPE_F32, T, K, 0);
    float dw[N * K] = {0}, db[N] = {0};
    assert_ok(linear_backward(device, dx.t, tensor_2d(dw, DTYPE_F32, N, K),
                              tensor_1d(db, DTYPE_F32, N), dy.t, x.t, w.t, false, &err),
              &err);
    double *xd = matrix_doubles(&x), *wd = matrix_doubles(&w), *dyd = matrix_doubles(&dy);
    double bd[N] = {0.1, 0.2, 0.3};
    const float *dxf = dx.t.data;
    ASSERT_DERIVATIVE(dxf, xd, T * K, 1e-4, 1e-5, linear_function(xd, wd, bd, dyd, T, K, N));
    ASSERT_DERIVATIVE(dw, wd, N * K, 1e-4, 1e-5, linear_function(xd, wd, bd, dyd, T, K, N));
    ASSERT_DERIVATIVE(db, bd, N, 1e-4, 1e-5, linear_function(xd, wd, bd, dyd, T, K, N));
    matrix_free(&x), matrix_free(&w), matrix_free(&dy), matrix_free(&dx);
    free(xd), free(wd), free(dyd);
}

static void linear_nan(void **state) {
    Device *device = *state;
    Error err;
    float dy[2 * 3] = {1, NAN, 2, 3, 4, 5}, x[2 * 2] = {1, 2, 3, 4}, w[3 * 2] = {1, 2, 3, 4, 5, 6};
    float dx[2 * 2] = {0}, dw[3 * 2] = {0}, db[3] = {0};
    assert_ok(linear_backward(device, tensor_2d(dx, DTYPE_F32, 2, 2),
                              tensor_2d(dw, DTYPE_F32, 3, 2), tensor_1d(db, DTYPE_F32, 3),
                              tensor_2d(dy, DTYPE_F32, 2, 3), tensor_2d(x, DTYPE_F32, 2, 2),
                              tensor_2d(w, DTYPE_F32, 3, 2), false, &err),
              &err);
    assert_true(isnan(dx[0]) && isnan(dx[1]) && !isnan(dx[2]));
    assert_true(isnan(dw[2]) && isnan(dw[3]) && !isnan(dw[0]) && !isnan(dw[4]));
    assert_true(isnan(db[1]) && db[0] == 4 && db[2] == 7);
}

/* ---- vocab_cross_entropy ---- */

/* The operands in double: x [rows, d], w [v, d], b [v]; `logits` holds a row. */
typedef struct Entropy {
    int64_t rows, d, v;
    double *x, *w, *b, *weight, *smooth, *logits;
    int32_t *target;
    double smoothing;
} Entropy;

/* The loss of a row by its definition; leaves the probabilities in logits. */
static double entropy_row(const Entropy *e, int64_t r) {
    double max = -INFINITY, sum = 0, mean = 0;
    for (int64_t j = 0; j < e->v; j++) {
        double y = e->b[j];
        for (int64_t i = 0; i < e->d; i++) y += e->x[r * e->d + i] * e->w[j * e->d + i];
        e->logits[j] = y;
        max = fmax(max, y);
    }
    for (int64_t j = 0; j < e->v; j++) sum += exp(e->logits[j] - max);
    for (int64_t j = 0; j < e->v; j++) mean += (log(sum) + max - e->logits[j]) / (double)e->v;
    double hard = log(sum) + max - e->logits[e->target[r]];
    for (int64_t j = 0; j < e->v; j++) e->logits[j] = exp(e->logits[j] - max) / sum;
    double even = e->smooth[r] == 0 ? 0 : e->smooth[r] * mean; /* which may be infinite */
    return e->weight[r] * ((1 - e->smoothing) * hard + even);
}

static double entropy_sum(const Entropy *e) {
    double sum = 0;
    for (int64_t r = 0; r < e->rows; r++) sum += entropy_row(e, r);
    return sum;
}

typedef struct EntropyCase {
    int rows, d, v;
    Dtype c;
    float smoothing;
    bool bias, zeros; /* zeros: every third row has weight 0 and NaN in x */
    int want;
    bool packed;
    int parts; /* rows of w in memory at a time; 0: all */
} EntropyCase;

static void entropy_case(Device *device, const EntropyCase *c, TestRandom *random) {
    Error err;
    int64_t rows = c->rows, d = c->d, v = c->v;
    TestMatrix x = matrix_random(random, c->c, rows, d, 0, 1, 0);
    TestMatrix w = matrix_random(random, c->c, v, d, 0, 1 / sqrt((double)d), 0);
    TestMatrix b = matrix_random(random, DTYPE_F32, 1, v, 0, 1, 0);
    TestMatrix weight = matrix_random(random, DTYPE_F32, 1, rows, 0, 0.3, 1);
    TestMatrix smooth = matrix_random(random, DTYPE_F32, 1, rows, 0, 0.02, 0.2);
    TestMatrix target = matrix_new(DTYPE_I32, 1, rows, 0);
    TestMatrix loss = matrix_new(DTYPE_F32, 1, rows, 0);
    TestMatrix dx = matrix_new(c->c, rows, d, 0);
    TestMatrix dw = matrix_random(random, DTYPE_F32, v, d, 0, 0.1 / sqrt((double)v), 0);
    TestMatrix db = matrix_random(random, DTYPE_F32, 1, v, 0, 0.1 / sqrt((double)v), 0);
    for (int64_t r = 0; r < rows; r++) {
        /* The ends of chunks come first. */
        const int64_t ends[] = {v - 1, 0, CHUNK - 1, CHUNK};
        int64_t id = r < 4 && ends[r] < v ? ends[r] : (int64_t)(test_random_uniform(random) * c->v);
        ((int32_t *)target.t.data)[r] = (int32_t)id;
    }
    Entropy e = {.rows = rows,
                 .d = d,
                 .v = v,
                 .x = matrix_doubles(&x),
                 .w = matrix_doubles(&w),
                 .b = c->bias ? matrix_doubles(&b) : doubles(v),
                 .smooth = c->smoothing > 0 ? matrix_doubles(&smooth) : doubles(rows),
                 .logits = doubles(v),
                 .target = target.t.data,
                 .smoothing = c->smoothing};
    if (c->zeros)
        for (int64_t r = 0; r < rows; r += 3) {
            matrix_set(&weight, 0, r, 0);
            matrix_set(&x, r, d / 2, NAN);
            ((int32_t *)target.t.data)[r] = -100;
        }
    e.weight = matrix_doubles(&weight);
    double *lossd = doubles(rows), *dxd = doubles(rows * d);
    double *dwd = matrix_doubles(&dw), *dbd = matrix_doubles(&db);
    for (int64_t r = 0; r < rows; r++) {
        if (e.weight[r] == 0) continue;
        lossd[r] = entropy_row(&e, r);
        for (int64_t j = 0; j < v; j++) {
            double g = e.weight[r] * ((1 - e.smoothing) * (e.logits[j] - (j == e.target[r])) +
                                      e.smooth[r] * (e.logits[j] - 1 / (double)v));
            if (c->want & WANT_DB) dbd[j] += g;
            for (int64_t i = 0; i < d; i++) {
                dxd[r * d + i] += g * e.w[j * d + i];
                if (c->want & WANT_DW) dwd[j * d + i] += g * e.x[r * d + i];
            }
        }
    }
    Tensor weights = w.t, dweights = c->want & WANT_DW ? dw.t : none;
    struct Packed *packed = NULL;
    Parted parted;
    if (c->parts) {
        parted_open(&parted, c->parts, w.t, dweights, c->want & WANT_DX);
        weights.data = parted.part.t.data, weights.parts = &parted.parts;
        if (dweights.data) dweights.data = parted.grad.t.data;
    }
    if (c->packed) {
        assert_ok(pack_weight(device, &packed, &w.t, 1, c->c, true, NULL, &err), &err);
        weights = TENSOR_NONE;
        weights.packed = packed;
    }
    assert_ok(vocab_cross_entropy(device, as_vector(&loss), c->want & WANT_DX ? dx.t : none,
                                  dweights, c->want & WANT_DB ? as_vector(&db) : none, x.t, weights,
                                  c->bias ? as_vector(&b) : none, as_vector(&target),
                                  as_vector(&weight), c->smoothing,
                                  c->smoothing > 0 ? as_vector(&smooth) : none, &err),
              &err);
    if (c->parts) { /* each pass has entered all parts */
        parted_leave(&parted);
        assert_int_equal(parted.entered[PARTS_SCAN], parted.parts.count);
        assert_int_equal(parted.entered[PARTS_GRADIENT],
                         c->want & (WANT_DW | WANT_DB) ? parted.parts.count : 0);
        parted_free(&parted);
    }
    char what[128];
    snprintf(what, sizeof what,
             "%d rows, width %d, vocabulary %d, smoothing %g, want %d, parts of %d", c->rows, c->d,
             c->v, c->smoothing, c->want, c->parts);
    double limit = limit_of(c->c);
    matrix_assert_close(&loss, lossd, 1e-5, what);
    if (c->want & WANT_DX) matrix_assert_close(&dx, dxd, limit, what);
    matrix_assert_close(&dw, dwd, limit, what);
    matrix_assert_close(&db, dbd, 1e-5, what);
    packed_free(device, packed);
    matrix_free(&x), matrix_free(&w), matrix_free(&b), matrix_free(&weight), matrix_free(&smooth);
    matrix_free(&target), matrix_free(&loss), matrix_free(&dx), matrix_free(&dw), matrix_free(&db);
    free(e.x), free(e.w), free(e.b), free(e.weight), free(e.smooth), free(e.logits);
    free(lossd), free(dxd), free(dwd), free(dbd);
}

static void entropy_cases(void **state, Dtype dtype) {
    Device *device = device_of(state, dtype);
    TestRandom random = {13};
    static const int sizes[][3] = {{1, 5, 3},      {3, 7, 1},     {17, 33, 514}, {65, 17, 1001},
                                   {300, 9, 601},  {5, 17, 4095}, {3, 9, 4096},  {5, 9, 4097},
                                   {17, 11, 9001}, {270, 3, 4099}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variant = 0; variant < 2; variant++)
            entropy_case(device,
                         &(EntropyCase){sizes[i][0], sizes[i][1], sizes[i][2], dtype,
                                        variant ? 0.1f : 0, variant == (int)(i & 1), variant,
                                        WANT_ALL, false, 0},
                         &random);
    for (int want = 0; want < WANT_ALL; want++)
        entropy_case(device,
                     &(EntropyCase){7, 13, 4500, dtype, 0.1f, true, want & 1, want, false, 0},
                     &random);
    for (int want = 0; want < WANT_ALL; want += 2)
        entropy_case(device, &(EntropyCase){7, 13, 4500, dtype, 0.1f, true, true, want, true, 0},
                     &random);
    if (device_kind(device) != DEVICE_CPU) return; /* tests/mpi_test.sh has parts on GPUs */
    static const int parts[] = {64, 192, 4160, 4500, 5000};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (int want = 0; want <= WANT_ALL; want++)
            entropy_case(device,
                         &(EntropyCase){7, 13, 4500, dtype, want & 1 ? 0.1f : 0, want & 2, want & 1,
                                        want, false, parts[i]},
                         &random);
}

static void entropy_f32(void **state) {
    entropy_cases(state, DTYPE_F32);
}

static void entropy_bf16(void **state) {
    entropy_cases(state, DTYPE_BF16);
}

static void entropy_differences(void **state) {
    Device *device = *state;
    Error err;
    enum { R = 3, D = 5, V = 11 };
    TestRandom random = {14};
    for (int smoothing = 0; smoothing < 2; smoothing++) {
        TestMatrix x = matrix_random(&random, DTYPE_F32, R, D, 0, 1, 0);
        TestMatrix w = matrix_random(&random, DTYPE_F32, V, D, 0, 1, 0);
        TestMatrix b = matrix_random(&random, DTYPE_F32, 1, V, 0, 1, 0);
        float weight[R] = {1.5f, 0.25f, 50}, smooth[R] = {0.1f, 0.3f, 5}, loss[R], dx[R * D];
        float dw[V * D] = {0}, db[V] = {0};
        int32_t target[R] = {10, 0, 4};
        assert_ok(vocab_cross_entropy(device, tensor_1d(loss, DTYPE_F32, R),
                                      tensor_2d(dx, DTYPE_F32, R, D),
                                      tensor_2d(dw, DTYPE_F32, V, D), tensor_1d(db, DTYPE_F32, V),
                                      x.t, w.t, as_vector(&b), tensor_1d(target, DTYPE_I32, R),
                                      tensor_1d(weight, DTYPE_F32, R), smoothing ? 0.1f : 0,
                                      smoothing ? tensor_1d(smooth, DTYPE_F32, R) : none, &err),
                  &err);
        double weightd[R] = {1.5, 0.25, 50}, smoothd[R] = {0}, logits[V];
        for (int r = 0; smoothing && r < R; r++) smoothd[r] = smooth[r];
        Entropy e = {R,
                     D,
                     V,
                     matrix_doubles(&x),
                     matrix_doubles(&w),
                     matrix_doubles(&b),
                     weightd,
                     smoothd,
                     logits,
                     target,
                     smoothing ? 0.1f : 0};
        assert_true(distance((double)loss[0] + loss[1] + loss[2], entropy_sum(&e), 0) < 1e-6);
        ASSERT_DERIVATIVE(dx, e.x, R * D, 1e-5, 3e-5, entropy_sum(&e));
        ASSERT_DERIVATIVE(dw, e.w, V * D, 1e-5, 3e-5, entropy_sum(&e));
        ASSERT_DERIVATIVE(db, e.b, V, 1e-5, 3e-5, entropy_sum(&e));
        free(e.x), free(e.w), free(e.b);
        matrix_free(&x), matrix_free(&w), matrix_free(&b);
    }
}

/* One row of two has a NaN, in x or in its weight: its loss is NaN, the other's is not. */
static void entropy_nan(void **state) {
    Device *device = *state;
    Error err;
    for (int where = 0; where < 2; where++) {
        float x[2 * 2] = {1, where ? 2 : NAN, 3, 4}, w[3 * 2] = {1, 2, 3, 4, 5, 6};
        float weight[2] = {where ? NAN : 1, 1}, loss[2], dx[2 * 2], db[3] = {0};
        int32_t target[2] = {1, 2};
        assert_ok(vocab_cross_entropy(
                      device, tensor_1d(loss, DTYPE_F32, 2), tensor_2d(dx, DTYPE_F32, 2, 2), none,
                      tensor_1d(db, DTYPE_F32, 3), tensor_2d(x, DTYPE_F32, 2, 2),
                      tensor_2d(w, DTYPE_F32, 3, 2), none, tensor_1d(target, DTYPE_I32, 2),
                      tensor_1d(weight, DTYPE_F32, 2), 0, none, &err),
                  &err);
        assert_true(isnan(loss[0]) && isfinite(loss[1]));
        assert_true(isnan(dx[0]) && isnan(dx[1]) && isfinite(dx[2]) && isfinite(dx[3]));
        assert_true(isnan(db[0]) && isnan(db[1]) && isnan(db[2]));
    }
}

/* A row that is confident of its target, with logits far from 0: nothing overflows, and the error
 * is that of a probability in f32, not of such logits. */
static void entropy_extreme(void **state) {
    Device *device = *state;
    Error err;
    float x[1] = {1}, w[3] = {5000, 4990, -5000}, weight[1] = {1}, loss[1], dx[1], db[3] = {0};
    int32_t target[1] = {0};
    assert_ok(vocab_cross_entropy(device, tensor_1d(loss, DTYPE_F32, 1),
                                  tensor_2d(dx, DTYPE_F32, 1, 1), none, tensor_1d(db, DTYPE_F32, 3),
                                  tensor_2d(x, DTYPE_F32, 1, 1), tensor_2d(w, DTYPE_F32, 3, 1),
                                  none, tensor_1d(target, DTYPE_I32, 1),
                                  tensor_1d(weight, DTYPE_F32, 1), 0, none, &err),
              &err);
    double p = 1 / (1 + exp(10)); /* of the second */
    assert_true(fabs(loss[0] + log1p(-p)) < 2e-7 && fabs(db[0] + p) < 2e-7);
    assert_true(distance(db[1], p, 0) < 1e-6 && db[2] == 0);
}

/* How the bias of `entropy_moving` varies over the ids, in integers. */
enum { RISING, FALLING, STEPS, PEAK, LATE, BIASES };

static float moving_bias(int kind, int j, int v) {
    if (kind == RISING) return (float)(j / 100);
    if (kind == FALLING) return (float)((v - j) / 100);
    if (kind == STEPS) return (float)(200 * (j / CHUNK));
    if (kind == PEAK) return j == v / 2 ? 60 : 0;
    return j < CHUNK + 7 ? -INFINITY : -1000; /* nothing in the first chunk */
}

/* The largest logit changes from chunk to chunk, or is the target's by far. Logits are integers,
 * exact in f32: the loss and gradient of a confident row, some 1e-20, must be right in most
 * digits. */
static void moving_case(Device *device, Dtype dtype, int kind, bool smoothing) {
    Error err;
    enum { R = 7, D = 5, V = 3 * CHUNK - 90 };
    TestRandom random = {(uint64_t)(15 + kind)};
    TestMatrix x = matrix_new(dtype, R, D, 0), w = matrix_new(dtype, V, D, 0);
    TestMatrix b = matrix_new(DTYPE_F32, 1, V, 0), dx = matrix_new(dtype, R, D, 0);
    float weight[R], smooth[R], loss[R], dw[V * D] = {0}, db[V] = {0};
    double weightd[R], smoothd[R] = {0};
    int32_t target[R] = {V - 1, 0, V / 2, CHUNK - 1, CHUNK, CHUNK + 7, 2 * CHUNK};
    for (int64_t i = 0; i < R * D; i++)
        matrix_set(&x, i / D, i % D, floor(5 * test_random_uniform(&random)) - 2);
    for (int64_t i = 0; i < V * D; i++)
        matrix_set(&w, i / D, i % D, floor(3 * test_random_uniform(&random)) - 1);
    for (int j = 0; j < V; j++) matrix_set(&b, 0, j, (double)moving_bias(kind, j, V));
    for (int r = 0; r < R; r++) {
        if (kind == LATE && target[r] < CHUNK + 7) target[r] = CHUNK + 7 + r;
        weightd[r] = weight[r] = 0.5f + (float)r;
        smooth[r] = 0.25f;
        if (smoothing) smoothd[r] = 0.25;
    }
    assert_ok(vocab_cross_entropy(device, tensor_1d(loss, DTYPE_F32, R), dx.t,
                                  tensor_2d(dw, DTYPE_F32, V, D), tensor_1d(db, DTYPE_F32, V), x.t,
                                  w.t, as_vector(&b), tensor_1d(target, DTYPE_I32, R),
                                  tensor_1d(weight, DTYPE_F32, R), smoothing ? 0.1f : 0,
                                  smoothing ? tensor_1d(smooth, DTYPE_F32, R) : none, &err),
              &err);
    Entropy e = {R,
                 D,
                 V,
                 matrix_doubles(&x),
                 matrix_doubles(&w),
                 matrix_doubles(&b),
                 weightd,
                 smoothd,
                 doubles(V),
                 target,
                 smoothing ? 0.1f : 0};
    for (int r = 0; r < R; r++) {
        const double hard = 1 - e.smoothing, want = entropy_row(&e, r), *p = e.logits;
        double rest = 0, g[D] = {0}, wrong = 0, norm = 0;
        for (int j = 0; j < V; j++)
            if (j != target[r]) rest += p[j];
        /* The oracle's own loss of a confident row is a difference of rounded values. */
        const double sure = smoothing ? want : -weightd[r] * log1p(-rest);
        if (!(distance(loss[r], rest < 0.5 ? sure : want, 0) < 2e-6))
            fail_msg("bias %d: the loss of row %d is %.9g, expected %.9g", kind, r, (double)loss[r],
                     rest < 0.5 ? sure : want);
        for (int j = 0; j < V; j++) {
            const double sharp = j == target[r] ? -rest : p[j];
            for (int i = 0; i < D; i++)
                g[i] +=
                    weightd[r] * (hard * sharp + smoothd[r] * (p[j] - 1.0 / V)) * e.w[j * D + i];
        }
        for (int i = 0; i < D; i++) {
            const double got = matrix_get(&dx, r, i);
            wrong += (got - g[i]) * (got - g[i]), norm += g[i] * g[i];
        }
        if (!(sqrt(wrong) <= (dtype == DTYPE_F32 ? 1e-5 : 5e-3) * sqrt(norm)))
            fail_msg("bias %d: the gradient of row %d, %.3g long, is %.3g off", kind, r, sqrt(norm),
                     sqrt(wrong));
    }
    free(e.x), free(e.w), free(e.b), free(e.logits);
    matrix_free(&x), matrix_free(&w), matrix_free(&b), matrix_free(&dx);
}

static void entropy_moving(void **state) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (bf16 && !device_has_bf16(*state)) continue;
        for (int kind = 0; kind < BIASES; kind++)
            for (int smoothing = 0; smoothing < (kind == LATE ? 1 : 2); smoothing++)
                moving_case(*state, bf16 ? DTYPE_BF16 : DTYPE_F32, kind, smoothing);
    }
}

/* One NaN or +infinity among the logits of three chunks, in rows where it is the target or not; and
 * -infinity, which has no effect. */
static void entropy_infinite(void **state) {
    Device *device = *state;
    Error err;
    enum { R = 3, V = 3 * CHUNK };
    const float strange[] = {NAN, INFINITY, -INFINITY};
    float *w = calloc(V, sizeof *w), *b = calloc(V, sizeof *b), x[R] = {1, 1, 1};
    float weight[R] = {1, 1, 1}, loss[R], dx[R];
    assert_true(w && b);
    for (int k = 0; k < 3; k++)
        for (int chunk = 0; chunk < 3; chunk++) {
            const int at = chunk * CHUNK + 5;
            int32_t target[R] = {0, (int32_t)at, V - 1};
            for (int j = 0; j < V; j++) w[j] = (float)(j % 7), b[j] = (float)(j / CHUNK * 90);
            b[at] = strange[k];
            assert_ok(vocab_cross_entropy(
                          device, tensor_1d(loss, DTYPE_F32, R), tensor_2d(dx, DTYPE_F32, R, 1),
                          none, none, tensor_2d(x, DTYPE_F32, R, 1), tensor_2d(w, DTYPE_F32, V, 1),
                          tensor_1d(b, DTYPE_F32, V), tensor_1d(target, DTYPE_I32, R),
                          tensor_1d(weight, DTYPE_F32, R), 0, none, &err),
                      &err);
            for (int r = 0; r < R; r++) {
                assert_true(k < 2 ? isnan(loss[r]) : r == 1 ? isinf(loss[r]) : isfinite(loss[r]));
                assert_true(k < 2 ? isnan(dx[r]) : isfinite(dx[r]));
            }
        }
    free(w), free(b);
}

static void entropy_refused(void **state) {
    Device *device = *state;
    Error err;
    float x[2 * 2] = {1, 2, 3, 4}, w[3 * 2] = {1, 2, 3, 4, 5, 6}, weight[2] = {1, 1}, loss[2];
    float dx[2 * 2];
    int32_t target[2] = {1, 3};
    Tensor weights = tensor_2d(w, DTYPE_F32, 3, 2);
#define ENTROPY(dx, w)                                                                           \
    vocab_cross_entropy(device, tensor_1d(loss, DTYPE_F32, 2), dx, none, none,                   \
                        tensor_2d(x, DTYPE_F32, 2, 2), w, none, tensor_1d(target, DTYPE_I32, 2), \
                        tensor_1d(weight, DTYPE_F32, 2), 0, none, &err)
    assert_refused(ENTROPY(none, weights), &err, "target of row 1 is 3", "below 3");
    target[1] = -1;
    assert_refused(ENTROPY(none, weights), &err, "target of row 1 is -1");
    weight[1] = 0;
    assert_ok(ENTROPY(none, weights), &err);
    struct Packed *packed;
    assert_ok(pack_weight(device, &packed, &weights, 1, DTYPE_F32, true, NULL, &err), &err);
    weights.packed = packed;
    assert_refused(ENTROPY(tensor_2d(dx, DTYPE_F32, 2, 2), weights), &err, "w is packed", "plain");
    packed_free(device, packed);
}

/* ---- dropout_forward ---- */

typedef struct DropCase {
    Dtype x, y;
    int64_t rows, columns;
    bool in_place, accumulate;
} DropCase;

static void dropout_case(Device *device, const DropCase *c, Dropout drop, TestRandom *random) {
    Error err;
    const int64_t n = c->rows * c->columns;
    TestMatrix x = matrix_random(random, c->x, c->rows, c->columns, 0, 1, 0);
    TestMatrix y = matrix_random(random, c->y, c->rows, c->columns, 0, 1, 0);
    const TestMatrix *out = c->in_place ? &x : &y;
    matrix_set(&x, 0, 0, NAN);
    double *xd = matrix_doubles(&x), *before = matrix_doubles(out);
    assert_ok(dropout_forward(device, out->t, x.t, drop, c->accumulate, &err), &err);
    for (int64_t i = 0; i < n; i++) {
        bool kept = random_uniform(drop.seed, drop.stream, (uint64_t)i) >= drop.p;
        double got = matrix_get(out, i / c->columns, i % c->columns);
        double part = kept ? xd[i] / (1 - (double)drop.p) : 0;
        double want = part + (c->accumulate ? before[i] : 0);
        double size = fmax(fabs(part), c->accumulate ? fabs(before[i]) : 1e-30);
        if (isnan(want) ? !isnan(got) : !(fabs(got - want) <= limit_of(c->y) * size))
            fail_msg("dropout %g, %s to %s%s: value %lld is %g, expected %g", drop.p,
                     dtype_name(c->x), dtype_name(c->y), c->accumulate ? ", added" : "",
                     (long long)i, got, want);
    }
    matrix_free(&x), matrix_free(&y);
    free(xd), free(before);
}

static void dropout(void **state) {
    TestRandom random = {15};
    static const int sizes[][2] = {{1, 1}, {3, 7}, {17, 33}, {65, 129}, {300, 519}};
    static const float p[] = {0, 0x1p-32f, 1e-6f, 0.1f, 0.5f, 0.999f};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof p / sizeof *p; j++)
            for (int how = 0; how < 16; how++) {
                DropCase c = {how & 1 ? DTYPE_BF16 : DTYPE_F32,
                              how & 2 ? DTYPE_BF16 : DTYPE_F32,
                              sizes[i][0],
                              sizes[i][1],
                              how & 4,
                              how & 8};
                if (c.in_place && c.x != c.y) continue;
                if (i == 4 && (j % 3 || c.in_place)) continue;
                dropout_case(*state, &c, (Dropout){p[j], 0x123456789abcdef, UINT64_MAX - j},
                             &random);
            }
}

/* p equal to the random number: kept; with the next larger p: dropped. */
static void dropout_border(void **state) {
    TestRandom random = {18};
    const uint64_t seed = 7, stream = 9;
    int found = 0;
    for (uint64_t i = 0; i < 4096; i++) {
        double u = random_uniform(seed, stream, i);
        if (u >= 0x1p-9) continue; /* it would not be exact in a float */
        const float p[2] = {(float)u, nextafterf((float)u, 1)};
        assert_true(p[0] == u);
        for (int above = 0; above < 2; above++)
            dropout_case(*state, &(DropCase){DTYPE_F32, DTYPE_F32, 1, (int64_t)i + 1, false, false},
                         (Dropout){p[above], seed, stream}, &random);
        found++;
    }
    assert_true(found > 0);
}

/* ---- scale_forward ---- */

static void scales(void **state) {
    Error err;
    TestRandom random = {19};
    static const int sizes[][2] = {{1, 1}, {3, 7}, {17, 33}, {301, 519}};
    static const float factors[] = {0, 1, -2.5f, 1e-3f};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int how = 0; how < 8; how++) {
            Dtype x_dtype = how & 1 ? DTYPE_BF16 : DTYPE_F32;
            Dtype y_dtype = how & 2 ? DTYPE_BF16 : DTYPE_F32;
            bool in_place = how & 4;
            if (in_place && x_dtype != y_dtype) continue;
            float factor = factors[(i + (size_t)how) % 4];
            TestMatrix x = matrix_random(&random, x_dtype, sizes[i][0], sizes[i][1], 0, 1, 0);
            TestMatrix y = matrix_new(y_dtype, sizes[i][0], sizes[i][1], 0);
            double *want = matrix_doubles(&x);
            for (int j = 0; j < sizes[i][0] * sizes[i][1]; j++) want[j] *= (double)factor;
            assert_ok(scale_forward(*state, in_place ? x.t : y.t, x.t, factor, &err), &err);
            matrix_assert_close(in_place ? &x : &y, want, y_dtype == DTYPE_F32 ? 1e-7 : 1e-2,
                                "scaled");
            matrix_set(&x, 0, 0, NAN);
            assert_ok(scale_forward(*state, in_place ? x.t : y.t, x.t, 0, &err), &err);
            assert_true(isnan(matrix_get(in_place ? &x : &y, 0, 0)));
            matrix_free(&x), matrix_free(&y);
            free(want);
        }
}

/* ---- square_sum ---- */

static void square_sums(void **state) {
    Error err;
    TestRandom random = {17};
    Device *one = device_new(1), *three = device_new(3);
    static const int sizes[][2] = {{1, 1}, {3, 7}, {17, 33}, {255, 1}, {257, 3}, {300, 701}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (Dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            int64_t n = sizes[i][0] * sizes[i][1];
            TestMatrix x = matrix_random(&random, dtype, sizes[i][0], sizes[i][1], 0, 1, 0);
            double *xd = matrix_doubles(&x), want = 0, sum = -1, sums[2] = {-1, -2};
            for (int64_t j = 0; j < n; j++) want += xd[j] * xd[j];
            assert_ok(square_sum(*state, &sum, x.t, &err), &err);
            assert_true(distance(sum, want, 0) <= 1e-12);
            assert_ok(square_sum(one, &sums[0], x.t, &err), &err);
            assert_ok(square_sum(three, &sums[1], x.t, &err), &err);
            assert_true(sum == sums[0] && sum == sums[1]);
            matrix_set(&x, sizes[i][0] - 1, 0, NAN);
            assert_ok(square_sum(*state, &sum, x.t, &err), &err);
            assert_true(isnan(sum));
            matrix_free(&x);
            free(xd);
        }
    device_close(one), device_close(three);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_f32),
        cmocka_unit_test(linear_bf16),
        cmocka_unit_test(linear_differences),
        cmocka_unit_test(linear_nan),
        cmocka_unit_test(entropy_f32),
        cmocka_unit_test(entropy_bf16),
        cmocka_unit_test(entropy_differences),
        cmocka_unit_test(entropy_nan),
        cmocka_unit_test(entropy_extreme),
        cmocka_unit_test(entropy_moving),
        cmocka_unit_test(entropy_infinite),
        cmocka_unit_test(entropy_refused),
        cmocka_unit_test(dropout),
        cmocka_unit_test(dropout_border),
        cmocka_unit_test(scales),
        cmocka_unit_test(square_sums),
    };
    return cmocka_run_group_tests(tests, two_threads_setup, device_teardown);
}
