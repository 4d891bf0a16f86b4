/* Every operation except matmuls and attention, against plain loops in double precision. */
#include "tests/matrix.h"

#include <math.h>

#include "kernels/cpu/isa.h"
#include "kernels/random.h"

static const int sizes[] = {1, 2, 3, 7, 17, 65, 100, 300, 513, 768, 2049};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};

static bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

/* A value as its type stores it. */
static double rounded(double value, Dtype dtype) {
    float f = (float)value, back;
    uint16_t half;
    if (dtype == DTYPE_F32) return f;
    assert_true(values_convert(&half, dtype, &f, DTYPE_F32, 1));
    assert_true(values_convert(&back, DTYPE_F32, &half, dtype, 1));
    return back;
}

/* ---- Conversions. ---- */

/* The value of a half, by its definition. */
static double half_value(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent == 0    ? ldexp(mantissa, -24)
               : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                : ldexp(1024 + mantissa, exponent - 25);
    return h >> 15 ? -v : v;
}

static void convert(Device *device, void *to, Dtype to_dtype, void *from, Dtype from_dtype, int n) {
    Error err;
    assert_ok(
        convert_forward(device, tensor_1d(to, to_dtype, n), tensor_1d(from, from_dtype, n), &err),
        &err);
}

static void test_halves(void **state) {
    Device *device = isa_device(state);
    enum { N = 65536 };
    uint16_t *halves = malloc(N * sizeof *halves), *back = malloc(N * sizeof *back);
    float *values = malloc(N * sizeof *values);
    for (int i = 0; i < N; i++) halves[i] = (uint16_t)i;
    convert(device, values, DTYPE_F32, halves, DTYPE_F16, N);
    convert(device, back, DTYPE_F16, values, DTYPE_F32, N);
    for (int i = 0; i < N; i++) {
        double want = half_value((uint16_t)i);
        float by_one;
        uint16_t again;
        values_convert(&by_one, DTYPE_F32, &halves[i], DTYPE_F16, 1);
        values_convert(&again, DTYPE_F16, &by_one, DTYPE_F32, 1);
        if (isnan(want)) {
            assert_true(isnan(values[i]) && isnan(by_one));
            assert_true(isnan(half_value(back[i])) && isnan(half_value(again)));
            continue;
        }
        assert_true(same_bits(values[i], (float)want) && same_bits(by_one, (float)want));
        assert_true(back[i] == i && again == i);
    }
    /* Between two halves: the nearer one, and of two the even one; past the last, infinity. */
    for (int i = 0; i < 0x7c00; i++) {
        double low = half_value((uint16_t)i),
               high = i == 0x7bff ? 65536 : half_value((uint16_t)(i + 1));
        float middle = (float)((low + high) / 2);
        float in[6] = {nextafterf(middle, -1), middle, nextafterf(middle, INFINITY)};
        uint16_t out[6], want[3] = {(uint16_t)i, (uint16_t)(i + (i & 1)), (uint16_t)(i + 1)};
        for (int k = 0; k < 3; k++) in[3 + k] = -in[k];
        if (i % 16 == 0) convert(device, out, DTYPE_F16, in, DTYPE_F32, 6);
        for (int k = 0; k < 6; k++) {
            uint16_t one;
            values_convert(&one, DTYPE_F16, &in[k], DTYPE_F32, 1);
            assert_int_equal(one, want[k % 3] | (k < 3 ? 0 : 0x8000));
            if (i % 16 == 0) assert_int_equal(out[k], one);
        }
    }
    free(halves), free(back), free(values);
}

