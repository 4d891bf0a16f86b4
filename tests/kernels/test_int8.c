/* Weights of 8-bit integers: quantized, multiplied, gathered, trained from; compared with plain
 * loops in double precision on the dequantized values. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/int8.h"
#include "kernels/ops.h"
#include "kernels/params.h"

#include <math.h>

static Device *device_any(const char *isa) {
    Error err;
    Device *device;
    DeviceOptions options = {.threads = 2, .isa = isa};
    assert_ok(test_device_open(&device, &options, &err), &err);
    return device;
}

/* A weight of random integers and scales, and its values. */
typedef struct Weight {
    Tensor t;
    int8_t *integers;
    float *scales;
    double *values;
} Weight;

static Weight weight_make(TestRandom *random, int n, int k) {
    Weight w = {.integers = malloc((size_t)(n * k)),
                .scales = malloc((size_t)n * sizeof(float)),
                .values = malloc((size_t)(n * k) * sizeof(double))};
    assert_true(w.integers && w.scales && w.values);
    for (int i = 0; i < n; i++)
        w.scales[i] = (float)((0.5 + test_random_uniform(random)) / 127 / sqrt(k));
    for (int i = 0; i < n * k; i++) {
        w.integers[i] = (int8_t)((int)(test_random_next(random) % 256) - 128); /* -128 too */
        w.values[i] = (double)w.integers[i] * w.scales[i / k];
    }
    w.t = tensor_2d(w.integers, DTYPE_I8, n, k);
    w.t.scale = w.scales;
    return w;
}

static void weight_free(Weight *w) {
    free(w->integers), free(w->scales), free(w->values);
}

/* ---- Quantization. ---- */

static void quantizes_rows(void **state) {
    (void)state;
    TestRandom random = {3};
    for (int n = 1; n < 700; n += 1 + n / 3) {
        float row[700];
        int8_t integers[700];
        double most = 0;
        for (int i = 0; i < n; i++) {
            row[i] = test_random_normal(&random) * 0.3f;
            most = fmax(most, fabs(row[i]));
        }
        float scale = int8_quantize(integers, row, n);
        assert_true(fabs(scale - most / 127) <= 1e-6 * most);
        bool reached = false;
        for (int i = 0; i < n; i++) {
            /* The nearest integer: at most half a scale away. */
            assert_true(fabs((double)integers[i] * scale - row[i]) <= 0.500001 * scale);
            assert_true(integers[i] >= -127);
            reached |= abs(integers[i]) == 127;
        }
        assert_true(reached);
    }
    int8_t integers[3];
    assert_true(int8_quantize(integers, (float[]){0, -0.0f, 0}, 3) == 1);
    assert_true(!integers[0] && !integers[1] && !integers[2]);
    assert_true(isnan(int8_quantize(integers, (float[]){1, NAN, 2}, 3)));
    assert_true(isnan(int8_quantize(integers, (float[]){-INFINITY, 1, 2}, 3)));
}

/* Quantizing dequantized values gives the same integers. */
static void values_and_back(void **state) {
    (void)state;
    enum { N = 9, K = 37 };
    TestRandom random = {4};
    Weight w = weight_make(&random, N, K);
    float values[N * K];
    for (int first = 0; first < N * K; first += 61) {
        int count = N * K - first < 61 ? N * K - first : 61;
        tensor_values(values + first, DTYPE_F32, w.t, first, count); /* across rows */
    }
    for (int i = 0; i < N * K; i++) assert_true(values[i] == (float)w.values[i]);
    for (int r = 0; r < N; r++) {
        w.integers[r * K] = 127;
        for (int i = 0; i < K; i++)
            if (w.integers[r * K + i] == -128) w.integers[r * K + i] = -127;
        float row[K];
        int8_t again[K];
        tensor_values(row, DTYPE_F32, w.t, r * K, K);
        int8_quantize(again, row, K);
        assert_memory_equal(again, w.integers + r * K, K);
    }
    assert_int_equal(tensor_stored_bytes(w.t), N * K + N * 4);
    weight_free(&w);
}

/* ---- Matmuls. ---- */

typedef struct Case {
    int t, k, n;
    Dtype c, y;
    Activation activation;
    bool accumulate, bias, slices, parts, mixed;
} Case;

