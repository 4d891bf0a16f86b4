/* Gradients against an oracle in double precision, which is checked against central differences of
 * a forward pass in double. */
#include "tests/matrix.h"

#include <math.h>
#include <time.h>

#include "kernels/random.h"

static const Dtype both[] = {DTYPE_F32, DTYPE_BF16};

static double limit_of(Dtype dtype) {
    return dtype == DTYPE_F32 ? 1e-5 : 1e-2;
}

static double *values_of(const TestMatrix *m) {
    int64_t rows = m->t.shape[0], columns = m->t.shape[1];
    double *v = malloc((size_t)(rows * columns) * sizeof *v);
    assert_non_null(v);
    for (int64_t i = 0; i < rows * columns; i++) v[i] = matrix_get(m, i / columns, i % columns);
    return v;
}

static double *zeros(int64_t n) {
    double *v = calloc((size_t)n, sizeof *v);
    assert_non_null(v);
    return v;
}

/* A matrix of one row as a vector. */
static Tensor vector_of(const TestMatrix *m) {
    return tensor_1d(m->t.data, m->t.dtype, m->t.shape[1]);
}

static void assert_same_matrix(const TestMatrix *a, const TestMatrix *b) {
    for (int64_t r = 0; r < a->t.shape[0]; r++) assert_true(matrix_same_row(a, r, b, r));
}

/* Fails unless a gradient is the central difference, relative to `scale`. */
static void assert_derivative(double got, double high, double low, double step, double scale,
                              const char *what) {
    double derivative = (high - low) / (2 * step);
    if (!(fabs(got - derivative) <= 1e-6 * (fabs(derivative) + scale)))
        fail_msg("%s: %.9g, but the central difference is %.9g", what, got, derivative);
}

/* ---- Activations. ---- */

static double act(double x, Activation a) {
    switch (a) {
    case ACTIVATION_GELU:
        return x / 2 * erfc(-x / sqrt(2));
    case ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case ACTIVATION_TANH:
        return tanh(x);
    case ACTIVATION_SILU:
        return x / (1 + exp(-x));
    default:
        return x;
    }
}

static double act_derivative(double x, Activation a) {
    double s;
    switch (a) {
    case ACTIVATION_GELU:
        return erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
    case ACTIVATION_QUICK_GELU:
        s = 1 / (1 + exp(-1.702 * x));
        return s + 1.702 * x * s / (1 + exp(1.702 * x));
    case ACTIVATION_RELU:
        return x > 0;
    case ACTIVATION_TANH:
        s = 1 / cosh(x);
        return s * s;
    case ACTIVATION_SILU:
        s = 1 / (1 + exp(-x));
        return s + x * s / (1 + exp(x));
    default:
        return 1;
    }
}

static void activations(void **state) {
    Device *device = isa_device(state);
    static const int sizes[] = {1, 3, 17, 65, 130, 300, 5003};
    TestRandom random = {21};
    Error err;
    for (Activation a = ACTIVATION_NONE; a < ACTIVATION_COUNT; a++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int types = 0; types < 8; types++) {
                int n = sizes[i];
                Dtype to = both[types & 1];
                TestMatrix x = matrix_random(&random, both[types >> 1 & 1], 1, n, 0, 2, 0);
                TestMatrix dy = matrix_random(&random, both[types >> 2], 1, n, 0, 1, 0);
                TestMatrix dx = matrix_new(to, 1, n, 0);
                double *want = zeros(n);
                for (int j = 0; j < n; j++) {
                    double at = matrix_get(&x, 0, j), derivative = act_derivative(at, a);
                    want[j] = matrix_get(&dy, 0, j) * derivative;
                    if (fabs(at) > 1e-4)
                        assert_derivative(derivative, act(at + 1e-5, a), act(at - 1e-5, a), 1e-5, 1,
                                          "slope");
                }
                assert_ok(activation_backward(device, dx.t, dy.t, x.t, a, &err), &err);
                matrix_assert_close(&dx, want, limit_of(to), activation_name(a));
                if (dy.t.dtype == to) {
                    assert_ok(activation_backward(device, dy.t, dy.t, x.t, a, &err), &err);
                    assert_same_matrix(&dy, &dx);
                }
                free(want);
                matrix_free(&x), matrix_free(&dy), matrix_free(&dx);
            }
}

