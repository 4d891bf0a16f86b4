/* Matmuls, packed weights and the vocabulary head, compared with plain loops in double precision.
 * In a program built with the emulator the matmuls are tests/emulator's: this tests the other
 * kernels and the arguments of cuBLASLt's calls, but not cuBLASLt itself, nor speed. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/cpu/matmul.h"
#include "kernels/ops.h"
#include "kernels/random.h"

#include <math.h>

/* For hundreds of tiny matmuls, whose threads would mostly wait for each other. */
static Device *device_single(void) {
    Error err;
    Device *device;
    DeviceOptions options = {.threads = 1};
    assert_ok(test_device_open(&device, &options, &err), &err);
    return device;
}

enum { CHUNK = 4096 }; /* of a vocabulary, kernels/cpu/cpu.h; the tests hold for any other, too */

/* n normal numbers: *data in the type, and returned as rounded by it (free both). */
static float *values_make(TestRandom *random, void **data, Dtype dtype, size_t n, float scale) {
    float *f = malloc((n + 1) * sizeof *f);
    *data = malloc((n + 1) * dtype_size(dtype));
    assert_true(f && *data);
    for (size_t i = 0; i < n; i++) f[i] = scale * test_random_normal(random);
    assert_true(values_convert(*data, dtype, f, DTYPE_F32, n));
    assert_true(values_convert(f, DTYPE_F32, *data, dtype, n));
    return f;
}

static double activate(double v, Activation activation) {
    switch (activation) {
    case ACTIVATION_GELU:
        return v / 2 * (1 + erf(v / sqrt(2)));
    case ACTIVATION_QUICK_GELU:
        return v / (1 + exp(-1.702 * v));
    case ACTIVATION_RELU:
        return v > 0 ? v : 0;
    case ACTIVATION_TANH:
        return tanh(v);
    case ACTIVATION_SILU:
        return v / (1 + exp(-v));
    default:
        return v;
    }
}

/* ---- linear_forward ---- */

typedef struct LinearCase {
    int t, k, n;
    Dtype w, c, y; /* stored weights, inputs, outputs */
    Activation activation;
    bool accumulate, bias, packed, slices;
} LinearCase;

/* Runs one case and returns its error, relative to the sums before the activation (a gelu may make
 * all of them nearly 0); the values around y must survive. */
static double linear_case(Device *device, const LinearCase *c, TestRandom *random) {
    Error err;
    int t = c->t, k = c->k, n = c->n, x_ld = k + (c->slices ? 5 : 0),
        y_ld = n + (c->slices ? 7 : 0);
    int x_first = c->slices ? 2 : 0, y_first = c->slices ? 3 : 0;
    size_t y_count = (size_t)((t + 2) * y_ld);
    void *x, *w, *y, *b;
    float *xf = values_make(random, &x, c->c, (size_t)(t * x_ld), 1);
    float *wf = values_make(random, &w, c->w, (size_t)(n * k), 1 / sqrtf((float)k));
    float *bf = values_make(random, &b, DTYPE_F32, (size_t)n, 1);
    float *yf = values_make(random, &y, c->y, y_count, 1);

    /* A row of sentinels above y and one below, and columns of them next to it. */
    Tensor yt = tensor_rows(tensor_2d(y, c->y, t + 2, y_ld), 1, t);
    Tensor wt = tensor_2d(w, c->w, n, k), bt = c->bias ? tensor_1d(b, DTYPE_F32, n) : TENSOR_NONE;
    Tensor xt = tensor_columns(tensor_2d(x, c->c, t, x_ld), x_first, k);
    struct Packed *packed = NULL;
    if (c->packed) {
        assert_ok(pack_weight(device, &packed, &wt, 1, c->c, false, NULL, &err), &err);
        assert_int_equal(packed_bytes(packed), pack_size(device, n, k, DTYPE_F32, c->c, false));
        memset(w, 0xff, (size_t)(n * k) * dtype_size(c->w)); /* a pack is a copy */
        wt = (Tensor){.packed = packed};
    }
    assert_ok(linear_forward(device, tensor_columns(yt, y_first, n), xt, wt, bt, c->activation,
                             c->accumulate, &err),
              &err);

    double difference = 0, norm = 0;
    float *got = malloc(y_count * sizeof *got);
    assert_true(values_convert(got, DTYPE_F32, y, c->y, y_count));
    for (int r = 0; r < t + 2; r++)
        for (int j = 0; j < y_ld; j++) {
            size_t at = (size_t)(r * y_ld + j);
            int row = r - 1, column = j - y_first;
            if (row < 0 || row >= t || column < 0 || column >= n) {
                if (got[at] != yf[at])
                    fail_msg("[%d, %d, %d]: a value outside of y was written", t, k, n);
                continue;
            }
            double sum = c->bias ? bf[column] : 0;
            for (int i = 0; i < k; i++)
                sum += (double)xf[row * x_ld + x_first + i] * wf[column * k + i];
            if (c->accumulate) sum += yf[at];
            double d = got[at] - activate(sum, c->activation);
            difference += d * d, norm += sum * sum; /* a NaN in got makes the result NaN */
        }
    packed_free(device, packed);
    free(x), free(w), free(y), free(b), free(xf), free(wf), free(yf), free(bf);
    free(got);
    return sqrt(difference / norm);
}