static void test_bf16(void **state) {
    Device *device = isa_device(state);
    enum { N = 4 * 65536 };
    uint32_t *bits = malloc(N * sizeof *bits);
    uint16_t *out = malloc(N * sizeof *out);
    float *in = malloc(N * sizeof *in);
    /* Every bf16 number plus nothing, a little less than half, half, and more than half of its last
     * place. */
    static const uint32_t below[] = {0, 0x7fff, 0x8000, 0x8001};
    for (uint32_t i = 0; i < N; i++) bits[i] = (i / 4) << 16 | below[i % 4];
    memcpy(in, bits, N * sizeof *in);
    convert(device, out, DTYPE_BF16, in, DTYPE_F32, N);
    for (uint32_t i = 0; i < N; i++) {
        uint16_t high = (uint16_t)(i / 4), alone;
        values_convert(&alone, DTYPE_BF16, &in[i], DTYPE_F32, 1);
        if (isnan(in[i])) {
            assert_true(isnan(bf16_to_f32(out[i])) && isnan(bf16_to_f32(alone)));
            assert_int_equal(out[i] >> 15, high >> 15);
            continue;
        }
        assert_int_equal(out[i], high + (i % 4 == 3 || (i % 4 == 2 && (high & 1))));
        assert_int_equal(out[i], alone);
    }
    convert(device, in, DTYPE_F32, out, DTYPE_BF16, N);
    for (int i = 0; i < N; i++) assert_true(isnan(in[i]) || same_bits(in[i], bf16_to_f32(out[i])));
    free(bits), free(out), free(in);
}

static void test_convert(void **state) {
    Device *device = isa_device(state);
    TestRandom random = {21};
    Error err;
    for (int s = 0; s < SIZES; s++)
        for (int pair = 0; pair < 9; pair++)
            for (int gap = 0; gap < 10; gap += 9) {
                Dtype from = types[pair % 3], to = types[pair / 3];
                TestMatrix x = matrix_random(&random, from, 5, sizes[s], gap, 1, 0);
                TestMatrix y = matrix_new(to, 5, sizes[s], gap ? 2 * gap : 0);
                assert_ok(convert_forward(device, y.t, x.t, &err), &err);
                for (int r = 0; r < 5; r++)
                    for (int c = 0; c < sizes[s]; c++)
                        assert_true(matrix_get(&y, r, c) == rounded(matrix_get(&x, r, c), to));
                matrix_free(&x), matrix_free(&y);
            }
}

/* ---- Layer norm. ---- */

static void layernorm_oracle(double *y, double *stats, const TestMatrix *x, const TestMatrix *w,
                             const TestMatrix *b, double eps) {
    int64_t d = x->t.shape[1];
    for (int64_t r = 0; r < x->t.shape[0]; r++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < d; i++) mean += matrix_get(x, r, i) / (double)d;
        for (int64_t i = 0; i < d; i++) square += pow(matrix_get(x, r, i) - mean, 2) / (double)d;
        stats[2 * r] = mean, stats[2 * r + 1] = 1 / sqrt(square + eps);
        for (int64_t i = 0; i < d; i++)
            y[r * d + i] = (matrix_get(x, r, i) - mean) * stats[2 * r + 1] * matrix_get(w, 0, i) +
                           matrix_get(b, 0, i);
    }
}