/* Each value by itself, also far from 0, where the derivative is tiny; and at infinity. */
static void activation_tails(void **state) {
    Device *device = isa_device(state);
    enum { N = 24001 };
    Error err;
    for (Activation a = ACTIVATION_NONE; a < ACTIVATION_COUNT; a++) {
        TestMatrix x = matrix_new(DTYPE_F32, 1, N, 0), dx = matrix_new(DTYPE_F32, 1, N, 0);
        TestMatrix dy = matrix_new(DTYPE_F32, 1, N, 0);
        for (int i = 0; i < N; i++) {
            matrix_set(&x, 0, i, (i - N / 2) * 1e-3);
            matrix_set(&dy, 0, i, 1);
        }
        matrix_set(&x, 0, 0, -INFINITY), matrix_set(&x, 0, N - 1, INFINITY);
        matrix_set(&x, 0, 1, -200), matrix_set(&x, 0, N - 2, 200), matrix_set(&x, 0, 2, NAN);
        assert_ok(activation_backward(device, dx.t, dy.t, x.t, a, &err), &err);
        bool flat = a == ACTIVATION_TANH, linear = a == ACTIVATION_NONE;
        for (int i = 0; i < 2; i++) {
            assert_true(matrix_get(&dx, 0, i) == linear);
            assert_true(matrix_get(&dx, 0, N - 1 - i) == !flat);
        }
        if (a != ACTIVATION_NONE && a != ACTIVATION_RELU) assert_true(isnan(matrix_get(&dx, 0, 2)));
        for (int i = 3; i < N - 2; i++) {
            double at = matrix_get(&x, 0, i), got = matrix_get(&dx, 0, i);
            if (at == 0) continue;
            double want = act_derivative(at, a);
            /* Near a zero of the derivative the error cannot be relative. */
            bool crossing =
                (at < -0.6 && at > -0.9) || (a == ACTIVATION_SILU && at < -1.2 && at > -1.35);
            if (!(fabs(got - want) <= 1e-5 * fabs(want) + (crossing ? 2e-7 : 0)))
                fail_msg("%s at %g: %.9g, expected %.9g", activation_name(a), at, got, want);
        }
        matrix_free(&x), matrix_free(&dx), matrix_free(&dy);
    }
}

/* ---- Layer norm. ---- */

/* The sum over a row of dy times the layer norm of x. */
static double norm_loss(const double *x, const double *dy, const double *w, const double *b,
                        double eps, int d) {
    double mean = 0, var = 0, sum = 0;
    for (int i = 0; i < d; i++) mean += x[i] / d;
    for (int i = 0; i < d; i++) var += (x[i] - mean) * (x[i] - mean) / d;
    for (int i = 0; i < d; i++) sum += dy[i] * ((x[i] - mean) / sqrt(var + eps) * w[i] + b[i]);
    return sum;
}

