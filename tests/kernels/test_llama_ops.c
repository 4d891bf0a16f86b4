/* The operations of LLaMA's blocks against double precision: RMS norm, rotary positions, gated
 * activations; attention with heads that share keys and values, causal spans and windows. */
#include "tests/matrix.h"

#include <math.h>

#include "kernels/clock.h"
#include "kernels/random.h"

static const Dtype both[] = {DTYPE_F32, DTYPE_BF16};

static double limit_of(Dtype dtype) {
    return dtype == DTYPE_F32 ? 2e-6 : 1e-2;
}

static double *zeros(int64_t n) {
    double *v = calloc((size_t)n, sizeof *v);
    assert_non_null(v);
    return v;
}

static Tensor vector_of(const TestMatrix *m) {
    return tensor_1d(m->t.data, m->t.dtype, m->t.shape[1]);
}

static void assert_same(const TestMatrix *a, const TestMatrix *b) {
    for (int64_t r = 0; r < a->t.shape[0]; r++) assert_true(matrix_same_row(a, r, b, r));
}

/* ---- RMS norm. ---- */

static const int widths[] = {1, 5, 17, 64, 130, 301, 1030, 8200};
enum { WIDTHS = sizeof widths / sizeof *widths };

/* Widths of lanes and tails, a warp's and a block's rows, and longer ones. */
static void rmsnorm_case(Device *device, TestRandom *random, int rows, int d, int types) {
    const float eps = 1e-4f;
    Error err;
    TestMatrix x = matrix_random(random, both[types & 1], rows, d, 0, 2, 1);
    TestMatrix y = matrix_new(both[types >> 1 & 1], rows, d, 0);
    TestMatrix copy = matrix_new(both[types >> 2], rows, d, 0);
    TestMatrix stats = matrix_new(DTYPE_F32, rows, 2, 0);
    TestMatrix w = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    double *want = zeros((int64_t)rows * d);
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < d; i++) sum += pow(matrix_get(&x, r, i), 2);
        const double scale = 1 / sqrt(sum / d + (double)eps);
        for (int i = 0; i < d; i++)
            want[r * d + i] = matrix_get(&x, r, i) * scale * matrix_get(&w, 0, i);
    }
    assert_ok(rmsnorm_forward(device, y.t, copy.t, stats.t, x.t, vector_of(&w), eps, &err), &err);
    matrix_assert_close(&y, want, dtype_limit(y.t.dtype), "rmsnorm");
    matrix_assert_close(&copy, want, dtype_limit(copy.t.dtype), "rmsnorm's copy");
    for (int r = 0; r < rows; r++) assert_true(matrix_get(&stats, r, 0) == 0);
    if (x.t.dtype == y.t.dtype) { /* in place, without the rest */
        assert_ok(
            rmsnorm_forward(device, x.t, TENSOR_NONE, TENSOR_NONE, x.t, vector_of(&w), eps, &err),
            &err);
        assert_same(&x, &y);
    }
    free(want);
    matrix_free(&x), matrix_free(&y), matrix_free(&copy), matrix_free(&stats), matrix_free(&w);
}

static void test_rmsnorm(void **state) {
    TestRandom random = {3};
    for (int i = 0; i < WIDTHS; i++)
        for (int types = 0; types < 8; types++)
            rmsnorm_case(isa_device(state), &random, i % 3 ? 3 : 70, widths[i], types);
}