static void layernorm_case(Device *device, TestRandom *random, int d, Dtype x_dtype, Dtype y_dtype,
                           Dtype copy_dtype, double shift) {
    enum { ROWS = 5 };
    Error err;
    const float eps = 1e-5f;
    TestMatrix x = matrix_random(random, x_dtype, ROWS, d, 0, 1.5, shift);
    TestMatrix w = matrix_random(random, DTYPE_F32, 1, d, 0, 0.3, 1);
    TestMatrix b = matrix_random(random, DTYPE_F32, 1, d, 0, 1, 0);
    TestMatrix y = matrix_new(y_dtype, ROWS, d, 0), copy = matrix_new(copy_dtype, ROWS, d, 0);
    TestMatrix again = matrix_new(y_dtype, ROWS, d, 0), stats = matrix_new(DTYPE_F32, ROWS, 2, 0);
    double *want = malloc((size_t)(ROWS * d) * sizeof *want), want_stats[2 * ROWS];
    layernorm_oracle(want, want_stats, &x, &w, &b, eps);
    assert_ok(layernorm_forward(device, y.t, copy.t, stats.t, x.t, as_vector(&w), as_vector(&b),
                                eps, &err),
              &err);
    /* A mean far from 0 unavoidably costs the deviations digits. */
    double extra = shift != 0 && x_dtype == DTYPE_F32 ? 5e-6 : 0;
    matrix_assert_close(&y, want, dtype_limit(y_dtype) + extra, "layernorm");
    matrix_assert_close(&copy, want, dtype_limit(copy_dtype) + extra, "layernorm copy");
    matrix_assert_close(&stats, want_stats, d == 1 ? 1e-6 : 1e-6 + extra, "layernorm stats");
    assert_ok(layernorm_forward(device, again.t, TENSOR_NONE, TENSOR_NONE, x.t, as_vector(&w),
                                as_vector(&b), eps, &err),
              &err);
    for (int r = 0; r < ROWS; r++) assert_true(matrix_same_row(&again, r, &y, r));
    if (x_dtype == y_dtype) { /* in place, with a NaN in one row */
        matrix_set(&x, 2, d / 2, NAN);
        assert_ok(layernorm_forward(device, x.t, TENSOR_NONE, TENSOR_NONE, x.t, as_vector(&w),
                                    as_vector(&b), eps, &err),
                  &err);
        for (int r = 0; r < ROWS; r++)
            if (r != 2) assert_true(matrix_same_row(&x, r, &y, r));
        for (int i = 0; i < d; i++) assert_true(isnan(matrix_get(&x, 2, i)));
    }
    free(want);
    matrix_free(&x), matrix_free(&w), matrix_free(&b), matrix_free(&y);
    matrix_free(&copy), matrix_free(&again), matrix_free(&stats);
}

static void test_layernorm(void **state) {
    Device *device = isa_device(state);
    TestRandom random = {22};
    for (int s = 0; s < SIZES; s++)
        for (int k = 0; k < 8; k++)
            layernorm_case(device, &random, sizes[s], types[k & 1], types[k >> 1 & 1],
                           types[k >> 2], 0);
    layernorm_case(device, &random, 1024, DTYPE_BF16, DTYPE_BF16, DTYPE_F32, 0);
    layernorm_case(device, &random, 2560, DTYPE_BF16, DTYPE_F32, DTYPE_BF16, 0);
    layernorm_case(device, &random, 4096, DTYPE_F32, DTYPE_BF16, DTYPE_F32, 0);
    layernorm_case(device, &random, 16384, DTYPE_F32, DTYPE_F32, DTYPE_BF16, 0.5);
    layernorm_case(device, &random, 1000, DTYPE_F32, DTYPE_F32, DTYPE_F32, 100);
}

/* ---- Activations. ---- */

static double activation_oracle(double x, Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return x / 2 * erfc(-x / sqrt(2));
    case ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-(double)1.702f * x));
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