static void norm_case(Device *device, TestRandom *random, int rows, int d, Dtype dx_type,
                      Dtype dy_type, Dtype x_type, bool accumulate) {
    Error err;
    const float eps = 1e-3f;
    TestMatrix x = matrix_random(random, x_type, rows, d, 0, 1.5, 0.5);
    TestMatrix dy = matrix_random(random, dy_type, rows, d, 0, 1, 0.1);
    TestMatrix w = matrix_random(random, DTYPE_F32, 1, d, 0, 0.5, 1);
    TestMatrix b = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    TestMatrix y = matrix_new(DTYPE_F32, rows, d, 0), stats = matrix_new(DTYPE_F32, rows, 2, 0);
    TestMatrix dx = matrix_random(random, dx_type, rows, d, 0, 1, 0);
    TestMatrix dw = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    TestMatrix db = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    double *want_x = values_of(&dx), *want_w = values_of(&dw), *want_b = values_of(&db);
    double *xs = values_of(&x), *dys = values_of(&dy), *ws = values_of(&w), *bs = values_of(&b);
    for (int r = 0; r < rows; r++) {
        double *p = xs + (int64_t)r * d, *g = dys + (int64_t)r * d;
        double mean = 0, var = 0, about = 0, along = 0;
        for (int i = 0; i < d; i++) mean += p[i] / d;
        for (int i = 0; i < d; i++) var += (p[i] - mean) * (p[i] - mean) / d;
        double scale = 1 / sqrt(var + eps);
        for (int i = 0; i < d; i++) {
            double n = (p[i] - mean) * scale;
            about += g[i] * ws[i] / d, along += g[i] * ws[i] * n / d;
            want_w[i] += g[i] * n, want_b[i] += g[i];
        }
        for (int i = 0; i < d; i++) {
            double derivative = scale * (g[i] * ws[i] - about - (p[i] - mean) * scale * along);
            want_x[r * d + i] = derivative + (accumulate ? want_x[r * d + i] : 0);
            if (r > 2 || d > 300) continue;
            double step = 1e-5, was = p[i];
            p[i] = was + step;
            double high = norm_loss(p, g, ws, bs, eps, d);
            p[i] = was - step;
            double low = norm_loss(p, g, ws, bs, eps, d);
            p[i] = was;
            assert_derivative(derivative, high, low, step, 1, "layer norm, x");
            was = ws[i], ws[i] = was + step;
            high = norm_loss(p, g, ws, bs, eps, d);
            ws[i] = was - step;
            low = norm_loss(p, g, ws, bs, eps, d);
            ws[i] = was;
            assert_derivative(g[i] * (p[i] - mean) * scale, high, low, step, 1, "layer norm, w");
        }
    }
    assert_ok(layernorm_forward(device, y.t, TENSOR_NONE, stats.t, x.t, vector_of(&w),
                                vector_of(&b), eps, &err),
              &err);
    assert_ok(layernorm_backward(device, dx.t, vector_of(&dw), vector_of(&db), dy.t, x.t,
                                 vector_of(&w), stats.t, accumulate, &err),
              &err);
    /* The norm of a single value is only rounding error, of any size. */
    if (d > 1 || accumulate) matrix_assert_close(&dx, want_x, limit_of(dx_type), "layer norm, dx");
    matrix_assert_close(&dw, want_w, 1e-5, "layer norm, dw");
    matrix_assert_close(&db, want_b, 1e-5, "layer norm, db");
    if (!accumulate) { /* the same, one at a time */
        TestMatrix alone = matrix_new(dx_type, rows, d, 0);
        Tensor none = TENSOR_NONE;
        assert_ok(layernorm_backward(device, alone.t, none, none, dy.t, x.t, vector_of(&w), stats.t,
                                     false, &err),
                  &err);
        assert_same_matrix(&alone, &dx);
        for (int i = 0; i < d; i++) matrix_set(&dw, 0, i, 0), matrix_set(&db, 0, i, 0);
        TestMatrix sums = matrix_random(random, DTYPE_F32, 1, d, 0, 0, 0);
        assert_ok(layernorm_backward(device, none, vector_of(&dw), none, dy.t, x.t, vector_of(&w),
                                     stats.t, false, &err),
                  &err);
        assert_ok(layernorm_backward(device, none, none, vector_of(&db), dy.t, x.t, vector_of(&w),
                                     stats.t, true, &err),
                  &err);
        assert_ok(layernorm_backward(device, none, vector_of(&sums), vector_of(&sums), dy.t, x.t,
                                     vector_of(&w), stats.t, false, &err),
                  &err);
        for (int i = 0; i < d; i++)
            assert_true((float)matrix_get(&sums, 0, i) ==
                        (float)matrix_get(&dw, 0, i) + (float)matrix_get(&db, 0, i));
        matrix_free(&sums), matrix_free(&alone);
    }
    free(want_x), free(want_w), free(want_b), free(xs), free(dys), free(ws), free(bs);
    matrix_free(&x), matrix_free(&dy), matrix_free(&w), matrix_free(&b), matrix_free(&y);
    matrix_free(&stats), matrix_free(&dx), matrix_free(&dw), matrix_free(&db);
}

static void layernorms(void **state) {
    Device *device = isa_device(state);
    static const int sizes[][2] = {{1, 1},     {3, 3},    {2, 17},   {17, 65},   {65, 130},
                                   {130, 17},  {5, 300},  {300, 33}, {60, 1024}, {3, 1100},
                                   {45, 2560}, {2, 2049}, {3, 8195}};
    TestRandom random = {22};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int types = 0; types < 16; types++)
            norm_case(device, &random, sizes[i][0], sizes[i][1], both[types & 1],
                      both[types >> 1 & 1], both[types >> 2 & 1], types >> 3);
}

/* ---- Gathered rows and means. ---- */

static void gathers(void **state) {
    Device *device = isa_device(state);
    static const int sizes[][3] = {{1, 1, 1},   {3, 2, 17},     {17, 5, 65},   {65, 9, 130},
                                   {130, 1, 3}, {300, 40, 300}, {500, 3, 516}, {2300, 1, 20}};
    TestRandom random = {23};
    Error err;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int type = 0; type < 2; type++) {
            int rows = sizes[i][0], count = sizes[i][1], d = sizes[i][2];
            TestMatrix dy = matrix_random(&random, both[type], rows, d, 0, 1, 0);
            TestMatrix table = matrix_random(&random, DTYPE_F32, count, d, 0, 1, 0);
            int32_t *index = malloc((size_t)rows * sizeof *index);
            double *want = values_of(&table);
            for (int t = 0; t < rows; t++) {
                index[t] = (int32_t)(test_random_uniform(&random) * (count + 1)) - 1;
                for (int c = 0; c < d && index[t] >= 0; c++)
                    want[index[t] * d + c] += matrix_get(&dy, t, c);
            }
            assert_ok(
                gather_backward(device, table.t, dy.t, tensor_1d(index, DTYPE_I32, rows), &err),
                &err);
            matrix_assert_close(&table, want, 1e-6, "gather");
            free(want), free(index);
            matrix_free(&dy), matrix_free(&table);
        }
}