/* dx = (g - n mean(g n)) scale with n = x scale and g = dy w; dw = sum of dy n. */
static void rmsnorm_backward_case(Device *device, TestRandom *random, int rows, int d, int types,
                                  bool accumulate) {
    Error err;
    TestMatrix x = matrix_random(random, both[types & 1], rows, d, 0, 2, 1);
    TestMatrix dy = matrix_random(random, both[types >> 1 & 1], rows, d, 0, 1, 0);
    TestMatrix dx = matrix_random(random, both[types >> 2], rows, d, 0, 1, 0);
    TestMatrix w = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    TestMatrix dw = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    TestMatrix y = matrix_new(DTYPE_F32, rows, d, 0), stats = matrix_new(DTYPE_F32, rows, 2, 0);
    double *want = zeros((int64_t)rows * d), *sums = zeros(d);
    for (int i = 0; i < d; i++) sums[i] = matrix_get(&dw, 0, i);
    for (int r = 0; r < rows; r++) {
        double square = 0, along = 0;
        for (int i = 0; i < d; i++) square += pow(matrix_get(&x, r, i), 2);
        const double scale = 1 / sqrt(square / d + (double)1e-5f);
        for (int i = 0; i < d; i++) {
            const double n = matrix_get(&x, r, i) * scale;
            along += matrix_get(&dy, r, i) * matrix_get(&w, 0, i) * n / d;
            sums[i] += matrix_get(&dy, r, i) * n;
        }
        for (int i = 0; i < d; i++) {
            const double n = matrix_get(&x, r, i) * scale;
            want[r * d + i] = (matrix_get(&dy, r, i) * matrix_get(&w, 0, i) - n * along) * scale +
                              (accumulate ? matrix_get(&dx, r, i) : 0);
        }
    }
    const Tensor none = TENSOR_NONE;
    assert_ok(rmsnorm_forward(device, y.t, none, stats.t, x.t, vector_of(&w), 1e-5f, &err), &err);
    assert_ok(rmsnorm_backward(device, dx.t, vector_of(&dw), dy.t, x.t, vector_of(&w), stats.t,
                               accumulate, &err),
              &err);
    /* With one column dx is nearly a difference of equal numbers. */
    if (d > 1) matrix_assert_close(&dx, want, limit_of(dx.t.dtype), "dx of rmsnorm");
    matrix_assert_close(&dw, sums, 2e-6, "dw of rmsnorm");
    if (dy.t.dtype == dx.t.dtype && !accumulate) { /* in place, without dw */
        assert_ok(
            rmsnorm_backward(device, dy.t, none, dy.t, x.t, vector_of(&w), stats.t, false, &err),
            &err);
        assert_same(&dy, &dx);
    }
    free(want), free(sums);
    matrix_free(&x), matrix_free(&dy), matrix_free(&dx), matrix_free(&w), matrix_free(&dw);
    matrix_free(&y), matrix_free(&stats);
}

static void test_rmsnorm_backward(void **state) {
    TestRandom random = {4};
    for (int i = 0; i < WIDTHS; i++)
        for (int types = 0; types < 8; types++)
            rmsnorm_backward_case(isa_device(state), &random, i % 3 ? 3 : 70, widths[i], types,
                                  (i + types) % 2);
}

/* ---- Rotary positions. ---- */

/* Heads of `width`, as columns of a wider matrix. */
static void rotary_case(Device *device, TestRandom *random, int rows, int heads, int width,
                        int types) {
    enum { PLACES = 11 };
    Error err;
    TestMatrix x = matrix_random(random, both[types & 1], rows, heads * width, 5, 1, 0);
    TestMatrix y = matrix_new(both[types >> 1], rows, heads * width, 3);
    TestMatrix back = matrix_new(DTYPE_F32, rows, heads * width, 0);
    TestMatrix table = matrix_new(DTYPE_F32, PLACES, width, 0);
    int32_t *index = malloc((size_t)rows * sizeof *index);
    for (int p = 0; p < PLACES; p++)
        for (int i = 0; i < width / 2; i++) {
            matrix_set(&table, p, i, cos(p * pow(0.3, i)));
            matrix_set(&table, p, i + width / 2, sin(p * pow(0.3, i)));
        }
    for (int r = 0; r < rows; r++) index[r] = (r * 7 + 2) % PLACES;
    double *want = zeros((int64_t)rows * heads * width),
           *same = zeros((int64_t)rows * heads * width);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < heads * width; i++) {
            const int half = width / 2, at = i % width, pair = at % half;
            const double c = matrix_get(&table, index[r], pair),
                         s = matrix_get(&table, index[r], pair + half),
                         other = matrix_get(&x, r, at < half ? i + half : i - half);
            same[r * heads * width + i] = matrix_get(&x, r, i);
            want[r * heads * width + i] = matrix_get(&x, r, i) * c + (at < half ? -s : s) * other;
        }
    const Tensor places = tensor_1d(index, DTYPE_I32, rows);
    assert_ok(rotary_forward(device, y.t, x.t, table.t, places, false, &err), &err);
    matrix_assert_close(&y, want, dtype_limit(y.t.dtype), "rotary");
    assert_ok(rotary_forward(device, back.t, y.t, table.t, places, true, &err), &err);
    matrix_assert_close(&back, same, dtype_limit(y.t.dtype), "rotary, turned back");
    if (x.t.dtype == y.t.dtype) {
        assert_ok(rotary_forward(device, x.t, x.t, table.t, places, false, &err), &err);
        assert_same(&x, &y);
    }
    free(want), free(same), free(index);
    matrix_free(&x), matrix_free(&y), matrix_free(&back), matrix_free(&table);
}