static void test_activation(void **state) {
    Device *device = isa_device(state);
    enum { N = 20001, AT_INF = N - 3, AT_MINUS_INF = N - 2, AT_NAN = N - 1 };
    Error err;
    for (int a = ACTIVATION_NONE; a < ACTIVATION_COUNT; a++)
        for (int k = 0; k < 4; k++) {
            Dtype from = types[k & 1], to = types[k >> 1];
            TestMatrix x = matrix_new(from, 1, N, 0), y = matrix_new(to, 1, N, 0);
            for (int i = 0; i < N; i++) { /* +-1e-8 to +-60, and +-0 */
                double v = pow(10, -8 + 9.78 * (i / 2) / (N / 2));
                matrix_set(&x, 0, i, i < 2 ? 0 : i % 2 ? v : -v);
            }
            matrix_set(&x, 0, AT_INF, INFINITY), matrix_set(&x, 0, AT_NAN, NAN);
            matrix_set(&x, 0, AT_MINUS_INF,
                       a == ACTIVATION_QUICK_GELU || a == ACTIVATION_SILU ? -1e30 : -INFINITY);
            assert_ok(activation_forward(device, y.t, x.t, (Activation)a, &err), &err);
            assert_true(isnan(matrix_get(&y, 0, AT_NAN)));
            for (int i = 0; i < N - 3; i++) {
                double v = matrix_get(&x, 0, i), want = activation_oracle(v, (Activation)a);
                /* Relative, also for negative v where the function is nearly 0; there the
                 * exponent's rounding is amplified by v^2 / 2. Below 1e-36 results may be flushed
                 * to 0. */
                double limit = (to == DTYPE_F32 ? 8e-7 + (v < -2 ? 1e-7 * v * v : 0) : 4e-3);
                double got = matrix_get(&y, 0, i);
                if (!(fabs(got - want) <= limit * fabs(want) + 1e-36))
                    fail_msg("%s(%g) = %.9g, expected %.9g", activation_name((Activation)a), v, got,
                             want);
            }
            bool grows = a != ACTIVATION_TANH;
            assert_true(matrix_get(&y, 0, AT_INF) == (grows ? INFINITY : 1));
            if (a != ACTIVATION_NONE)
                assert_true(fabs(matrix_get(&y, 0, AT_MINUS_INF)) == (grows ? 0 : 1));
            matrix_free(&x), matrix_free(&y);
        }
    for (int s = 0; s < SIZES; s++) { /* without writes beyond the end, and in place */
        TestRandom random = {23};
        TestMatrix x = matrix_random(&random, DTYPE_F32, 3, sizes[s], 0, 2, 0);
        TestMatrix y = matrix_new(DTYPE_F32, 3, sizes[s], 0);
        assert_ok(activation_forward(device, y.t, x.t, ACTIVATION_GELU, &err), &err);
        assert_ok(activation_forward(device, x.t, x.t, ACTIVATION_GELU, &err), &err);
        for (int r = 0; r < 3; r++) assert_true(matrix_same_row(&x, r, &y, r));
        matrix_free(&x), matrix_free(&y);
    }
}

/* ---- Gather, patches, means. ---- */

static void test_gather(void **state) {
    Device *device = isa_device(state);
    enum { ROWS = 23, TERMS = 4, TABLE = 11 };
    TestRandom random = {24};
    Error err;
    for (int s = 0; s < SIZES; s++)
        for (int k = 0; k < 2; k++) {
            int d = sizes[s];
            TestMatrix y = matrix_new(types[k], ROWS, d, 0), tables[TERMS];
            int32_t index[TERMS][ROWS];
            GatherTerm terms[TERMS];
            for (int i = 0; i < TERMS; i++) {
                tables[i] = matrix_random(&random, types[i % 3], TABLE, d, 0, 1, 0);
                for (int t = 0; t < ROWS; t++) /* row 0: of no term */
                    index[i][t] =
                        t == 0 ? -1 : (int32_t)(test_random_next(&random) % (TABLE + 1)) - 1;
                terms[i] = (GatherTerm){tables[i].t, tensor_1d(index[i], DTYPE_I32, ROWS)};
            }
            assert_ok(gather_forward(device, y.t, terms, TERMS, &err), &err);
            for (int t = 0; t < ROWS; t++)
                for (int c = 0; c < d; c++) { /* f32 sums in order: the very same bits */
                    float want = 0;
                    for (int i = 0; i < TERMS; i++)
                        if (index[i][t] >= 0) want += (float)matrix_get(&tables[i], index[i][t], c);
                    assert_true(matrix_get(&y, t, c) == rounded(want, types[k]));
                }
            /* One term copies rows bit for bit. */
            matrix_set(&tables[k], 3, d - 1, -0.0);
            for (int t = 0; t < ROWS; t++) index[k][t] = (ROWS - t) % TABLE;
            assert_ok(gather_forward(device, y.t, &terms[k], 1, &err), &err);
            for (int t = 0; t < ROWS; t++)
                assert_true(matrix_same_row(&y, t, &tables[k], (ROWS - t) % TABLE));
            for (int i = 0; i < TERMS; i++) matrix_free(&tables[i]);
            matrix_free(&y);
        }
}