static void segment_means(void **state) {
    Device *device = isa_device(state);
    static const int32_t begin[] = {2, 3, 20, 22, 60};
    static const int columns[] = {1, 3, 17, 65, 130, 300};
    enum { ROWS = 65, SEGMENTS = 4 };
    TestRandom random = {24};
    Error err;
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        for (int types = 0; types < 4; types++) {
            int d = columns[i];
            TestMatrix dy = matrix_random(&random, both[types & 1], SEGMENTS, d, 0, 1, 0);
            TestMatrix dx = matrix_new(both[types >> 1], ROWS, d, 0);
            double *want = zeros(ROWS * d);
            for (int s = 0; s < SEGMENTS; s++)
                for (int r = begin[s]; r < begin[s + 1]; r++)
                    for (int c = 0; c < d; c++)
                        want[r * d + c] = matrix_get(&dy, s, c) / (begin[s + 1] - begin[s]);
            assert_ok(segment_mean_backward(device, dx.t, dy.t, begin, SEGMENTS, &err), &err);
            matrix_assert_close(&dx, want, types >> 1 ? 1e-2 : 1e-6, "mean");
            for (int r = 0; r < ROWS; r++)
                if (r < 2 || r >= 60) assert_true(matrix_get(&dx, r, d - 1) == 0);
            TestMatrix no_means = matrix_new(both[types & 1], 0, d, 0);
            assert_ok(segment_mean_backward(device, dx.t, no_means.t, NULL, 0, &err), &err);
            for (int r = 0; r < ROWS; r++) assert_true(matrix_get(&dx, r, 0) == 0);
            free(want);
            matrix_free(&dy), matrix_free(&dx), matrix_free(&no_means);
        }
}

/* ---- Attention. ---- */

typedef struct Case {
    TestMatrix q, k, v, out, lse, dout, dq, dk, dv;
    int rows, keys, heads, width, d;
    float scale;
} Case;

static Case case_new(TestRandom *random, Dtype dtype, Dtype sums, int rows, int keys, int heads,
                     int width, int gap) {
    int d = heads * width;
    return (Case){
        .q = matrix_random(random, dtype, rows, d, gap, 1, 0),
        .k = matrix_random(random, dtype, keys, d, gap, 1, 0),
        .v = matrix_random(random, dtype, keys, d, gap, 1, 0),
        .out = matrix_new(dtype, rows, d, gap),
        .lse = matrix_new(DTYPE_F32, rows, heads, 0),
        .dout = matrix_random(random, dtype, rows, d, gap, 1, 0),
        .dq = matrix_new(dtype, rows, d, gap),
        .dk = matrix_random(random, sums, keys, d, gap, 0.1, 0),
        .dv = matrix_random(random, sums, keys, d, gap, 0.1, 0),
        .rows = rows,
        .keys = keys,
        .heads = heads,
        .width = width,
        .d = d,
        .scale = (float)(1 / sqrt(width)),
    };
}

static void case_free(Case *c) {
    matrix_free(&c->q), matrix_free(&c->k), matrix_free(&c->v), matrix_free(&c->out);
    matrix_free(&c->lse), matrix_free(&c->dout), matrix_free(&c->dq), matrix_free(&c->dk);
    matrix_free(&c->dv);
}

static void case_run(Device *device, Case *c, const AttentionSpan *spans, int count,
                     const Dropout *dropout) {
    Error err;
    assert_ok(attention_forward(device, c->out.t, c->lse.t, c->q.t, c->k.t, c->v.t, c->heads,
                                c->scale, spans, count, dropout, &err),
              &err);
    assert_ok(attention_backward(device, c->dq.t, c->dk.t, c->dv.t, c->dout.t, c->out.t, c->lse.t,
                                 c->q.t, c->k.t, c->v.t, c->heads, c->scale, spans, count, dropout,
                                 &err),
              &err);
}