static void test_rotary(void **state) {
    static const int sizes[][3] = {{1, 1, 2}, {5, 3, 6}, {9, 2, 64}, {40, 5, 34}, {3, 7, 128}};
    TestRandom random = {5};
    for (int i = 0; i < 5; i++)
        for (int types = 0; types < 4; types++)
            rotary_case(isa_device(state), &random, sizes[i][0], sizes[i][1], sizes[i][2], types);
}

/* ---- Gated activations. ---- */

static double act(double x, Activation a) {
    switch (a) {
    case ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case ACTIVATION_GELU:
        return x / 2 * erfc(-x / sqrt(2));
    default:
        assert_true(a == ACTIVATION_NONE);
        return x;
    }
}

static double slope(double x, Activation a) {
    const double h = 1e-5;
    return (act(x + h, a) - act(x - h, a)) / (2 * h);
}

static void gated_case(Device *device, TestRandom *random, int rows, int n, Activation a,
                       int types) {
    Error err;
    TestMatrix x = matrix_random(random, both[types & 1], rows, 2 * n, 0, 2, 0);
    TestMatrix y = matrix_new(both[types >> 1 & 1], rows, n, 0);
    TestMatrix dy = matrix_random(random, both[types >> 2], rows, n, 0, 1, 0);
    TestMatrix dx = matrix_new(both[types >> 1 & 1], rows, 2 * n, 0);
    double *want = zeros((int64_t)rows * n), *dwant = zeros((int64_t)rows * 2 * n);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < n; i++) {
            const double g = matrix_get(&x, r, i), u = matrix_get(&x, r, n + i),
                         d = matrix_get(&dy, r, i);
            want[r * n + i] = act(g, a) * u;
            dwant[r * 2 * n + i] = d * u * slope(g, a);
            dwant[r * 2 * n + n + i] = d * act(g, a);
        }
    assert_ok(gated_forward(device, y.t, x.t, a, &err), &err);
    matrix_assert_close(&y, want, dtype_limit(y.t.dtype), "gated");
    assert_ok(gated_backward(device, dx.t, dy.t, x.t, a, &err), &err);
    matrix_assert_close(&dx, dwant, limit_of(dx.t.dtype), "dx of gated");
    if (x.t.dtype == dx.t.dtype) {
        assert_ok(gated_backward(device, x.t, dy.t, x.t, a, &err), &err);
        assert_same(&x, &dx);
    }
    free(want), free(dwant);
    matrix_free(&x), matrix_free(&y), matrix_free(&dy), matrix_free(&dx);
}

static void test_gated(void **state) {
    static const Activation activations[] = {ACTIVATION_SILU, ACTIVATION_GELU, ACTIVATION_NONE};
    static const int sizes[][2] = {{1, 1}, {3, 13}, {7, 64}, {2, 1100}};
    TestRandom random = {6};
    for (int i = 0; i < 4; i++)
        for (int a = 0; a < 3; a++)
            for (int types = 0; types < 8; types++)
                gated_case(isa_device(state), &random, sizes[i][0], sizes[i][1], activations[a],
                           types);
}

static TestMatrix cleared(Dtype dtype, int64_t rows, int64_t columns, int64_t gap) {
    TestMatrix m = matrix_new(dtype, rows, columns, gap);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < columns; i++) matrix_set(&m, r, i, 0);
    return m;
}

/* ---- LayerNorm without biases: as with zeros. ---- */