static void test_patches(void **state) {
    Device *device = isa_device(state);
    static const struct {
        int images, channels, side, patch;
    } cases[] = {{1, 1, 1, 1}, {2, 3, 9, 3}, {2, 3, 28, 14}, {3, 1, 30, 5}, {1, 3, 224, 14}};
    TestRandom random = {25};
    Error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 2; k++) {
            int n = cases[i].images, c = cases[i].channels, s = cases[i].side, p = cases[i].patch;
            int across = s / p;
            TestMatrix x = matrix_random(&random, DTYPE_F32, n, c * s * s, 0, 1, 0);
            TestMatrix y = matrix_new(types[k], n * across * across, c * p * p, 0);
            assert_ok(patches_forward(device, y.t, x.t, c, s, p, &err), &err);
            for (int b = 0; b < n; b++)
                for (int pixel = 0; pixel < c * s * s; pixel++) {
                    int channel = pixel / (s * s), row = pixel / s % s, column = pixel % s;
                    double got = matrix_get(&y, (b * across + row / p) * across + column / p,
                                            (channel * p + row % p) * p + column % p);
                    assert_true(got == rounded(matrix_get(&x, b, pixel), types[k]));
                }
            matrix_free(&x), matrix_free(&y);
        }
}

static void test_segment_mean(void **state) {
    Device *device = isa_device(state);
    static const int32_t begin[] = {1, 2, 9, 60, 61};
    enum { SEGMENTS = sizeof begin / sizeof *begin - 1, ROWS = 62 };
    TestRandom random = {26};
    Error err;
    for (int s = 0; s < SIZES; s++)
        for (int k = 0; k < 4; k++) {
            int d = sizes[s];
            TestMatrix x = matrix_random(&random, types[k & 1], ROWS, d, 0, 1, 0.5);
            TestMatrix y = matrix_new(types[k >> 1], SEGMENTS, d, 0);
            double *want = calloc((size_t)(SEGMENTS * d), sizeof *want);
            for (int g = 0; g < SEGMENTS; g++)
                for (int r = begin[g]; r < begin[g + 1]; r++)
                    for (int c = 0; c < d; c++)
                        want[g * d + c] += matrix_get(&x, r, c) / (begin[g + 1] - begin[g]);
            assert_ok(segment_mean_forward(device, y.t, x.t, begin, SEGMENTS, &err), &err);
            matrix_assert_close(&y, want, dtype_limit(types[k >> 1]), "segment_mean");
            matrix_set(&x, 5, 0, NAN); /* of the second segment */
            assert_ok(segment_mean_forward(device, y.t, x.t, begin, SEGMENTS, &err), &err);
            for (int g = 0; g < SEGMENTS; g++)
                for (int c = 0; c < d; c++)
                    assert_true(isnan(matrix_get(&y, g, c)) == (g == 1 && c == 0));
            free(want);
            matrix_free(&x), matrix_free(&y);
        }
}

/* ---- The scan of a vocabulary: the CPU's kernel itself. ---- */

typedef struct Scan {
    const CpuKernels *kernels;
    float *logits, *bias; /* bias may be NULL */
    int n;
    VocabChoice choice;
    uint64_t stream;
    int64_t index;
} Scan;

/* In chunks of this size, the last one first if `backwards`. */
static VocabRow scan_run(const Scan *s, int chunk, bool backwards) {
    VocabRow row = vocab_row_empty();
    int chunks = (s->n + chunk - 1) / chunk;
    for (int i = 0; i < chunks; i++) {
        int first = (backwards ? chunks - 1 - i : i) * chunk;
        int count = s->n - first < chunk ? s->n - first : chunk;
        s->kernels->vocab_scan(&row, s->logits + first, s->bias ? s->bias + first : NULL, first,
                               count, &s->choice, s->stream, s->index);
    }
    return row;
}