static const int linear_shapes[][3] = {
    {1, 1, 1},    {1, 1, 514},  {1, 1024, 3},   {2, 7, 1},     {3, 588, 32},  {5, 32, 514},
    {17, 64, 48}, {4, 768, 96}, {33, 100, 130}, {64, 96, 288}, {257, 40, 65}, {19, 333, 97},
};

/* f32 sums of up to 1024 products, in any order, have relative errors of about 1e-6; three of them
 * are too few for the errors to average out. */
static const double limit_f32 = 3e-6;

/* Every shape with every activation and with accumulation, as slices and whole, with and without a
 * bias. Prints the largest error. */
static void linear_sweep(Dtype w, Dtype c, Dtype y, bool packed, double limit) {
    Device *device = device_single();
    TestRandom random = {7};
    double worst = 0;
    for (size_t s = 0; s < sizeof linear_shapes / sizeof *linear_shapes; s++)
        for (int a = ACTIVATION_NONE; a <= ACTIVATION_COUNT; a++) {
            const int *shape = linear_shapes[s];
            LinearCase one = {shape[0], shape[1], shape[2], w, c, y};
            one.accumulate = a == ACTIVATION_COUNT;
            one.activation = one.accumulate ? ACTIVATION_NONE : (Activation)a;
            one.bias = (s + (size_t)a) % 3 != 0;
            one.slices = (s + (size_t)a) % 2 == 0;
            one.packed = packed;
            double error = linear_case(device, &one, &random);
            if (!(error <= limit))
                fail_msg("[%d, %d] x [%d, %d], %s weights, %s to %s%s, %s%s: relative error %g",
                         one.t, one.k, one.n, one.k, dtype_name(w), dtype_name(c), dtype_name(y),
                         packed ? ", packed" : "", activation_name(one.activation),
                         one.accumulate ? " accumulated" : "", error);
            if (error > worst) worst = error;
        }
    device_close(device);
    printf("# linear %s weights, %s to %s%s: error at most %.2g\n", dtype_name(w), dtype_name(c),
           dtype_name(y), packed ? ", packed" : "", worst);
}

static void linear_f32(void **state) {
    (void)state;
    linear_sweep(DTYPE_F32, DTYPE_F32, DTYPE_F32, false, limit_f32);
    linear_sweep(DTYPE_F32, DTYPE_F32, DTYPE_F32, true, limit_f32);
}

static void linear_narrow_weights(void **state) {
    (void)state;
    linear_sweep(DTYPE_F16, DTYPE_F32, DTYPE_F32, true, limit_f32);
    linear_sweep(DTYPE_BF16, DTYPE_F32, DTYPE_F32, true, limit_f32);
}

/* Products of bf16 are exact in f32, so that f32 outputs are as accurate as with f32 inputs; bf16
 * outputs have 8 significant bits. */
static void linear_bf16(void **state) {
    if (!device_has_bf16(*state)) skip();
    linear_sweep(DTYPE_BF16, DTYPE_BF16, DTYPE_F32, true, limit_f32);
    linear_sweep(DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, false, 4e-3);
    linear_sweep(DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, true, 4e-3);
    linear_sweep(DTYPE_F32, DTYPE_BF16, DTYPE_F32, true, 4e-3); /* the weights get rounded */
}

static void linear_no_rows(void **state) {
    Error err;
    float w[6] = {0}, x[3], y[2] = {5, 5};
    assert_ok(linear_forward(*state, tensor_2d(y, DTYPE_F32, 0, 2), tensor_2d(x, DTYPE_F32, 0, 3),
                             tensor_2d(w, DTYPE_F32, 2, 3), TENSOR_NONE, ACTIVATION_NONE, false,
                             &err),
              &err);
    assert_true(y[0] == 5 && y[1] == 5);
}