static void test_unbiased(void **state) {
    static const int sizes[][2] = {{1, 3}, {5, 33}, {9, 768}, {2, 1500}, {3, 9000}};
    TestRandom random = {14};
    Error err;
    for (int i = 0; i < 5; i++)
        for (int type = 0; type < 2; type++) {
            const int rows = sizes[i][0], d = sizes[i][1];
            TestMatrix x = matrix_random(&random, both[type], rows, d, 0, 1, 2);
            TestMatrix w = matrix_random(&random, DTYPE_F32, 1, d, 0, 1, 0);
            TestMatrix zero = cleared(DTYPE_F32, 1, d, 0);
            TestMatrix y[2], stats[2];
            const Tensor scale = tensor_1d(w.t.data, DTYPE_F32, d);
            for (int k = 0; k < 2; k++) {
                y[k] = matrix_new(both[type], rows, d, 0);
                stats[k] = matrix_new(DTYPE_F32, rows, 2, 0);
                const Tensor b = k ? TENSOR_NONE : tensor_1d(zero.t.data, DTYPE_F32, d);
                assert_ok(layernorm_forward(isa_device(state), y[k].t, TENSOR_NONE, stats[k].t, x.t,
                                            scale, b, 1e-5f, &err),
                          &err);
            }
            for (int r = 0; r < rows; r++) {
                assert_true(matrix_same_row(&stats[0], r, &stats[1], r));
                for (int j = 0; j < d; j++)
                    assert_true(matrix_get(&y[0], r, j) == matrix_get(&y[1], r, j));
            }
            for (int k = 0; k < 2; k++) matrix_free(&y[k]), matrix_free(&stats[k]);
            matrix_free(&x), matrix_free(&w), matrix_free(&zero);
        }
}

/* ---- Attention. ---- */

typedef struct Case {
    TestMatrix q, k, v, out, lse, dout, dq, dk, dv;
    int heads, key_heads, width;
    double scale;
    double *want, *dq_want, *dk_want, *dv_want;
    const AttentionSpan *spans;
    int span_count;
    const Dropout *dropout;
} Case;

/* The softmax p and the mask z of one row and head, over the n keys it sees. */
static int weights_of(const Case *c, const AttentionSpan *span, int row, int head, int *keys,
                      double *p, double *z) {
    int n = 0;
    double largest = -INFINITY, sum = 0;
    for (int r = 0; r < span->range_count; r++)
        for (int j = span->range[r].begin; j < span->range[r].end; j++) keys[n++] = j;
    const int own = n - (span->q_end - row); /* the query's own key */
    if (span->causal) n = own + 1;
    for (int j = 0; j < n; j++) {
        const int key_head = head / (c->heads / c->key_heads);
        p[j] = 0;
        for (int d = 0; d < c->width; d++)
            p[j] += c->scale * matrix_get(&c->q, row, head * c->width + d) *
                    matrix_get(&c->k, keys[j], key_head * c->width + d);
        largest = fmax(largest, p[j]);
    }
    for (int j = 0; j < n; j++) {
        if (span->window && abs(own - j) > span->window) p[j] = -INFINITY;
        sum += p[j] = exp(p[j] - largest);
    }
    for (int j = 0; j < n; j++) {
        const uint64_t index = ((uint64_t)row * (uint64_t)c->heads + (uint64_t)head) * 65536u;
        p[j] /= sum, z[j] = 1;
        if (!c->dropout) continue;
        const bool kept = random_uniform(c->dropout->seed, c->dropout->stream,
                                         index + (uint64_t)j) >= c->dropout->p;
        z[j] = kept ? 1 / (1 - (double)c->dropout->p) : 0;
    }
    return n;
}

/* Adds one row's and head's part to what is wanted. */
static void oracle_row(Case *c, const AttentionSpan *span, int row, int head) {
    enum { MOST = 1024 };
    int keys[MOST];
    double p[MOST], z[MOST], dp[MOST], total = 0;
    const int w = c->width, key_head = head / (c->heads / c->key_heads);
    const int n = weights_of(c, span, row, head, keys, p, z);
    const int64_t qd = c->heads * w, kd = c->key_heads * w;
    for (int j = 0; j < n; j++) {
        dp[j] = 0;
        for (int d = 0; d < w; d++) {
            const double v = matrix_get(&c->v, keys[j], key_head * w + d),
                         dout = matrix_get(&c->dout, row, head * w + d);
            c->want[row * qd + head * w + d] += p[j] * z[j] * v;
            c->dv_want[keys[j] * kd + key_head * w + d] += p[j] * z[j] * dout;
            dp[j] += z[j] * dout * v;
        }
        total += p[j] * dp[j];
    }
    for (int j = 0; j < n; j++) {
        const double ds = p[j] * (dp[j] - total) * c->scale;
        for (int d = 0; d < w; d++) {
            c->dq_want[row * qd + head * w + d] +=
                ds * matrix_get(&c->k, keys[j], key_head * w + d);
            c->dk_want[keys[j] * kd + key_head * w + d] +=
                ds * matrix_get(&c->q, row, head * w + d);
        }
    }
}