/* The sum of dout * out in double and, where dq is given, its gradients, added to. */
static double oracle(const Case *c, const double *q, const double *k, const double *v,
                     const double *dout, const AttentionSpan *spans, int count,
                     const Dropout *dropout, double *dq, double *dk, double *dv) {
    double loss = 0;
    int *rows = malloc((size_t)(4 * c->keys) * sizeof *rows);
    double *p = malloc((size_t)(12 * c->keys) * sizeof *p), *z = p + 4 * c->keys,
           *dp = z + 4 * c->keys;
    for (int s = 0; s < count; s++) {
        int n = 0;
        for (int r = 0; r < spans[s].range_count; r++)
            for (int j = spans[s].range[r].begin; j < spans[s].range[r].end; j++) rows[n++] = j;
        for (int row = spans[s].q_begin; row < spans[s].q_end; row++)
            for (int h = 0; h < c->heads; h++) {
                int64_t at = (int64_t)row * c->d + h * c->width;
                double largest = -INFINITY, sum = 0, mean = 0;
                for (int j = 0; j < n; j++) {
                    int64_t key = (int64_t)rows[j] * c->d + h * c->width;
                    uint64_t index = ((uint64_t)row * (uint64_t)c->heads + (uint64_t)h) * 65536u;
                    bool kept = !dropout || random_uniform(dropout->seed, dropout->stream,
                                                           index + (uint64_t)j) >= dropout->p;
                    z[j] = kept ? 1 / (dropout ? 1 - (double)dropout->p : 1) : 0;
                    p[j] = dp[j] = 0;
                    for (int i = 0; i < c->width; i++) {
                        p[j] += q[at + i] * k[key + i] * c->scale;
                        dp[j] += dout[at + i] * v[key + i];
                    }
                    largest = fmax(largest, p[j]);
                }
                for (int j = 0; j < n; j++) sum += p[j] = exp(p[j] - largest);
                for (int j = 0; j < n; j++) p[j] /= sum, dp[j] *= z[j], mean += p[j] * dp[j];
                loss += mean;
                for (int j = 0; dq && j < n; j++) {
                    int64_t key = (int64_t)rows[j] * c->d + h * c->width;
                    double ds = p[j] * (dp[j] - mean) * c->scale;
                    for (int i = 0; i < c->width; i++) {
                        dq[at + i] += ds * k[key + i];
                        dk[key + i] += ds * q[at + i];
                        dv[key + i] += p[j] * z[j] * dout[at + i];
                    }
                }
            }
    }
    free(rows), free(p);
    return loss;
}

static void case_check(Device *device, Case *c, const AttentionSpan *spans, int count,
                       const Dropout *dropout, bool differences, const char *what) {
    double *in[] = {values_of(&c->q), values_of(&c->k), values_of(&c->v)};
    double *dout = values_of(&c->dout), *dk = values_of(&c->dk), *dv = values_of(&c->dv);
    int64_t sizes[] = {(int64_t)c->rows * c->d, (int64_t)c->keys * c->d, (int64_t)c->keys * c->d};
    double *derivatives[] = {zeros(sizes[0]), zeros(sizes[1]), zeros(sizes[2])};
    oracle(c, in[0], in[1], in[2], dout, spans, count, dropout, derivatives[0], derivatives[1],
           derivatives[2]);
    for (int m = 0; differences && m < 3; m++)
        for (int64_t i = 0; i < sizes[m]; i += 1 + sizes[m] / 13) {
            double step = 1e-5, was = in[m][i];
            in[m][i] = was + step;
            double high = oracle(c, in[0], in[1], in[2], dout, spans, count, dropout, 0, 0, 0);
            in[m][i] = was - step;
            double low = oracle(c, in[0], in[1], in[2], dout, spans, count, dropout, 0, 0, 0);
            in[m][i] = was;
            assert_derivative(derivatives[m][i], high, low, step, 1, what);
        }
    bool *seen = calloc((size_t)c->rows, sizeof *seen);
    for (int s = 0; s < count; s++)
        for (int r = spans[s].q_begin; r < spans[s].q_end; r++) seen[r] = true;
    case_run(device, c, spans, count, dropout);
    for (int r = 0; r < c->rows; r++) /* rows of no span are unchanged */
        for (int i = 0; !seen[r] && i < c->d; i++) {
            assert_true(isnan(matrix_get(&c->dq, r, i)));
            matrix_set(&c->dq, r, i, 0);
        }
    for (int64_t i = 0; i < sizes[1]; i++) dk[i] += derivatives[1][i], dv[i] += derivatives[2][i];
    char text[128];
    double limit = limit_of(c->q.t.dtype);
    double norm = 0; /* with a single key, nothing depends on the scores: only rounding errors */
    for (int64_t i = 0; i < sizes[0]; i++) norm += derivatives[0][i] * derivatives[0][i];
    snprintf(text, sizeof text, "%s, dq", what);
    if (norm > 1e-20) matrix_assert_close(&c->dq, derivatives[0], limit, text);
    snprintf(text, sizeof text, "%s, dk", what);
    matrix_assert_close(&c->dk, dk, limit, text);
    snprintf(text, sizeof text, "%s, dv", what);
    matrix_assert_close(&c->dv, dv, limit, text);
    for (int m = 0; m < 3; m++) free(in[m]), free(derivatives[m]);
    free(dout), free(dk), free(dv), free(seen);
}