static void scan_check(const Scan *s, const VocabRow *row) {
    int best = -1;
    double best_value = -INFINITY, largest = -INFINITY, sum = 0;
    for (int i = 0; i < s->n; i++) {
        float logit = s->bias ? s->logits[i] + s->bias[i] : s->logits[i];
        if (i == s->choice.banned || i >= s->choice.limit) continue;
        if (logit > largest) largest = logit;
        double value = logit;
        if (s->choice.temperature > 0)
            value = (double)logit / s->choice.temperature +
                    random_gumbel(s->choice.seed, s->stream, (uint64_t)(s->index + i));
        if (value > best_value) best_value = value, best = i;
    }
    for (int i = 0; i < s->n; i++)
        if (i != s->choice.banned && i < s->choice.limit)
            sum += exp((double)(s->bias ? s->logits[i] + s->bias[i] : s->logits[i]) - largest);
    assert_int_equal(row->best_token, best);
    if (best < 0) return;
    assert_true(row->max == largest && row->best == best_value);
    assert_true(row->best_logit == (s->bias ? s->logits[best] + s->bias[best] : s->logits[best]));
    if (!(fabs(row->sum / sum - 1) <= 1e-6)) fail_msg("sum %.9g, expected %.9g", row->sum, sum);
}

static void test_vocab(void **state) {
    const CpuKernels *kernels = cpu_kernels_find(isa_name(isa_device(state)));
    TestRandom random = {27};
    for (int k = 0; k < SIZES * 40; k++) {
        int n = sizes[k % SIZES], at = (int)(test_random_next(&random) % (uint64_t)n);
        Scan s = {.kernels = kernels, .n = n, .stream = 5, .index = 1000003 + k};
        s.logits = malloc((size_t)n * sizeof *s.logits);
        s.bias = k % 2 ? malloc((size_t)n * sizeof *s.bias) : NULL;
        for (int i = 0; i < n; i++) {
            s.logits[i] = 4 * test_random_normal(&random);
            if (k % 5 == 0) s.logits[i] = roundf(s.logits[i]); /* ties */
            if (s.bias) s.bias[i] = (float)(i % 3);
        }
        /* Excluded ids have the largest logits, and NaN. */
        s.choice = (VocabChoice){.banned = k % 3 ? at : -1,
                                 .limit = k % 4 ? n : (n + at) / 2 + 1,
                                 .temperature = k % 7 < 3 ? 0.25f * (float)(k % 7) : 0,
                                 .seed = 9};
        if (s.choice.limit > n) s.choice.limit = n;
        if (s.choice.banned >= 0) s.logits[at] = k % 2 ? NAN : 1000;
        for (int i = s.choice.limit; i < n; i++) s.logits[i] = k % 2 ? 500 : NAN;
        int chunks[] = {n, 1, 37, 256};
        for (int c = 0; c < 4; c++) {
            VocabRow row = scan_run(&s, chunks[c], c % 2);
            scan_check(&s, &row);
        }
        int kept = (at + 1) % n; /* a NaN that counts */
        if (kept != s.choice.banned && kept < s.choice.limit) {
            s.logits[kept] = NAN;
            assert_true(isnan(scan_run(&s, n, false).sum));
            assert_true(isnan(scan_run(&s, 5, true).sum));
        }
        free(s.logits), free(s.bias);
    }
}