/* Pieces of several types and lengths give the same pack as one stacked matrix. */
static void pack_pieces(void **state) {
    Error err;
    TestRandom random = {11};
    enum { K = 37, T = 9, COUNT = 4 };
    const int rows[COUNT] = {5, 1, 30, 64};
    const Dtype types[COUNT] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    Tensor pieces[COUNT];
    float whole[100 * K], x[T * K], y[2][T * 100];
    int total = 0;
    for (int i = 0; i < COUNT; i++) {
        void *data;
        int ld = K + i; /* piece 0 is whole, the others are column slices */
        float *f = values_make(&random, &data, types[i], (size_t)(rows[i] * ld), 1);
        pieces[i] = tensor_columns(tensor_2d(data, types[i], rows[i], ld), 0, K);
        for (int r = 0; r < rows[i]; r++)
            memcpy(whole + (total + r) * K, f + r * ld, K * sizeof *f);
        total += rows[i];
        free(f);
    }
    assert_int_equal(total, 100);
    for (int i = 0; i < T * K; i++) x[i] = test_random_normal(&random);
    Tensor one = tensor_2d(whole, DTYPE_F32, 100, K);
    for (int i = 0; i < 2; i++) {
        struct Packed *packed;
        assert_ok(pack_weight(*state, &packed, i ? &one : pieces, i ? 1 : COUNT, DTYPE_F32, false,
                              NULL, &err),
                  &err);
        assert_int_equal(packed_bytes(packed),
                         pack_size(*state, 100, K, DTYPE_F32, DTYPE_F32, false));
        assert_ok(linear_forward(*state, tensor_2d(y[i], DTYPE_F32, T, 100),
                                 tensor_2d(x, DTYPE_F32, T, K), (Tensor){.packed = packed},
                                 TENSOR_NONE, ACTIVATION_NONE, false, &err),
                  &err);
        packed_free(*state, packed);
    }
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    for (int i = 0; i < COUNT; i++) free(pieces[i].data);
}

/* Progress reports every row once, in order, and only after it has been read: reported rows are
 * overwritten here. */
typedef struct Reported {
    const Tensor *pieces;
    int64_t next;
} Reported;

static void spoil_rows(void *user, int64_t first, int64_t count) {
    Reported *reported = user;
    assert_int_equal(first, reported->next);
    reported->next += count;
    for (const Tensor *piece = reported->pieces; count > 0; first -= piece->shape[0], piece++)
        for (; count > 0 && first < piece->shape[0]; first++, count--)
            memset((char *)piece->data + (size_t)(first * piece->ld) * dtype_size(piece->dtype),
                   0xff, (size_t)piece->shape[1] * dtype_size(piece->dtype));
}

static void pack_with_progress(void **state) {
    Error err;
    TestRandom random = {12};
    enum { K = 40, T = 3, FIRST = 70, ROWS = 300 };
    float *w = malloc(sizeof(float) * ROWS * K), x[T * K], y[2][T * ROWS];
    for (int i = 0; i < ROWS * K; i++) w[i] = test_random_normal(&random);
    for (int i = 0; i < T * K; i++) x[i] = test_random_normal(&random);
    Tensor whole = tensor_2d(w, DTYPE_F32, ROWS, K);
    const Tensor pieces[] = {tensor_rows(whole, 0, FIRST), tensor_rows(whole, FIRST, ROWS - FIRST)};
    for (int i = 0; i < 2; i++) {
        Reported reported = {pieces, 0};
        PackProgress progress = {spoil_rows, &reported};
        struct Packed *packed;
        assert_ok(
            pack_weight(*state, &packed, pieces, 2, DTYPE_F32, true, i ? &progress : NULL, &err),
            &err);
        assert_int_equal(reported.next, i ? ROWS : 0);
        assert_ok(linear_forward(*state, tensor_2d(y[i], DTYPE_F32, T, ROWS),
                                 tensor_2d(x, DTYPE_F32, T, K), (Tensor){.packed = packed},
                                 TENSOR_NONE, ACTIVATION_NONE, false, &err),
                  &err);
        packed_free(*state, packed);
    }
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    free(w);
}