static double activate(double v, Activation activation) {
    if (activation == ACTIVATION_GELU) return v / 2 * (1 + erf(v / sqrt(2)));
    return activation == ACTIVATION_RELU ? fmax(v, 0) : v;
}

static float *floats_make(TestRandom *random, void **data, Dtype dtype, int n) {
    float *f = malloc((size_t)(n + 1) * sizeof *f);
    *data = malloc((size_t)(n + 1) * dtype_size(dtype));
    assert_true(f && *data);
    for (int i = 0; i < n; i++) f[i] = test_random_normal(random);
    values_convert(*data, dtype, f, DTYPE_F32, (size_t)n);
    values_convert(f, DTYPE_F32, *data, dtype, (size_t)n);
    return f;
}

/* As one piece, or as three of which, with `mixed`, the middle one is plain f32. */
static struct Packed *pack_pieces(Device *device, const Case *c, const Weight *w) {
    Error err;
    struct Packed *packed;
    Tensor pieces[3] = {w->t};
    int count = 1;
    float *plain = NULL;
    if (c->parts && c->n >= 3) {
        int a = c->n / 3, b = c->n / 2, k = c->k;
        pieces[0] = tensor_rows(w->t, 0, a);
        pieces[1] = tensor_rows(w->t, a, b - a);
        pieces[2] = tensor_rows(w->t, b, c->n - b);
        if (c->mixed) {
            plain = malloc((size_t)((b - a) * k + 1) * sizeof *plain);
            assert_non_null(plain);
            for (int i = 0; i < (b - a) * k; i++) plain[i] = (float)w->values[a * k + i];
            pieces[1] = tensor_2d(plain, DTYPE_F32, b - a, k);
        }
        count = 3;
    }
    assert_ok(pack_weight(device, &packed, pieces, count, c->c, false, NULL, &err), &err);
    assert_int_equal(packed_bytes(packed),
                     pack_size(device, c->n, c->k, plain ? DTYPE_F32 : DTYPE_I8, c->c, false));
    free(plain);
    return packed;
}

/* The error of one case, relative to the sums before the activation. */
static double linear_case(Device *device, const Case *c, TestRandom *random) {
    Error err;
    int t = c->t, k = c->k, n = c->n, x_ld = k + (c->slices ? 5 : 0),
        y_ld = n + (c->slices ? 7 : 0);
    void *x, *y, *b;
    float *xf = floats_make(random, &x, c->c, t * x_ld),
          *bf = floats_make(random, &b, DTYPE_F32, n);
    float *yf = floats_make(random, &y, c->y, t * y_ld);
    Weight w = weight_make(random, n, k);
    struct Packed *packed = pack_pieces(device, c, &w);
    memset(w.integers, 0x55, (size_t)(n * k)); /* a pack is a copy */
    memset(w.scales, 0xff, (size_t)n * sizeof *w.scales);
    Tensor yt = tensor_columns(tensor_2d(y, c->y, t, y_ld), c->slices ? 3 : 0, n);
    Tensor xt = tensor_columns(tensor_2d(x, c->c, t, x_ld), c->slices ? 2 : 0, k);
    Tensor bt = c->bias ? tensor_1d(b, DTYPE_F32, n) : TENSOR_NONE;
    assert_ok(linear_forward(device, yt, xt, (Tensor){.packed = packed}, bt, c->activation,
                             c->accumulate, &err),
              &err);
    float *got = malloc((size_t)(t * y_ld) * sizeof *got);
    assert_non_null(got);
    values_convert(got, DTYPE_F32, y, c->y, (size_t)(t * y_ld));
    double difference = 0, norm = 0;
    for (int r = 0; r < t; r++)
        for (int j = 0; j < y_ld; j++) {
            int at = r * y_ld + j, column = j - (c->slices ? 3 : 0);
            if (column < 0 || column >= n) {
                if (got[at] != yf[at]) fail_msg("a value outside of y was written");
                continue;
            }
            double sum = (c->bias ? bf[column] : 0) + (c->accumulate ? yf[at] : 0);
            for (int i = 0; i < k; i++)
                sum += xf[r * x_ld + (c->slices ? 2 : 0) + i] * w.values[column * k + i];
            double d = got[at] - activate(sum, c->activation);
            difference += d * d, norm += sum * sum;
        }
    packed_free(device, packed);
    weight_free(&w);
    free(x), free(y), free(b), free(xf), free(yf), free(bf), free(got);
    return sqrt(difference / norm);
}