/* Forward and backward over the spans, in which every row must be. */
static void attention_case(Device *device, TestRandom *random, Dtype dtype, int rows, int key_rows,
                           int heads, int key_heads, int width, const AttentionSpan *spans,
                           int count, const Dropout *dropout, const char *what) {
    const int qd = heads * width, kd = key_heads * width, gap = 8;
    const Dtype f32 = DTYPE_F32;
    Error err;
    Case c = {matrix_random(random, dtype, rows, qd, gap, 1, 0),
              matrix_random(random, dtype, key_rows, kd, gap, 1, 0),
              matrix_random(random, dtype, key_rows, kd, gap, 1, 0),
              matrix_new(dtype, rows, qd, gap),
              matrix_new(f32, rows, heads, 0),
              matrix_random(random, dtype, rows, qd, gap, 1, 0),
              matrix_new(dtype, rows, qd, gap),
              cleared(f32, key_rows, kd, gap),
              cleared(f32, key_rows, kd, gap),
              heads,
              key_heads,
              width,
              (double)(float)(1 / sqrt(width)),
              zeros((int64_t)rows * qd),
              zeros((int64_t)rows * qd),
              zeros((int64_t)key_rows * kd),
              zeros((int64_t)key_rows * kd),
              spans,
              count,
              dropout};
    for (int s = 0; s < count; s++)
        for (int row = spans[s].q_begin; row < spans[s].q_end; row++)
            for (int h = 0; h < heads; h++) oracle_row(&c, &spans[s], row, h);
    assert_ok(attention_forward(device, c.out.t, c.lse.t, c.q.t, c.k.t, c.v.t, heads,
                                (float)c.scale, spans, count, dropout, &err),
              &err);
    matrix_assert_close(&c.out, c.want, dtype_limit(dtype), what);
    assert_ok(attention_backward(device, c.dq.t, c.dk.t, c.dv.t, c.dout.t, c.out.t, c.lse.t, c.q.t,
                                 c.k.t, c.v.t, heads, (float)c.scale, spans, count, dropout, &err),
              &err);
    matrix_assert_close(&c.dq, c.dq_want, limit_of(dtype), what);
    matrix_assert_close(&c.dk, c.dk_want, limit_of(dtype), what);
    matrix_assert_close(&c.dv, c.dv_want, limit_of(dtype), what);
    free(c.want), free(c.dq_want), free(c.dk_want), free(c.dv_want);
    matrix_free(&c.q), matrix_free(&c.k), matrix_free(&c.v), matrix_free(&c.out);
    matrix_free(&c.lse), matrix_free(&c.dout), matrix_free(&c.dq), matrix_free(&c.dk);
    matrix_free(&c.dv);
}

/* Several sequences, causal and not; a causal one after keys that all its rows see, in two ranges;
 * one longer than the tiles of every kernel. */
static const AttentionSpan layout[] = {
    {0, 1, 1, {{0, 1}}, 1},       {1, 30, 1, {{1, 30}}, 1},
    {30, 50, 1, {{30, 50}}, 0},   {50, 63, 2, {{30, 37}, {50, 63}}, 1},
    {63, 210, 1, {{63, 210}}, 1},
};
enum { ROWS = 210, SPANS = sizeof layout / sizeof *layout };