/* Infinities, a rising maximum, and draws that follow the softmax. */
static void test_vocab_corners(void **state) {
    const CpuKernels *kernels = cpu_kernels_find(isa_name(isa_device(state)));
    enum { N = 1000, DRAWS = 4000 };
    float logits[N];
    Scan s = {.kernels = kernels, .logits = logits, .n = N, .choice = {.banned = -1, .limit = N}};
    for (int i = 0; i < N; i++) logits[i] = -INFINITY;
    VocabRow row = scan_run(&s, 300, false);
    assert_true(row.best_token == -1 && row.sum == 0 && row.max == -INFINITY);
    logits[777] = -1e30f;
    row = scan_run(&s, 300, false);
    assert_true(row.best_token == 777 && row.sum == 1 && row.max == -1e30f);
    for (int i = 0; i < N; i++) logits[i] = (float)i * 10 - 5000;
    row = scan_run(&s, 300, false);
    scan_check(&s, &row);
    row = scan_run(&s, 300, true);
    scan_check(&s, &row);

    /* An id with a far smaller logit wins by the largest noise of 200000 numbers. */
    int64_t luckiest = 0;
    for (int64_t i = 1; i < 200000; i++)
        if (random_uniform(0, 0, (uint64_t)i) > random_uniform(0, 0, (uint64_t)luckiest))
            luckiest = i;
    s.index = luckiest - 701;
    s.choice.temperature = 1;
    for (int i = 0; i < N; i++) logits[i] = -1000;
    logits[5] = 0;
    logits[701] = (float)(random_gumbel(0, 0, (uint64_t)(s.index + 5)) -
                          random_gumbel(0, 0, (uint64_t)luckiest) + 1e-4);
    row = scan_run(&s, 300, false);
    assert_true(logits[701] < -9 && row.best_token == 701);
    scan_check(&s, &row);

    int drawn[4] = {0};
    double p[4], sum = 0;
    for (int i = 0; i < N; i++) logits[i] = -60;
    for (int i = 0; i < 4; i++) logits[250 * i + 3] = (float)i, sum += p[i] = exp(i / 1.5);
    s.choice.temperature = 1.5f;
    for (int d = 0; d < DRAWS; d++) {
        s.stream = random_stream(1, 2, 3, (uint64_t)d);
        row = scan_run(&s, N, false);
        if (d % 100 == 0) scan_check(&s, &row);
        assert_int_equal(row.best_token % 250, 3);
        drawn[row.best_token / 250]++;
    }
    for (int i = 0; i < 4; i++) {
        double want = p[i] / sum;
        assert_true(fabs(drawn[i] - DRAWS * want) <= 4 * sqrt(DRAWS * want * (1 - want)));
    }
}

/* Rows are independent of each other: together, alone, and on any number of threads. */
static void test_independence(void **state) {
    Device *device = isa_device(state);
    enum { ROWS = 129, D = 770 };
    TestRandom random = {28};
    Error err;
    TestMatrix x = matrix_random(&random, DTYPE_F32, ROWS, D, 0, 1, 0);
    TestMatrix w = matrix_random(&random, DTYPE_F32, 1, D, 0, 1, 0);
    TestMatrix y = matrix_new(DTYPE_BF16, ROWS, D, 0), again = matrix_new(DTYPE_BF16, ROWS, D, 0);
    for (int op = 0; op < 2; op++) {
        for (int one = 0; one < 2; one++)
            for (int r = 0; r < ROWS; r += one ? 1 : ROWS) {
                Tensor to = tensor_rows(one ? again.t : y.t, r, one ? 1 : ROWS);
                Tensor from = tensor_rows(x.t, r, one ? 1 : ROWS);
                if (op == 0)
                    assert_ok(layernorm_forward(device, to, TENSOR_NONE, TENSOR_NONE, from,
                                                as_vector(&w), as_vector(&w), 1e-5f, &err),
                              &err);
                else
                    assert_ok(activation_forward(device, to, from, ACTIVATION_GELU, &err), &err);
            }
        for (int r = 0; r < ROWS; r++) assert_true(matrix_same_row(&again, r, &y, r));
    }
    matrix_free(&x), matrix_free(&w), matrix_free(&y), matrix_free(&again);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(test_halves),       ON_EACH_ISA(test_bf16),
        ON_EACH_ISA(test_convert),      ON_EACH_ISA(test_layernorm),
        ON_EACH_ISA(test_activation),   ON_EACH_ISA(test_gather),
        ON_EACH_ISA(test_patches),      ON_EACH_ISA(test_segment_mean),
        ON_EACH_CPU_ISA(test_vocab),    ON_EACH_CPU_ISA(test_vocab_corners),
        ON_EACH_ISA(test_independence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