/* Rows that are already on the GPU, and a bf16 bias that follows the one that is passed. */
static void pack_on_gpu(void **state) {
    (void)state;
    Error err;
    Device *device;
    TestRandom random = {13};
    enum { K = 24, T = 5, N = 32, VALUES = N * K + T * K + 2 * N + T * N };
    assert_ok(device_open(&device, &(DeviceOptions){.kind = DEVICE_CUDA}, &err), &err);
    for (int type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        Arena arena;
        float values[VALUES], *w = values, *x = w + N * K, *b = x + T * K, *y = b + 2 * N;
        uint16_t narrow[T * K], result[T * N];
        for (int i = 0; i < VALUES; i++) {
            values[i] = bf16_to_f32(f32_to_bf16(test_random_normal(&random)));
            if (i >= N * K && i < N * K + T * K) narrow[i - N * K] = f32_to_bf16(values[i]);
        }
        Tensor ws, xs, bs[2], ys;
        assert_ok(arena_open(&arena, device, 1 << 16, &err), &err);
        assert_ok(arena_take(&arena, &ws, (Dtype)type, N, K, &err), &err);
        uint16_t narrow_w[N * K];
        for (int i = 0; i < N * K; i++) narrow_w[i] = f32_to_bf16(w[i]);
        assert_ok(device_upload(device, ws.data, type == DTYPE_F32 ? (void *)w : narrow_w,
                                tensor_bytes(ws), &err),
                  &err);
        assert_ok(arena_take(&arena, &xs, DTYPE_BF16, T, K, &err), &err);
        assert_ok(device_upload(device, xs.data, narrow, sizeof narrow, &err), &err);
        assert_ok(arena_take(&arena, &ys, DTYPE_BF16, T, N, &err), &err);
        for (int i = 0; i < 2; i++)
            assert_ok(arena_upload(&arena, &bs[i], DTYPE_F32, N, b + i * N, &err), &err);
        struct Packed *packed;
        assert_ok(pack_weight(device, &packed, &ws, 1, DTYPE_BF16, false, NULL, &err), &err);
        for (int i = 0; i < 4; i++) {
            assert_ok(linear_forward(device, ys, xs, (Tensor){.packed = packed}, bs[i % 2],
                                     ACTIVATION_NONE, false, &err),
                      &err);
            assert_ok(device_download(device, result, ys.data, sizeof result, &err), &err);
            float got[T * N];
            for (int j = 0; j < T * N; j++) {
                double sum = b[i % 2 * N + j % N];
                for (int k = 0; k < K; k++) sum += (double)x[j / N * K + k] * w[j % N * K + k];
                y[j] = (float)sum, got[j] = bf16_to_f32(result[j]);
            }
            assert_close(got, y, T * N, 4e-3, "a pack of rows on the GPU");
        }
        packed_free(device, packed);
        arena_close(&arena);
    }
    device_close(device);
}

/* A row's result does not depend on the other rows: to the bit with packed weights on the
 * processors known to us; elsewhere nearly so, with a note. */
static void linear_batch_independence(void **state) {
    Error err;
    enum { K = 768, N = 600, T = 300 };
    const int counts[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 129, 256};
    for (int bf16 = 0; bf16 < 1 + device_has_bf16(*state); bf16++) {
        Dtype c = bf16 ? DTYPE_BF16 : DTYPE_F32;
        TestRandom random = {3};
        void *x, *w;
        free(values_make(&random, &x, c, T * K, 1));
        free(values_make(&random, &w, c, N * K, 0.04f));
        Tensor wt = tensor_2d(w, c, N, K), xt = tensor_2d(x, c, T, K);
        struct Packed *packed;
        assert_ok(pack_weight(*state, &packed, &wt, 1, c, false, NULL, &err), &err);
        float *all = malloc(sizeof(float) * T * N), *part = malloc(sizeof(float) * T * N);
        Tensor wp = {.packed = packed};
        assert_ok(linear_forward(*state, tensor_2d(all, DTYPE_F32, T, N), xt, wp, TENSOR_NONE,
                                 ACTIVATION_GELU, false, &err),
                  &err);

        /* The same as column slices of wider matrices. */
        enum { WIDE_X = K + 3, WIDE_Y = N + 5 };
        char *wide_x = malloc(T * WIDE_X * dtype_size(c));
        float *wide_y = malloc(sizeof(float) * T * WIDE_Y);
        for (int t = 0; t < T; t++)
            memcpy(wide_x + (size_t)t * WIDE_X * dtype_size(c),
                   (char *)x + (size_t)t * K * dtype_size(c), K * dtype_size(c));
        assert_ok(linear_forward(*state,
                                 tensor_columns(tensor_2d(wide_y, DTYPE_F32, T, WIDE_Y), 2, N),
                                 tensor_columns(tensor_2d(wide_x, c, T, WIDE_X), 0, K), wp,
                                 TENSOR_NONE, ACTIVATION_GELU, false, &err),
                  &err);
        for (int t = 0; t < T; t++)
            if (test_on_gpu()) /* unaligned rows may need another kernel */
                assert_close(wide_y + t * WIDE_Y + 2, all + t * N, N, 1e-6, "slices");
            else
                assert_memory_equal(wide_y + t * WIDE_Y + 2, all + t * N, N * sizeof *all);
        free(wide_x), free(wide_y);

        bool same = true;
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            int t = counts[i], first = (T - t) / 2;
            assert_ok(linear_forward(*state, tensor_2d(part, DTYPE_F32, t, N),
                                     tensor_rows(xt, first, t), wp, TENSOR_NONE, ACTIVATION_GELU,
                                     false, &err),
                      &err);
            size_t n = (size_t)t * N;
            same = same && memcmp(part, all + (size_t)first * N, n * sizeof *part) == 0;
            assert_close(part, all + (size_t)first * N, n, 1e-6, "rows alone and in a batch");
        }
        printf("note: %s matmuls of packed weights: rows are %s in any batch\n", dtype_name(c),
               same ? "the same to the bit" : "NOT the same to the bit");
        packed_free(*state, packed);
        free(x), free(w), free(all), free(part);
    }
}