static void test_causal(void **state) {
    static const int heads[][3] = {{2, 2, 16}, {4, 2, 8}, {3, 1, 64}, {6, 2, 10}, {2, 1, 128}};
    const Dropout dropout = {0.3f, 5, 9};
    TestRandom random = {7};
    for (int i = 0; i < 5; i++)
        for (int type = 0; type < 2; type++) {
            const int *h = heads[i];
            attention_case(isa_device(state), &random, both[type], ROWS, ROWS, h[0], h[1], h[2],
                           layout, SPANS, i % 2 ? &dropout : NULL, "causal");
        }
}

/* Windows that are narrower and wider than tiles and sequences, also after keys of other rows and
 * together with `causal`. */
static const AttentionSpan windows[] = {
    {0, 1, 1, {{0, 1}}, 0, 3},
    {1, 30, 1, {{1, 30}}, 0, 1},
    {30, 50, 1, {{30, 50}}, 0, 40},
    {50, 63, 2, {{30, 37}, {50, 63}}, 0, 9},
    {63, 210, 1, {{63, 210}}, 0, 5},
    {210, 380, 1, {{210, 380}}, 0, 64},
    {380, 450, 2, {{250, 330}, {380, 450}}, 1, 17},
    {450, 460, 1, {{450, 460}}, 0, 0},
};

static void test_windows(void **state) {
    enum { WINDOW_ROWS = 460, WINDOWS = sizeof windows / sizeof *windows };
    static const int heads[][3] = {{2, 2, 16}, {4, 2, 8}, {2, 2, 64}, {2, 1, 10}, {1, 1, 130}};
    const Dropout dropout = {0.3f, 5, 9};
    TestRandom random = {11};
    for (int i = 0; i < 5; i++)
        for (int type = 0; type < 2; type++) {
            const int *h = heads[i];
            attention_case(isa_device(state), &random, both[type], WINDOW_ROWS, WINDOW_ROWS, h[0],
                           h[1], h[2], windows, WINDOWS, i % 2 ? &dropout : NULL, "windows");
        }
}

/* A window that reaches over a whole sequence changes no bit. */
static void test_wide_window(void **state) {
    enum { N = 100, D = 32 };
    TestRandom random = {12};
    Error err;
    TestMatrix q = matrix_random(&random, DTYPE_F32, N, D, 0, 1, 0);
    TestMatrix all = matrix_new(DTYPE_F32, N, D, 0), same = matrix_new(DTYPE_F32, N, D, 0);
    const AttentionSpan spans[] = {{0, N, 1, {{0, N}}, 0, 0}, {0, N, 1, {{0, N}}, 0, N - 1}};
    assert_ok(attention_forward(isa_device(state), all.t, TENSOR_NONE, q.t, q.t, q.t, 2, 0.3f,
                                &spans[0], 1, NULL, &err),
              &err);
    assert_ok(attention_forward(isa_device(state), same.t, TENSOR_NONE, q.t, q.t, q.t, 2, 0.3f,
                                &spans[1], 1, NULL, &err),
              &err);
    for (int r = 0; r < N; r++) assert_true(matrix_same_row(&same, r, &all, r));
    matrix_free(&q), matrix_free(&all), matrix_free(&same);
}

static void test_wrong_windows(void **state) {
    TestRandom random = {13};
    Error err;
    TestMatrix q = matrix_random(&random, DTYPE_F32, 6, 8, 0, 1, 0);
    TestMatrix out = matrix_new(DTYPE_F32, 6, 8, 0);
    const AttentionSpan spans[] = {{0, 6, 1, {{0, 6}}, 0, -1}, {0, 6, 1, {{0, 5}}, 0, 2}};
    for (int i = 0; i < 2; i++)
        assert_refused(attention_forward(isa_device(state), out.t, TENSOR_NONE, q.t, q.t, q.t, 1, 1,
                                         &spans[i], 1, NULL, &err),
                       &err, "span 0", "has a window of");
    matrix_free(&q), matrix_free(&out);
}

/* Queries of the end of a sequence whose keys lie in a cache; few and many. */
static void test_cached(void **state) {
    TestRandom random = {8};
    for (int queries = 1; queries < 120; queries += 37)
        for (int causal = 0; causal < 2; causal++)
            for (int type = 0; type < 2; type++) {
                const AttentionSpan span = {0, queries, 2, {{3, 60}, {70, 140}}, causal};
                attention_case(isa_device(state), &random, both[type], queries, 150, 4, 2, 24,
                               &span, 1, NULL, "cached");
            }
}