static const int shapes[][3] = {{1, 1, 1},     {1, 7, 514},   {2, 1024, 3},    {3, 588, 32},
                                {17, 64, 48},  {4, 768, 97},  {33, 99, 130},   {61, 96, 288},
                                {137, 41, 65}, {19, 333, 97}, {5, 1030, 1041}, {300, 16, 20}};

static double sweep(Device *device, Dtype c, Dtype y, double limit) {
    static const Activation activations[] = {ACTIVATION_NONE, ACTIVATION_GELU, ACTIVATION_RELU};
    TestRandom random = {7};
    double worst = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int a = 0; a < 4; a++) {
            const int *s = shapes[i];
            Case one = {s[0], s[1], s[2], c, y, activations[a % 3], .accumulate = a == 3};
            one.bias = (i + (size_t)a) % 3 != 0, one.slices = (i + (size_t)a) % 2 == 0;
            one.parts = a > 0, one.mixed = a == 2;
            double error = linear_case(device, &one, &random);
            if (!(error <= limit))
                fail_msg("[%d, %d] x [%d, %d], %s to %s, case %d: relative error %g, limit %g",
                         one.t, one.k, one.k, one.n, dtype_name(c), dtype_name(y), a, error, limit);
            if (error > worst) worst = error;
        }
    return worst;
}

/* f32: that of dequantized weights. bf16, where rows of x may be quantized too: a value changes by
 * at most 1/254 of its row's largest; normal numbers by 0.7 % of their size in the mean square. */
static void linear_of_int8(void **state) {
    (void)state;
    static const char *const isas[] = {"base", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        Device *device;
        Error err;
        DeviceOptions options = {.threads = 2, .isa = isas[i]};
        if (test_device_open(&device, &options, &err)) continue;
        print_message("# %s: f32 %.2g", isas[i], sweep(device, DTYPE_F32, DTYPE_F32, 3e-6));
        if (device_has_bf16(device)) {
            print_message(", bf16 to f32 %.2g", sweep(device, DTYPE_BF16, DTYPE_F32, 0.016));
            print_message(", bf16 to bf16 %.2g", sweep(device, DTYPE_BF16, DTYPE_BF16, 0.016));
        }
        print_message("\n");
        device_close(device);
    }
}

/* A row's bits do not depend on the other rows; a value that is not finite stays in its row. */
static void rows_are_independent(void **state) {
    (void)state;
    enum { T = 70, K = 77, N = 33 };
    Error err;
    Device *device = device_any(NULL);
    Dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (int c = 0; c < (device_has_bf16(device) ? 2 : 1); c++) {
        TestRandom random = {11};
        Weight w = weight_make(&random, N, K);
        struct Packed *packed;
        assert_ok(pack_weight(device, &packed, &w.t, 1, types[c], false, NULL, &err), &err);
        void *x;
        free(floats_make(&random, &x, types[c], T * K));
        size_t row = K * dtype_size(types[c]);
        memset((char *)x + 5 * row, 0, row);
        float nan = NAN, y[T * N], one[N];
        values_convert((char *)x + 9 * row, types[c], &nan, DTYPE_F32, 1);
        Tensor xt = tensor_2d(x, types[c], T, K), wt = {.packed = packed};
        assert_ok(linear_forward(device, tensor_2d(y, DTYPE_F32, T, N), xt, wt, TENSOR_NONE,
                                 ACTIVATION_NONE, false, &err),
                  &err);
        for (int r = 0; r < T; r++) {
            assert_ok(linear_forward(device, tensor_2d(one, DTYPE_F32, 1, N), tensor_rows(xt, r, 1),
                                     wt, TENSOR_NONE, ACTIVATION_NONE, false, &err),
                      &err);
            for (int i = 0; i < N; i++) {
                if (r == 9) assert_true(isnan(one[i]) && isnan(y[r * N + i]));
                if (r == 5) assert_true(one[i] == 0);
                /* cuBLASLt and f32 matmuls may choose another order for another number of rows */
                if (r != 9) assert_true(fabsf(one[i] - y[r * N + i]) <= 1e-5f);
            }
        }
        packed_free(device, packed);
        weight_free(&w);
        free(x);
    }
    device_close(device);
}