static AttentionSpan span_of(int q_begin, int q_end, int begin, int end) {
    return (AttentionSpan){q_begin, q_end, 1, {{begin, end}}};
}

static void attention_sizes(void **state) {
    Device *device = isa_device(state);
    static const int sizes[][5] = {
        {1, 1, 1, 1, 0},
        {1, 1, 2, 5, 7},
        {3, 2, 1, 16, 0},
        {2, 3, 3, 8, 7},
        {17, 17, 2, 64, 0},
        {65, 65, 1, 80, 7},
        {7, 130, 2, 17, 0},
        {130, 6, 1, 130, 7},
        {49, 65, 3, 3, 0},
        {300, 300, 1, 64, 7},
        /* and heads that a GPU's tensor cores support: */
        {1, 1, 1, 64, 8},
        {1, 70, 1, 32, 0},
        {66, 2, 2, 128, 8},
        {65, 65, 1, 80, 8},
        {70, 130, 1, 128, 0},
        {33, 190, 2, 32, 8},
        {31, 63, 1, 96, 0},
        {127, 129, 1, 64, 8},
        {34, 65, 1, 88, 0},
        {64, 128, 3, 8, 8},
    };
    TestRandom random = {25};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int type = 0; type < 2; type++) {
            const int *s = sizes[i];
            /* also dk and dv in f32 with bf16 inputs */
            Case c =
                case_new(&random, both[type], both[type && i % 2], s[0], s[1], s[2], s[3], s[4]);
            AttentionSpan span = span_of(0, s[0], 0, s[1]);
            case_check(device, &c, &span, 1, NULL, s[0] * s[1] < 300, "sizes");
            case_free(&c);
        }
}

/* The same with dq in f32 and bf16 inputs, and with dropout. */
static void attention_mixed(void **state) {
    Device *device = isa_device(state);
    static const int widths[] = {24, 32, 64, 80, 128};
    const Dropout dropout = {.p = 0.2f, .seed = 7, .stream = 78};
    TestRandom random = {29};
    for (int i = 0; i < 5; i++)
        for (int drop = 0; drop < 2; drop++) {
            Case c = case_new(&random, DTYPE_BF16, drop ? DTYPE_BF16 : DTYPE_F32, 70, 131, 2,
                              widths[i], 8);
            matrix_free(&c.dq);
            c.dq = matrix_new(DTYPE_F32, 70, c.d, 2);
            AttentionSpan span = span_of(0, 70, 0, 131);
            case_check(device, &c, &span, 1, drop ? &dropout : NULL, false, "mixed");
            case_free(&c);
        }
}

/* An image of 40 rows, a prompt of 9 and two answers that attend to image, prompt and themselves; a
 * span without queries; a second sequence, which attends to one row twice; rows of no span. */
static const AttentionSpan layout[] = {
    {0, 40, 1, {{0, 40}}},
    {40, 49, 2, {{0, 40}, {40, 49}}},
    {49, 52, 3, {{0, 40}, {40, 49}, {49, 52}}},
    {52, 57, 4, {{0, 40}, {5, 5}, {40, 49}, {52, 57}}},
    {57, 57, 1, {{0, 1}}},
    {60, 83, 4, {{70, 83}, {60, 70}, {60, 60}, {60, 61}}},
};
enum { LAYOUT_SPANS = sizeof layout / sizeof *layout, LAYOUT_ROWS = 90 };

/* Ranges that begin and end anywhere in tiles of keys and share some of them, one twice. */
static const AttentionSpan crossing[] = {
    {0, 30, 2, {{3, 70}, {75, 90}}},
    {30, 66, 3, {{66, 72}, {0, 67}, {70, 80}}},
    {66, 67, 1, {{89, 90}}},
    {70, 90, 1, {{1, 88}}},
};
enum { CROSSING_SPANS = sizeof crossing / sizeof *crossing };