/* More shapes than the cache of compiled matmuls holds: the first ones are compiled again. */
static void linear_many_shapes(void **state) {
    (void)state;
    Error err;
    Device *device = device_single();
    enum { SHAPES = 600, K = 8, N = 4 };
    TestRandom random = {5};
    float *x = malloc(sizeof(float) * SHAPES * K), *y = malloc(sizeof(float) * SHAPES * N);
    float w[N * K], first[40 * N];
    for (int i = 0; i < SHAPES * K; i++) x[i] = test_random_normal(&random);
    for (int i = 0; i < N * K; i++) w[i] = test_random_normal(&random);
    for (int pass = 0; pass < 2; pass++)
        for (int t = 1; t <= (pass ? 40 : SHAPES); t++) {
            assert_ok(linear_forward(device, tensor_2d(y, DTYPE_F32, t, N),
                                     tensor_2d(x, DTYPE_F32, t, K), tensor_2d(w, DTYPE_F32, N, K),
                                     TENSOR_NONE, ACTIVATION_NONE, false, &err),
                      &err);
            if (!pass && t == 40) memcpy(first, y, sizeof first);
            if (pass) assert_close(y, first, (size_t)(t * N), 1e-6, "compiled again");
        }
    free(x), free(y);
    device_close(device);
}

/* The three matmuls of a layer's forward and backward pass, with gaps between rows. */
static void matmul_orientations(void **state) {
    Error err;
    Matmul *matmul;
    TestRandom random = {13};
    enum { M = 13, N = 21, K = 34, PAD = 3 };
    assert_ok(matmul_open(&matmul, 2, &err), &err);
    for (int bf16 = 0; bf16 < 1 + device_has_bf16(*state); bf16++)
        for (int way = 0; way < 4; way++) {
            Dtype c = bf16 ? DTYPE_BF16 : DTYPE_F32;
            bool xt = way & 1, wt = way & 2;
            int x_ld = (xt ? M : K) + PAD, w_ld = (wt ? N : K) + PAD, y_ld = N + PAD;
            void *x, *w;
            float *xf = values_make(&random, &x, c, (size_t)(x_ld * (xt ? K : M)), 1);
            float *wf = values_make(&random, &w, c, (size_t)(w_ld * (wt ? K : N)), 1);
            float y[M * (N + PAD)], expected[M * (N + PAD)];
            for (int i = 0; i < M * y_ld; i++) y[i] = expected[i] = test_random_normal(&random);
            for (int m = 0; m < M; m++)
                for (int n = 0; n < N; n++) {
                    double sum = expected[m * y_ld + n];
                    for (int k = 0; k < K; k++)
                        sum += (double)xf[xt ? k * x_ld + m : m * x_ld + k] *
                               wf[wt ? k * w_ld + n : n * w_ld + k];
                    expected[m * y_ld + n] = (float)sum;
                }
            MatmulTask task = {.m = M,
                               .n = N,
                               .k = K,
                               .dtype = c,
                               .x = x,
                               .x_ld = x_ld,
                               .x_transposed = xt,
                               .w = w,
                               .w_ld = w_ld,
                               .w_transposed = wt,
                               .y = y,
                               .y_dtype = DTYPE_F32,
                               .y_ld = y_ld,
                               .accumulate = true};
            assert_ok(matmul_run(matmul, &task, &err), &err);
            assert_close(y, expected, M * (N + PAD), 1e-6, "an orientation");
            free(x), free(w), free(xf), free(wf);
        }
    matmul_close(matmul);
}

/* ---- Vocabulary ---- */

typedef struct Head {
    Device *device;
    int r, d, v;
    Tensor x, w, b;
    struct Packed *packed;
} Head;