/* The head: proposals and logits over several chunks of a vocabulary. */
static void vocabulary_of_int8(void **state) {
    (void)state;
    enum { R = 3, D = 19, V = 2 * 4096 + 77 };
    Error err;
    Device *device = device_any(NULL);
    TestRandom random = {5};
    Weight w = weight_make(&random, V, D);
    struct Packed *packed;
    assert_ok(pack_weight(device, &packed, &w.t, 1, DTYPE_F32, true, NULL, &err), &err);
    void *x, *b;
    float *xf = floats_make(&random, &x, DTYPE_F32, R * D);
    float *bf = floats_make(&random, &b, DTYPE_F32, V);
    float *logits = malloc(sizeof *logits * R * V), *want = malloc(sizeof *want * R * V);
    assert_true(logits && want);
    int32_t tokens[R];
    float scores[R];
    Tensor xt = tensor_2d(x, DTYPE_F32, R, D), wt = {.packed = packed};
    Tensor bt = tensor_1d(b, DTYPE_F32, V);
    VocabChoice choice = {.banned = 7, .limit = V};
    assert_ok(vocab_logits(device, tensor_2d(logits, DTYPE_F32, R, V), xt, wt, bt, &err), &err);
    assert_ok(vocab_propose(device, tokens, scores, xt, wt, bt, &choice, &err), &err);
    for (int r = 0; r < R; r++) {
        double best = -INFINITY, sum = 0;
        int id = 0;
        for (int v = 0; v < V; v++) {
            double logit = bf[v];
            for (int i = 0; i < D; i++) logit += xf[r * D + i] * w.values[v * D + i];
            want[r * V + v] = (float)logit;
            if (v == 7) continue;
            sum += exp(logit);
            if (logit > best) best = logit, id = v;
        }
        assert_int_equal(tokens[r], id);
        assert_true(fabs(scores[r] - (best - log(sum))) < 1e-4);
    }
    assert_close(logits, want, R * V, 3e-6, "logits");
    packed_free(device, packed);
    weight_free(&w);
    free(x), free(b), free(xf), free(bf), free(logits), free(want);
    device_close(device);
}

static void gathers_int8(void **state) {
    (void)state;
    enum { T = 11, D = 530, R = 13 };
    Error err;
    Device *device = device_any(NULL);
    TestRandom random = {6};
    Weight w = weight_make(&random, R, D);
    void *table;
    float *tf = floats_make(&random, &table, DTYPE_BF16, R * D);
    int32_t index[2][T];
    for (int i = 0; i < T; i++) index[0][i] = i % 5 == 3 ? -1 : i % R, index[1][i] = (3 * i) % R;
    GatherTerm terms[] = {
        {w.t, tensor_1d(index[0], DTYPE_I32, T)},
        {tensor_2d(table, DTYPE_BF16, R, D), tensor_1d(index[1], DTYPE_I32, T)},
        {w.t, tensor_1d(index[1], DTYPE_I32, T)},
    };
    float y[T * D], want[T * D];
    assert_ok(gather_forward(device, tensor_2d(y, DTYPE_F32, T, D), terms, 3, &err), &err);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < D; i++)
            want[t * D + i] = (float)((index[0][t] < 0 ? 0 : w.values[index[0][t] * D + i]) +
                                      tf[index[1][t] * D + i] + w.values[index[1][t] * D + i]);
    assert_close(y, want, T * D, 1e-6, "a gather");
    terms[0].table.scale = NULL;
    assert_refused(gather_forward(device, tensor_2d(y, DTYPE_F32, T, D), terms, 3, &err), &err,
                   "gather_forward", "i8 without scales");
    weight_free(&w);
    free(table), free(tf);
    device_close(device);
}

/* ---- Parameter tables. ---- */

typedef struct Slots {
    Tensor matrix, table, words, head, bias, conv;
} Slots;

