/* Convolutions, compared with plain loops in double precision. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/ops.h"

#include <math.h>

typedef struct Case {
    Conv2d conv;
    int images;
    bool accumulate;
} Case;

/* Odd sizes, all paddings, strides and kinds; the last ones are EfficientNet's own kinds. */
static const Case cases[] = {
    {{.height = 5,
      .width = 5,
      .channels = 3,
      .out = 7,
      .kernel = 3,
      .stride = 1,
      .before = 1,
      .after = 1},
     1,
     false},
    {{.height = 7,
      .width = 9,
      .channels = 5,
      .out = 3,
      .kernel = 3,
      .stride = 2,
      .before = 0,
      .after = 1,
      .relu6 = true},
     3,
     false},
    {{.height = 6,
      .width = 5,
      .channels = 13,
      .out = 13,
      .kernel = 5,
      .stride = 2,
      .before = 1,
      .after = 2,
      .depthwise = true,
      .relu6 = true},
     2,
     false},
    {{.height = 1, .width = 1, .channels = 17, .out = 33, .kernel = 1, .stride = 1}, 5, true},
    {{.height = 3, .width = 4, .channels = 19, .out = 21, .kernel = 1, .stride = 1, .relu6 = true},
     4,
     false},
    {{.height = 3,
      .width = 11,
      .channels = 9,
      .out = 9,
      .kernel = 3,
      .stride = 1,
      .before = 1,
      .after = 1,
      .depthwise = true},
     1,
     true},
    {{.height = 9, .width = 4, .channels = 2, .out = 6, .kernel = 2, .stride = 3, .before = 1},
     2,
     true},
    {{.height = 16,
      .width = 16,
      .channels = 3,
      .out = 32,
      .kernel = 3,
      .stride = 2,
      .after = 1,
      .relu6 = true},
     2,
     false},
    {{.height = 12,
      .width = 12,
      .channels = 96,
      .out = 96,
      .kernel = 3,
      .stride = 2,
      .after = 1,
      .depthwise = true,
      .relu6 = true},
     2,
     false},
    {{.height = 7, .width = 7, .channels = 96, .out = 24, .kernel = 1, .stride = 1}, 3, true},
    /* Four images would want another layout of the weight than one (oneDNN 2.6, AVX-512). */
    {{.height = 8, .width = 8, .channels = 1152, .out = 192, .kernel = 1, .stride = 1}, 4, true},
};
enum { CASES = sizeof cases / sizeof *cases };

/* One result, and the sum of absolute values that its error is measured with. */
static double place_sum(const Case *k, const TestMatrix *x, Tensor w, int image, int row,
                        int column, int out) {
    const Conv2d *c = &k->conv;
    const float *weight = w.data;
    const int in = c->depthwise ? 1 : c->channels, side = c->kernel;
    double sum = 0;
    for (int i = 0; i < in; i++)
        for (int a = 0; a < side; a++)
            for (int b = 0; b < side; b++) {
                int y = row * c->stride + a - c->before, z = column * c->stride + b - c->before;
                if (y < 0 || y >= c->height || z < 0 || z >= c->width) continue;
                sum += weight[((out * in + i) * side + a) * side + b] *
                       matrix_get(x, ((int64_t)image * c->height + y) * c->width + z,
                                  c->depthwise ? out : i);
            }
    return sum;
}

static double *expected(const Case *k, const TestMatrix *x, Tensor w, const TestMatrix *b,
                        const TestMatrix *y) {
    const Conv2d *c = &k->conv;
    const int high = conv2d_places(c, c->height), wide = conv2d_places(c, c->width);
    double *want = malloc((size_t)k->images * (size_t)(high * wide * c->out) * sizeof *want);
    assert_non_null(want);
    int64_t at = 0;
    for (int64_t r = 0; r < (int64_t)k->images * high * wide; r++)
        for (int o = 0; o < c->out; o++) {
            int place = (int)(r % (high * wide));
            double v = place_sum(k, x, w, (int)(r / (high * wide)), place / wide, place % wide, o) +
                       matrix_get(b, 0, o);
            if (k->accumulate) v += matrix_get(y, r, o);
            if (c->relu6) v = v < 0 ? 0 : v > 6 ? 6 : v;
            want[at++] = v;
        }
    return want;
}

/* Weights in the values of the compute type, so that rounding them is no error. */
static Tensor weight_make(TestRandom *random, const Conv2d *c, Dtype compute) {
    const int in = c->depthwise ? 1 : c->channels;
    const int64_t shape[] = {c->out, in, c->kernel, c->kernel};
    const size_t n = (size_t)(c->out * in * c->kernel * c->kernel);
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++) {
        values[i] = 3 * test_random_normal(random) / sqrtf((float)(in * c->kernel * c->kernel));
        if (compute == DTYPE_BF16) values[i] = bf16_to_f32(f32_to_bf16(values[i]));
    }
    return tensor_nd(values, DTYPE_F32, 4, shape);
}