/* A causal row has the bits that it has alone, as the last query. */
static void test_rows_alone(void **state) {
    enum { N = 130, HEADS = 4, WIDTH = 32, SHARED = 2 };
    TestRandom random = {9};
    Error err;
    for (int type = 0; type < 2; type++) {
        TestMatrix q = matrix_random(&random, both[type], N, HEADS * WIDTH, 0, 1, 0);
        TestMatrix k = matrix_random(&random, both[type], N, SHARED * WIDTH, 0, 1, 0);
        TestMatrix v = matrix_random(&random, both[type], N, SHARED * WIDTH, 0, 1, 0);
        TestMatrix all = matrix_new(both[type], N, HEADS * WIDTH, 0);
        TestMatrix one = matrix_new(both[type], N, HEADS * WIDTH, 0);
        const AttentionSpan whole = {0, N, 1, {{0, N}}, 1};
        assert_ok(attention_forward(isa_device(state), all.t, TENSOR_NONE, q.t, k.t, v.t, HEADS,
                                    0.2f, &whole, 1, NULL, &err),
                  &err);
        for (int r = 0; r < N; r += 9) {
            const AttentionSpan alone = {r, r + 1, 1, {{0, r + 1}}, r % 2};
            assert_ok(attention_forward(isa_device(state), one.t, TENSOR_NONE, q.t, k.t, v.t, HEADS,
                                        0.2f, &alone, 1, NULL, &err),
                      &err);
            assert_true(matrix_same_row(&one, r, &all, r));
        }
        matrix_free(&q), matrix_free(&k), matrix_free(&v), matrix_free(&all), matrix_free(&one);
    }
}

/* The seconds of one forward and backward pass over a sequence. */
static double pass_seconds(Device *device, int32_t causal) {
    enum { N = 1024, HEADS = 8, SHARED = 2, WIDTH = 64, ROUNDS = 3 };
    const Dtype f32 = DTYPE_F32;
    Error err;
    TestRandom random = {10};
    TestMatrix q = matrix_random(&random, f32, N, HEADS * WIDTH, 0, 1, 0);
    TestMatrix k = matrix_random(&random, f32, N, SHARED * WIDTH, 0, 1, 0);
    TestMatrix out = matrix_new(f32, N, HEADS * WIDTH, 0),
               dq = matrix_new(f32, N, HEADS * WIDTH, 0);
    TestMatrix dk = cleared(f32, N, SHARED * WIDTH, 0);
    TestMatrix lse = matrix_new(f32, N, HEADS, 0);
    const AttentionSpan span = {0, N, 1, {{0, N}}, causal};
    double least = INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        const double before = clock_seconds();
        assert_ok(attention_forward(device, out.t, lse.t, q.t, k.t, k.t, HEADS, 0.125f, &span, 1,
                                    NULL, &err),
                  &err);
        assert_ok(attention_backward(device, dq.t, dk.t, dk.t, q.t, out.t, lse.t, q.t, k.t, k.t,
                                     HEADS, 0.125f, &span, 1, NULL, &err),
                  &err);
        least = fmin(least, clock_seconds() - before);
    }
    matrix_free(&q), matrix_free(&k), matrix_free(&out), matrix_free(&dq), matrix_free(&dk);
    matrix_free(&lse);
    return least;
}

/* Half of the scores are not computed: expected is a little more than half of the time. */
static void test_speed(void **state) {
    Device *device = isa_device(state);
    const double full = pass_seconds(device, 0), causal = pass_seconds(device, 1);
    printf("note: attention of 1024 rows, forward and backward, %s: causal in %.2f of the time\n",
           isa_name(device), causal / full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(test_rmsnorm),       ON_EACH_ISA(test_rmsnorm_backward),
        ON_EACH_ISA(test_rotary),        ON_EACH_ISA(test_gated),
        ON_EACH_ISA(test_causal),        ON_EACH_ISA(test_cached),
        ON_EACH_ISA(test_rows_alone),    ON_EACH_CPU_ISA(test_speed),
        ON_EACH_ISA(test_windows),       ON_EACH_ISA(test_wide_window),
        ON_EACH_ISA(test_wrong_windows), ON_EACH_ISA(test_unbiased),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