static Head head_make(Device *device, int r, int d, int v, bool packed, Dtype c) {
    Error err;
    TestRandom random = {(uint64_t)(r * 31 + v)};
    Head h = {device, r, d, v};
    void *x, *w, *b;
    free(values_make(&random, &x, c, (size_t)(r * d), 1));
    free(values_make(&random, &w, c, (size_t)(v * d), 0.5f));
    free(values_make(&random, &b, DTYPE_F32, (size_t)v, 1));
    h.x = tensor_2d(x, c, r, d);
    h.w = tensor_2d(w, c, v, d);
    h.b = tensor_1d(b, DTYPE_F32, v);
    if (packed) {
        assert_ok(pack_weight(device, &h.packed, &h.w, 1, c, true, NULL, &err), &err);
        assert_int_equal(packed_bytes(h.packed), pack_size(device, v, d, DTYPE_F32, c, true));
    }
    return h;
}

static Tensor head_weight(const Head *h) {
    return h->packed ? (Tensor){.packed = h->packed} : h->w;
}

static void head_free(Head *h) {
    packed_free(h->device, h->packed);
    free(h->x.data), free(h->w.data), free(h->b.data);
}

static float *head_logits(const Head *h) {
    Error err;
    size_t n = (size_t)h->r * (size_t)h->v;
    float *logits = malloc(n * sizeof *logits);
    assert_ok(vocab_logits(h->device, tensor_2d(logits, DTYPE_F32, h->r, h->v), h->x,
                           head_weight(h), h->b, &err),
              &err);
    return logits;
}

/* The expected proposal for a row, by the definition, and its log-probability. */
static int32_t propose_by_hand(const float *logits, const VocabChoice *choice, int row,
                               double *score) {
    double best = -INFINITY, max = -INFINITY, sum = 0;
    int32_t token = -1;
    for (int v = 0; v < choice->limit; v++)
        if (v != choice->banned && logits[v] > max) max = logits[v];
    for (int v = 0; v < choice->limit; v++) {
        if (v == choice->banned) continue;
        sum += exp(logits[v] - max);
        double value = logits[v];
        if (choice->temperature > 0)
            value = value / choice->temperature + random_gumbel(choice->seed, choice->stream[row],
                                                                (uint64_t)(choice->index[row] + v));
        if (value > best) best = value, token = v;
    }
    *score = logits[token] - max - log(sum);
    return token;
}

static void propose_check(const Head *h, VocabChoice choice) {
    Error err;
    int32_t tokens[64];
    float scores[64], *logits = head_logits(h);
    uint64_t stream[64];
    int64_t index[64];
    for (int r = 0; r < h->r; r++) {
        stream[r] = random_stream(1, 2, 3, (uint64_t)r);
        index[r] = ((int64_t)r << 33) + r; /* Philox blocks begin at any offset */
    }
    choice.stream = stream, choice.index = index;
    assert_ok(vocab_propose(h->device, tokens, scores, h->x, head_weight(h), h->b, &choice, &err),
              &err);
    for (int r = 0; r < h->r; r++) {
        double score;
        int32_t token = propose_by_hand(logits + (size_t)r * (size_t)h->v, &choice, r, &score);
        if (tokens[r] != token || !(fabs(scores[r] - score) < 2e-5))
            fail_msg("V %d, %s, banned %d, limit %d, temperature %g, row %d: token %d, score %.7g; "
                     "expected %d, %.7g",
                     h->v, h->packed ? "packed" : "plain", choice.banned, choice.limit,
                     choice.temperature, r, tokens[r], scores[r], token, score);
    }
    free(logits);
}

/* Vocabularies smaller than a chunk, of whole chunks and with a remainder; packed and plain; with
 * and without temperature; with the winner banned, or beyond the limit. */
static void propose_matches(void **state) {
    const int sizes[] = {1, 2, 100, CHUNK, CHUNK + 1, 2 * CHUNK + 146};
    const size_t count = sizeof sizes / sizeof *sizes;
    Device *single = device_single();
    for (size_t i = 0; i < count; i++)
        for (int packed = 0; packed < 2; packed++)
            for (int bf16 = 0; bf16 < 1 + device_has_bf16(*state); bf16++) {
                Head h = head_make(i + 1 < count ? single : *state, 5, 24, sizes[i], packed,
                                   bf16 ? DTYPE_BF16 : DTYPE_F32);
                VocabChoice choice = {.banned = -1, .limit = h.v, .seed = 42};
                propose_check(&h, choice);
                choice.temperature = 0.8f;
                propose_check(&h, choice);
                choice.temperature = 1e-3f; /* nearly argmax, with large values */
                propose_check(&h, choice);
                if (h.v > 2) {
                    float *logits = head_logits(&h);
                    double score;
                    choice.temperature = 0;
                    choice.banned = propose_by_hand(logits, &choice, 0, &score);
                    propose_check(&h, choice);
                    choice.limit = choice.banned > 0 ? choice.banned : h.v - 1;
                    propose_check(&h, choice);
                    choice.temperature = 3;
                    propose_check(&h, choice);
                    free(logits);
                }
                head_free(&h);
            }
    device_close(single);
}