static void declare(Params *p, Slots *s, Device *device) {
    Error err;
    params_init(p, device);
    ParamSpec specs[] = {
        {.slot = &s->matrix, .role = PARAM_MATRIX, .ndim = 2, .shape = {9, 21}},
        {.slot = &s->table, .role = PARAM_TABLE, .ndim = 2, .shape = {5, 21}, .frozen = true},
        {.slot = &s->head,
         .table_slot = &s->words,
         .role = PARAM_VOCABULARY,
         .ndim = 2,
         .shape = {30, 21}},
        {.slot = &s->bias, .role = PARAM_VECTOR, .ndim = 1, .shape = {9}},
        {.slot = &s->conv, .role = PARAM_MATRIX, .ndim = 4, .shape = {6, 3, 2, 2}, .frozen = true},
    };
    const char *const names[] = {"matrix", "table", "words", "bias", "conv"};
    for (int i = 0; i < 5; i++) assert_ok(params_declare(p, &specs[i], &err, "%s", names[i]), &err);
}

static void refuses_values(void **state) {
    (void)state;
    Error err;
    Device *device = device_any(NULL);
    Params p;
    Slots s;
    declare(&p, &s, device);
    TestRandom random = {8};
    Weight w = weight_make(&random, 9, 21);
    assert_ok(params_set(params_find(&p, "matrix"), w.t, &err), &err);
    Tensor bare = w.t;
    bare.scale = NULL;
    assert_refused(params_set(params_find(&p, "matrix"), bare, &err), &err, "i8 with scales");
    Tensor vector = tensor_2d(w.integers, DTYPE_I8, 9, 1);
    vector.scale = w.scales;
    assert_refused(params_set(params_find(&p, "bias"), vector, &err), &err, "i8");
    Tensor turned = tensor_nd(w.integers, DTYPE_I8, 3, (int64_t[]){1, 9, 21});
    turned.scale = w.scales;
    assert_refused(params_set(params_find(&p, "matrix"), turned, &err), &err, "i8");
    weight_free(&w);
    params_free(&p);
    device_close(device);
}

/* Training dequantizes: masters, frozen tables and what is fetched are the dequantized values. */
static void trains_from_int8(void **state) {
    (void)state;
    Error err;
    Device *device = device_any(NULL);
    Params p;
    Slots s;
    declare(&p, &s, device);
    TestRandom random = {9};
    const int rows[] = {9, 5, 30, 0, 6}, columns[] = {21, 21, 21, 0, 12};
    Weight w[5];
    float bias[9] = {1, 2, 3};
    for (int i = 0; i < 5; i++) {
        if (i == 3) continue;
        w[i] = weight_make(&random, rows[i], columns[i]);
        Tensor t = w[i].t;
        if (i == 4) {
            t = tensor_nd(t.data, DTYPE_I8, 4, (int64_t[]){6, 3, 2, 2});
            t.scale = w[i].scales;
        }
        assert_ok(params_set(&p.items[i], t, &err), &err);
    }
    assert_ok(params_set(&p.items[3], tensor_1d(bias, DTYPE_F32, 9), &err), &err);
    assert_int_equal(params_stored_bytes(&p),
                     (9 + 5 + 30) * 21 + 6 * 12 + 4 * (9 + 5 + 30 + 6) + 36);
    size_t predicted = params_training_bytes(&p, DTYPE_F32);
    assert_true(predicted > 0);
    assert_ok(params_train(&p, DTYPE_F32, &err), &err);
    for (int i = 0; i < 5; i++) {
        if (i == 3) continue;
        float got[700], frozen[700];
        int n = rows[i] * columns[i];
        assert_ok(params_fetch(&p, &p.items[i], got, DTYPE_F32, &err), &err);
        for (int k = 0; k < n; k++) assert_true(got[k] == (float)w[i].values[k]);
        bool trained = i == 0 || i == 2;
        assert_int_equal(p.items[i].value.dtype, trained ? DTYPE_BF16 : DTYPE_I8);
        if (trained) continue;
        assert_int_equal(p.items[i].slot->dtype, DTYPE_F32);
        assert_ok(device_download(device, frozen, p.items[i].slot->data, (size_t)n * 4, &err),
                  &err);
        assert_memory_equal(frozen, got, (size_t)n * 4);
    }
    params_free(&p);
    for (int i = 0; i < 5; i++)
        if (i != 3) weight_free(&w[i]);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantizes_rows),     cmocka_unit_test(values_and_back),
        cmocka_unit_test(linear_of_int8),     cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(vocabulary_of_int8), cmocka_unit_test(gathers_int8),
        cmocka_unit_test(refuses_values),     cmocka_unit_test(trains_from_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