static void check_case(Device *device, const Case *k, Dtype compute, TestRandom *random) {
    const Conv2d *c = &k->conv;
    const int64_t pixels = (int64_t)c->height * c->width;
    const int64_t places = (int64_t)conv2d_places(c, c->height) * conv2d_places(c, c->width);
    Error err;
    struct Packed *packed = NULL;
    Tensor w = weight_make(random, c, compute), weight = TENSOR_NONE;
    TestMatrix x = matrix_random(random, compute, k->images * pixels, c->channels, 0, 1, 0);
    TestMatrix y = matrix_random(random, compute, k->images * places, c->out, 0, 1, 0);
    TestMatrix one = matrix_new(compute, places, c->out, 0);
    TestMatrix b = matrix_random(random, DTYPE_F32, 1, c->out, 0, 1, 0.5);
    Tensor bias = tensor_1d(b.t.data, DTYPE_F32, c->out);
    assert_ok(conv2d_pack(device, &packed, c, w, compute, &err), &err);
    weight.packed = packed;
    double *want = expected(k, &x, w, &b, &y);
    for (int64_t r = 0; r < places; r++) /* the last image, to be computed by itself */
        for (int64_t o = 0; o < c->out; o++)
            matrix_set(&one, r, o, matrix_get(&y, (k->images - 1) * places + r, o));
    assert_ok(conv2d_forward(device, y.t, x.t, weight, bias, k->accumulate, &err), &err);
    matrix_assert_close(&y, want, dtype_limit(compute), "conv2d");
    Tensor last = tensor_rows(x.t, (k->images - 1) * pixels, pixels);
    assert_ok(conv2d_forward(device, one.t, last, weight, bias, k->accumulate, &err), &err);
    for (int64_t r = 0; r < places; r++)
        if (!matrix_same_row(&one, r, &y, (k->images - 1) * places + r))
            fail_msg("case %d: an image's result depends on the others", (int)(k - cases));
    packed_free(device, packed);
    matrix_free(&x), matrix_free(&y), matrix_free(&one), matrix_free(&b);
    free(w.data), free(want);
}

static void test_forward(void **state) {
    Device *device = isa_device(state);
    TestRandom random = {77};
    for (int i = 0; i < CASES; i++) check_case(device, &cases[i], DTYPE_F32, &random);
}

static void test_forward_bf16(void **state) {
    Device *device = isa_device(state);
    TestRandom random = {78};
    if (!device_has_bf16(device)) skip();
    for (int i = 0; i < CASES; i++) check_case(device, &cases[i], DTYPE_BF16, &random);
}

/* Each argument that cannot be right is refused by name. */
static void test_refused(void **state) {
    Device *device = isa_device(state);
    Error err;
    struct Packed *packed = NULL, *matrix = NULL;
    float values[8 * 3 * 3 * 3] = {0};
    const Conv2d good = {.height = 4,
                         .width = 5,
                         .channels = 3,
                         .out = 8,
                         .kernel = 3,
                         .stride = 2,
                         .after = 1,
                         .relu6 = true};
    Tensor w = tensor_nd(values, DTYPE_F32, 4, (int64_t[]){8, 3, 3, 3}), packed_w = TENSOR_NONE;
    Conv2d c = good;
    c.channels = 2;
    assert_refused(conv2d_pack(device, &packed, &c, w, DTYPE_F32, &err), &err, "conv2d_pack",
                   "[8, 3, 3, 3]", "[8, 2, 3, 3]");
    c = good, c.depthwise = true;
    assert_refused(conv2d_pack(device, &packed, &c, w, DTYPE_F32, &err), &err, "depthwise");
    c = good, c.before = 3;
    assert_refused(conv2d_pack(device, &packed, &c, w, DTYPE_F32, &err), &err, "zeros");
    c = good, c.height = 1, c.after = 0;
    assert_refused(conv2d_pack(device, &packed, &c, w, DTYPE_F32, &err), &err, "does not fit");
    c = good, c.stride = 0;
    assert_refused(conv2d_pack(device, &packed, &c, w, DTYPE_F32, &err), &err, "stride");
    assert_ok(conv2d_pack(device, &packed, &good, w, DTYPE_F32, &err), &err);
    packed_w.packed = packed;
    float x[21 * 3] = {0}, y[8 * 8] = {0}, b[8] = {0};
    Tensor yt = tensor_2d(y, DTYPE_F32, 4, 8), bt = tensor_1d(b, DTYPE_F32, 8);
    Tensor xt = tensor_2d(x, DTYPE_F32, 20, 3), more = tensor_2d(x, DTYPE_F32, 21, 3);
    assert_refused(conv2d_forward(device, yt, more, packed_w, bt, false, &err), &err, "21 rows");
    assert_refused(conv2d_forward(device, yt, xt, packed_w, bt, true, &err), &err, "relu6");
    assert_refused(conv2d_forward(device, yt, xt, w, bt, false, &err), &err, "not packed");
    assert_refused(conv2d_forward(device, xt, xt, packed_w, bt, false, &err), &err, "y is");
    assert_refused(linear_forward(device, yt, xt, packed_w, bt, ACTIVATION_NONE, false, &err), &err,
                   "packed for a convolution");
    Tensor plain = tensor_2d(values, DTYPE_F32, 8, 3), matrix_w = TENSOR_NONE;
    assert_ok(pack_weight(device, &matrix, &plain, 1, DTYPE_F32, false, NULL, &err), &err);
    matrix_w.packed = matrix;
    assert_refused(conv2d_forward(device, yt, xt, matrix_w, bt, false, &err), &err, "not packed");
    assert_ok(conv2d_forward(device, tensor_rows(yt, 0, 0), tensor_rows(xt, 0, 0), packed_w, bt,
                             false, &err),
              &err);
    packed_free(device, packed), packed_free(device, matrix);
}

int main(void) {
    const struct CMUnitTest tests[] = {ON_EACH_ISA(test_forward), ON_EACH_ISA(test_forward_bf16),
                                       ON_EACH_ISA(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