/* The logits of a vocabulary pack are those of the definition, into a column slice too. */
static void vocab_logits_match(void **state) {
    Error err;
    Head h = head_make(*state, 3, 24, CHUNK + 77, true, DTYPE_F32);
    int ld = h.v + 2;
    float *y = calloc((size_t)(h.r * ld), sizeof *y),
          *expected = calloc((size_t)(h.r * ld), sizeof *y);
    const float *x = h.x.data, *w = h.w.data, *b = h.b.data;
    for (int r = 0; r < h.r; r++)
        for (int v = 0; v < h.v; v++) {
            double sum = b[v];
            for (int i = 0; i < h.d; i++) sum += (double)x[r * h.d + i] * w[v * h.d + i];
            expected[r * ld + 1 + v] = (float)sum;
        }
    Tensor slice = tensor_columns(tensor_2d(y, DTYPE_F32, h.r, ld), 1, h.v);
    assert_ok(vocab_logits(*state, slice, h.x, head_weight(&h), h.b, &err), &err);
    assert_close(y, expected, (size_t)(h.r * ld), 1e-6, "logits");
    memset(y, 0,
           (size_t)(h.r * ld) * sizeof *y); /* a vocabulary's pack serves linear_forward too */
    assert_ok(
        linear_forward(*state, slice, h.x, head_weight(&h), h.b, ACTIVATION_NONE, false, &err),
        &err);
    assert_close(y, expected, (size_t)(h.r * ld), 1e-6, "linear over a vocabulary pack");
    free(y), free(expected);
    head_free(&h);
}

/* Equal logits in one chunk, at the border of two and in the last: the lowest id wins. */
static void propose_ties(void **state) {
    Error err;
    for (int packed = 0; packed < 2; packed++) {
        Head h = head_make(*state, 2, 4, 2 * CHUNK + 100, false, DTYPE_F32);
        float *w = h.w.data, *x = h.x.data;
        const int ties[] = {CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 50};
        for (int i = 0; i < 8; i++) x[i] = i % 4 == 0;
        for (int v = 0; v < h.v; v++) w[v * 4] = 1;
        for (int i = 0; i < 4; i++) w[ties[i] * 4] = 5;
        if (packed)
            assert_ok(pack_weight(*state, &h.packed, &h.w, 1, DTYPE_F32, true, NULL, &err), &err);
        for (int first = 0; first < 3; first++) {
            /* ties[0] banned leaves ties[1]; with the limit at ties[0] all others tie from 0 on */
            VocabChoice choice = {.banned = first == 1 ? ties[0] : -1,
                                  .limit = first == 2 ? ties[0] : h.v};
            int32_t tokens[2], expected = first == 2 ? 0 : ties[first];
            float scores[2];
            assert_ok(vocab_propose(*state, tokens, scores, h.x, head_weight(&h), TENSOR_NONE,
                                    &choice, &err),
                      &err);
            assert_int_equal(tokens[0], expected);
            assert_int_equal(tokens[1], expected);
            assert_true(scores[0] == scores[1]);
        }
        head_free(&h);
    }
}

/* A NaN gives a NaN score to its row and to no other; the token stays an id. */
static void propose_nan(void **state) {
    Error err;
    for (int draw = 0; draw < 2; draw++) {
        Head h = head_make(*state, 3, 8, CHUNK + 10, true, DTYPE_F32);
        uint64_t stream[3] = {0};
        int64_t index[3] = {0};
        VocabChoice choice = {.banned = 3,
                              .limit = h.v,
                              .temperature = (float)draw,
                              .stream = stream,
                              .index = index};
        int32_t tokens[3];
        float scores[3];
        ((float *)h.x.data)[8 + 2] = NAN; /* every logit of row 1 */
        assert_ok(vocab_propose(*state, tokens, scores, h.x, head_weight(&h), h.b, &choice, &err),
                  &err);
        assert_true(isfinite(scores[0]) && isnan(scores[1]) && isfinite(scores[2]));
        assert_int_equal(tokens[1], 0);
        ((float *)h.b.data)[CHUNK + 2] = NAN; /* one logit of each row */
        assert_ok(vocab_propose(*state, tokens, scores, h.x, head_weight(&h), h.b, &choice, &err),
                  &err);
        for (int r = 0; r < 3; r++) {
            assert_true(isnan(scores[r]));
            assert_in_range(tokens[r], 0, h.v - 1);
        }
        head_free(&h);
    }
}