static const struct {
    Dtype dtype;
    int width, gap;
} kinds[] = {
    {DTYPE_F32, 24, 5},  {DTYPE_BF16, 24, 5}, {DTYPE_BF16, 24, 8},
    {DTYPE_BF16, 64, 8}, {DTYPE_BF16, 80, 0}, {DTYPE_BF16, 128, 8},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void attention_spans(void **state) {
    Device *device = isa_device(state);
    const Dropout dropout = {.p = 0.3f, .seed = 5, .stream = 77};
    TestRandom random = {26};
    for (int i = 0; i < KINDS; i++)
        for (int drop = 0; drop < 2; drop++)
            for (int which = 0; which < 2; which++) {
                Case c = case_new(&random, kinds[i].dtype, DTYPE_F32, LAYOUT_ROWS, LAYOUT_ROWS, 3,
                                  kinds[i].width, kinds[i].gap);
                case_check(device, &c, which ? crossing : layout,
                           which ? CROSSING_SPANS : LAYOUT_SPANS, drop ? &dropout : NULL,
                           kinds[i].dtype == DTYPE_F32, drop ? "dropout" : "spans");
                case_free(&c);
            }
}

/* The same bits in any batch: without the layout's second sequence, and without its first. */
static void attention_batch(void **state) {
    Device *device = isa_device(state);
    const Dropout dropout = {.p = 0.3f, .seed = 5, .stream = 77};
    for (int i = 0; i < KINDS; i++)
        for (int part = 0; part < 2; part++) {
            Case c[2];
            for (int whole = 0; whole < 2; whole++) {
                TestRandom random = {30};
                c[whole] = case_new(&random, kinds[i].dtype, DTYPE_F32, LAYOUT_ROWS, LAYOUT_ROWS, 3,
                                    kinds[i].width, kinds[i].gap);
                const AttentionSpan *spans = whole || !part ? layout : layout + 5;
                const int count = whole ? LAYOUT_SPANS : part ? 1 : 5;
                case_run(device, &c[whole], spans, count, i % 2 ? &dropout : NULL);
            }
            for (int r = part ? 60 : 0; r < (part ? 83 : 57); r++) {
                assert_true(matrix_same_row(&c[0].dq, r, &c[1].dq, r));
                assert_true(matrix_same_row(&c[0].dk, r, &c[1].dk, r));
                assert_true(matrix_same_row(&c[0].dv, r, &c[1].dv, r));
            }
            case_free(&c[0]), case_free(&c[1]);
        }
}

/* A NaN reaches everything that depends on it and no other head, row or sequence. */
static void attention_nan(void **state) {
    Device *device = isa_device(state);
    for (int i = 0; i < KINDS; i++)
        for (int where = 0; where < 4; where++) {
            TestRandom random = {31};
            const int width = kinds[i].width;
            Case c = case_new(&random, kinds[i].dtype, DTYPE_F32, LAYOUT_ROWS, LAYOUT_ROWS, 3,
                              width, kinds[i].gap);
            /* Row 50 is a query and a key of the third span only. */
            TestMatrix *at[] = {&c.q, &c.k, &c.v, &c.dout};
            matrix_set(at[where], 50, width + 6, NAN);
            case_run(device, &c, layout, LAYOUT_SPANS, NULL);
            for (int r = 0; r < 83; r++)
                for (int d = 0; d < c.d; d++) {
                    const bool head = d / width == 1, asks = r >= 49 && r < 52, seen = r < 52;
                    const bool alone = where == 0 || where == 3; /* of a query, not of a key */
                    if (r < 57 || r >= 60)
                        assert_true(isnan(matrix_get(&c.dq, r, d)) ==
                                    (head && (alone ? r == 50 : asks)));
                    assert_true(isnan(matrix_get(&c.dk, r, d)) == (head && seen));
                    /* depends on p and dout only */
                    assert_true(isnan(matrix_get(&c.dv, r, d)) ==
                                (head && seen && where != 2 && (where < 2 || d == width + 6)));
                }
            case_free(&c);
        }
}

/* The same bits on one thread as on three, or a second time, of every operation. */
static void independence(void **state) {
    Device *device = isa_device(state), *devices[2] = {device, NULL};
    Error err;
    DeviceOptions options = {.kind = DEVICE_CPU, .threads = 1, .isa = isa_name(device)};
    assert_ok(test_device_open(&devices[1], &options, &err), &err);
    enum { ROWS = 1021, D = 130, TABLE = 7, COUNT = 9 };
    const AttentionSpan spans[] = {
        {0, 200, 1, {{0, 200}}},
        {200, 300, 2, {{0, 200}, {200, 300}}},
        {500, 1021, 1, {{700, 1021}}}, /* out of order, and sharing keys with the last */
        {300, 500, 2, {{300, 700}, {1000, 1021}}},
    };
    const int32_t begin[] = {0, 1, 500, 1021};
    const Dropout dropout = {.p = 0.1f, .seed = 6, .stream = 1};
    for (int type = 0; type < 2; type++) {
        TestMatrix results[2][COUNT];
        for (int i = 0; i < 2; i++) {
            TestRandom random = {27};
            Dtype t = both[type];
            Case c = case_new(&random, t, DTYPE_F32, ROWS, ROWS, 2, D / 2, 0);
            TestMatrix w = matrix_random(&random, DTYPE_F32, 1, D, 0, 1, 0);
            TestMatrix stats = matrix_random(&random, DTYPE_F32, ROWS, 2, 0, 1, 0);
            TestMatrix dx = matrix_random(&random, t, ROWS, D, 0, 1, 0);
            TestMatrix derivative = matrix_new(t, ROWS, D, 0), mean = matrix_new(t, ROWS, D, 0);
            TestMatrix dw = matrix_random(&random, DTYPE_F32, 1, D, 0, 1, 0);
            TestMatrix db = matrix_random(&random, DTYPE_F32, 1, D, 0, 1, 0);
            TestMatrix table = matrix_random(&random, DTYPE_F32, TABLE, D, 0, 1, 0);
            int32_t index[ROWS];
            for (int r = 0; r < ROWS; r++) index[r] = (int32_t)(test_random_next(&random) % TABLE);
            case_run(devices[i], &c, spans, 4, &dropout);
            assert_ok(layernorm_backward(devices[i], dx.t, vector_of(&dw), vector_of(&db), c.dout.t,
                                         c.q.t, vector_of(&w), stats.t, true, &err),
                      &err);
            assert_ok(activation_backward(devices[i], derivative.t, c.dout.t, c.q.t,
                                          ACTIVATION_GELU, &err),
                      &err);
            assert_ok(
                segment_mean_backward(devices[i], mean.t, tensor_rows(c.q.t, 0, 3), begin, 3, &err),
                &err);
            assert_ok(gather_backward(devices[i], table.t, c.dout.t,
                                      tensor_1d(index, DTYPE_I32, ROWS), &err),
                      &err);
            const TestMatrix all[COUNT] = {c.dq, c.dk, c.dv, dx, dw, db, derivative, mean, table};
            memcpy(results[i], all, sizeof all);
            matrix_free(&c.q), matrix_free(&c.k), matrix_free(&c.v), matrix_free(&c.out);
            matrix_free(&c.lse), matrix_free(&c.dout), matrix_free(&w), matrix_free(&stats);
        }
        for (int m = 0; m < COUNT; m++) {
            assert_same_matrix(&results[0][m], &results[1][m]);
            matrix_free(&results[0][m]), matrix_free(&results[1][m]);
        }
    }
    device_close(devices[1]);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints the speed, to measure changes; asserts nothing. */
static void speed(void **state) {
    Device *device = isa_device(state);
    if (test_on_gpu())
        return; /* emulated, or with all data copied to and from the GPU: not a GPU's
                                  time */
    enum { ROWS = 300, HEADS = 12, WIDTH = 64 };
    TestRandom random = {28};
    Error err;
    Case c = case_new(&random, DTYPE_F32, DTYPE_F32, ROWS, ROWS, HEADS, WIDTH, 0);
    AttentionSpan span = span_of(0, ROWS, 0, ROWS);
    case_run(device, &c, &span, 1, NULL);
    double start = seconds_now(), now = start, best = INFINITY;
    while (now - start < 0.05) {
        double before = now;
        assert_ok(attention_backward(device, c.dq.t, c.dk.t, c.dv.t, c.dout.t, c.out.t, c.lse.t,
                                     c.q.t, c.k.t, c.v.t, HEADS, c.scale, &span, 1, NULL, &err),
                  &err);
        now = seconds_now();
        best = fmin(best, now - before);
    }
    printf("note: attention_backward, 300 rows, 12 heads of 64, %s: %.0f GFLOP/s\n",
           device_text(device), 10.0 * ROWS * ROWS * HEADS * WIDTH / best * 1e-9);
    case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(activations),     ON_EACH_ISA(activation_tails), ON_EACH_ISA(layernorms),
        ON_EACH_ISA(gathers),         ON_EACH_ISA(segment_means),    ON_EACH_ISA(attention_sizes),
        ON_EACH_ISA(attention_mixed), ON_EACH_ISA(attention_spans),  ON_EACH_ISA(attention_batch),
        ON_EACH_ISA(attention_nan),   ON_EACH_ISA(independence),     ON_EACH_ISA(speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