/* Nearly equal logits, so large relative to the temperature that f32 would lose the noise that
 * decides. */
static void propose_close(void **state) {
    Error err;
    enum { R = 2000, V = 64, D = 1 };
    float x[R] = {0}, w[V] = {0}, b[V], scores[R];
    uint64_t stream[R];
    int64_t index[R];
    int32_t tokens[R];
    for (int v = 0; v < V; v++) b[v] = 400 + (float)v * 0x1p-15f;
    for (int r = 0; r < R; r++) stream[r] = (uint64_t)r, index[r] = r % 7;
    VocabChoice choice = {
        .banned = 5, .limit = V, .temperature = 1e-3f, .seed = 3, .stream = stream, .index = index};
    assert_ok(vocab_propose(*state, tokens, scores, tensor_2d(x, DTYPE_F32, R, D),
                            tensor_2d(w, DTYPE_F32, V, D), tensor_1d(b, DTYPE_F32, V), &choice,
                            &err),
              &err);
    for (int r = 0; r < R; r++) {
        double score;
        assert_int_equal(tokens[r], propose_by_hand(b, &choice, r, &score));
        assert_true(fabs(scores[r] - score) < 1e-6);
    }
}

/* Many rows: more than are computed at once. The draws of equal rows follow the softmax; with seven
 * degrees of freedom a chi-square above 24.3 has a chance of 1 in 1000, and the seed is fixed. */
static void propose_distribution(void **state) {
    Error err;
    enum { R = 4000, V = 8, D = 4 };
    Head h = head_make(*state, R, D, V, true, DTYPE_F32);
    float *x = h.x.data;
    for (int r = 1; r < R; r++) memcpy(x + r * D, x, D * sizeof *x);
    float logits[V];
    assert_ok(vocab_logits(*state, tensor_2d(logits, DTYPE_F32, 1, V), tensor_rows(h.x, 0, 1),
                           head_weight(&h), h.b, &err),
              &err);
    uint64_t *stream = calloc(R, sizeof *stream);
    int64_t *index = calloc(R, sizeof *index);
    int32_t *tokens = calloc(R, sizeof *tokens);
    float *scores = calloc(R, sizeof *scores);
    for (int r = 0; r < R; r++) {
        stream[r] = (uint64_t)(r % 2);
        index[r] = (int64_t)(r / 2) * V;
    }
    VocabChoice choice = {
        .banned = -1, .limit = V, .temperature = 1.5f, .seed = 9, .stream = stream, .index = index};
    assert_ok(vocab_propose(*state, tokens, scores, h.x, head_weight(&h), h.b, &choice, &err),
              &err);
    double p[V], sum = 0, log_sum = 0, chi = 0;
    int count[V] = {0};
    for (int v = 0; v < V; v++) sum += p[v] = exp(logits[v] / 1.5), log_sum += exp(logits[v]);
    for (int r = 0; r < R; r++) {
        assert_in_range(tokens[r], 0, V - 1);
        count[tokens[r]]++;
        assert_true(fabs(scores[r] - (logits[tokens[r]] - log(log_sum))) < 1e-5);
    }
    for (int v = 0; v < V; v++) {
        double expected = R * p[v] / sum;
        chi += (count[v] - expected) * (count[v] - expected) / expected;
    }
    if (!(chi < 24.3)) fail_msg("chi-square %g with 7 degrees of freedom", chi);
    free(stream), free(index), free(tokens), free(scores);
    head_free(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_f32),
        cmocka_unit_test(linear_narrow_weights),
        cmocka_unit_test(linear_bf16),
        cmocka_unit_test(linear_no_rows),
        cmocka_unit_test(pack_pieces),
        cmocka_unit_test(pack_with_progress),
        ON_GPU(pack_on_gpu),
        cmocka_unit_test(linear_batch_independence),
        cmocka_unit_test(linear_many_shapes),
        ON_CPU(matmul_orientations),
        cmocka_unit_test(propose_matches),
        cmocka_unit_test(vocab_logits_match),
        cmocka_unit_test(propose_ties),
        cmocka_unit_test(propose_nan),
        cmocka_unit_test(propose_close),
        cmocka_unit_test(propose_distribution),
    };
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
