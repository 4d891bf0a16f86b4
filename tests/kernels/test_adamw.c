/* AdamW's step, in f32 and of weights in bf16 alone with stochastic rounding, against plain loops in
 * double precision. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/moments.h"
#include "kernels/random.h"

#include <math.h>

static const Tensor none; /* TENSOR_NONE */

static void adamw_steps(Device *device, int64_t n, Dtype copy_dtype, float decay, float eps) {
    Error err;
    TestRandom random = {16};
    TestMatrix p = matrix_random(&random, DTYPE_F32, 1, n, 0, 1, 0);
    TestMatrix m = matrix_random(&random, DTYPE_F32, 1, n, 0, 0, 0);
    TestMatrix v = matrix_random(&random, DTYPE_F32, 1, n, 0, 0, 0);
    TestMatrix copy = matrix_new(copy_dtype ? copy_dtype : DTYPE_F32, 1, n, 0);
    double *pd = matrix_doubles(&p), *md = doubles(n), *vd = doubles(n);
    AdamW a = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.98f, .eps = eps, .weight_decay = decay};
    for (a.step = 1; a.step <= 10; a.step++) {
        TestMatrix g = matrix_random(&random, DTYPE_F32, 1, n, 0, 1, 0.3);
        a.grad_scale = a.step % 3 ? 1 : 0.125f;
        assert_ok(adamw_step(device, as_vector(&p), copy_dtype ? as_vector(&copy) : none,
                             as_vector(&m), as_vector(&v), as_vector(&g), &a, &err),
                  &err);
        for (int64_t i = 0; i < n; i++) {
            double gradient = matrix_get(&g, 0, i) * a.grad_scale;
            md[i] = (double)a.beta1 * md[i] + (1 - (double)a.beta1) * gradient;
            vd[i] = (double)a.beta2 * vd[i] + (1 - (double)a.beta2) * gradient * gradient;
            double mean = md[i] / (1 - pow(a.beta1, (double)a.step));
            double root = sqrt(vd[i] / (1 - pow(a.beta2, (double)a.step)));
            pd[i] -= (double)a.lr * (mean / (root + (double)a.eps) + (double)decay * pd[i]);
        }
        matrix_assert_close(&p, pd, 1e-6, "weights");
        matrix_assert_close(&m, md, 1e-6, "first moments");
        matrix_assert_close(&v, vd, 1e-6, "second moments");
        for (int64_t i = 0; copy_dtype && i < n; i++) {
            uint16_t narrow;
            float value = ((const float *)p.t.data)[i];
            assert_true(values_convert(&narrow, copy_dtype, &value, DTYPE_F32, 1));
            assert_int_equal(((const uint16_t *)copy.t.data)[i], narrow);
        }
        matrix_free(&g);
    }
    matrix_free(&p), matrix_free(&m), matrix_free(&v), matrix_free(&copy);
    free(pd), free(md), free(vd);
}

static void adamw(void **state) {
    adamw_steps(*state, 1, DTYPE_NONE, 0, 1e-8f);
    adamw_steps(*state, 17, DTYPE_BF16, 0.01f, 1e-6f);
    adamw_steps(*state, 4099, DTYPE_F16, 0.1f, 1e-8f);
    adamw_steps(*state, 9001, DTYPE_BF16, 0.5f, 0.5f);
}

static void adamw_nan(void **state) {
    Error err;
    float p[3] = {1, 2, 3}, m[3] = {0}, v[3] = {0}, g[3] = {1, NAN, 0};
    AdamW a = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .grad_scale = 1, .step = 1};
    assert_ok(adamw_step(*state, tensor_1d(p, DTYPE_F32, 3), none, tensor_1d(m, DTYPE_F32, 3),
                         tensor_1d(v, DTYPE_F32, 3), tensor_1d(g, DTYPE_F32, 3), &a, &err),
              &err);
    /* The first step is lr, for any size of the gradient; without a gradient, no step. */
    assert_true(distance(p[0], 0.9, 0) < 1e-6 && isnan(p[1]) && p[2] == 3);
}

/* The 16 bits of a value, by themselves: those of random.h's word. */
static uint16_t rounded(float value, const AdamW *a, int64_t index) {
    const double uniform = random_uniform(a->seed, a->stream, (uint64_t)(index / 2));
    const uint32_t word = (uint32_t)(uniform * 0x1p32 - 0.5);
    const double chance = (index % 2 ? word >> 16 : word & 0xffff) / 65536.0;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const double lost = (bits & 0xffff) / 65536.0;
    return (uint16_t)((bits >> 16) + (lost + chance >= 1));
}

/* Weights in bf16 alone: the step of f32 from their values, rounded by the value's own random bits,
 * whatever the number of threads and wherever a run begins. */
static void adamw_bf16_steps(Device *device, int64_t n, int64_t first, bool narrow) {
    Error err;
    TestRandom random = {18};
    TestMatrix p = matrix_random(&random, DTYPE_BF16, 1, n, 0, 1, 0);
    TestMatrix g = matrix_random(&random, DTYPE_F32, 1, n, 0, 1, 0);
    const int64_t blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    float *wide = calloc((size_t)n, sizeof *wide), *moments[2][2], maps[4 * MOMENT_BLOCK];
    uint8_t *codes = calloc(4 * (size_t)n, 1);
    float *scales = calloc(4 * (size_t)blocks, sizeof *scales);
    for (int i = 0; i < 4; i++) moments[i / 2][i % 2] = calloc((size_t)n, sizeof(float));
    moments_maps(maps);
    AdamW a = {.lr = 0.01f,
               .beta1 = 0.9f,
               .beta2 = 0.98f,
               .eps = 1e-8f,
               .weight_decay = 0.1f,
               .grad_scale = 1,
               .seed = 0x123456789abcdefu,
               .stream = 77,
               .first = first};
    for (a.step = 1; a.step <= 4; a.step++) {
        values_convert(wide, DTYPE_F32, p.t.data, DTYPE_BF16, (size_t)n);
        for (int which = 0; which < 2; which++) {
            const Tensor w = which ? as_vector(&p) : tensor_1d(wide, DTYPE_F32, n);
            uint8_t *c = codes + 2 * n * which;
            float *s = scales + 2 * blocks * which;
            const Moments8 q = {tensor_1d(c, DTYPE_U8, n), tensor_1d(c + n, DTYPE_U8, n),
                                tensor_1d(s, DTYPE_F32, blocks),
                                tensor_1d(s + blocks, DTYPE_F32, blocks),
                                tensor_2d(maps, DTYPE_F32, 4, MOMENT_BLOCK)};
            if (narrow)
                assert_ok(adamw8_step(device, w, none, &q, as_vector(&g), &a, &err), &err);
            else
                assert_ok(adamw_step(device, w, none, tensor_1d(moments[which][0], DTYPE_F32, n),
                                     tensor_1d(moments[which][1], DTYPE_F32, n), as_vector(&g), &a,
                                     &err),
                          &err);
        }
        for (int64_t i = 0; i < n; i++)
            assert_int_equal(((const uint16_t *)p.t.data)[i], rounded(wide[i], &a, first + i));
    }
    matrix_free(&p), matrix_free(&g);
    for (int i = 0; i < 4; i++) free(moments[i / 2][i % 2]);
    free(wide), free(codes), free(scales);
}

static void adamw_bf16(void **state) {
    Device *three = device_new(3);
    for (int narrow = 0; narrow < 2; narrow++) {
        adamw_bf16_steps(*state, 1, 5, narrow);
        adamw_bf16_steps(*state, 4099, 0, narrow);
        adamw_bf16_steps(*state, 9001, ((int64_t)1 << 35) + 3, narrow);
        adamw_bf16_steps(three, 9001, 64, narrow);
    }
    device_close(three);
    /* Special values, and what is refused. */
    Error err;
    enum { N = 4 };
    uint16_t p[N] = {0x7f80, 0x7fc1, 0x3f80, 0xff80}, was[N], copy[N];
    float m[N] = {0}, v[N] = {0}, g[N] = {0};
    AdamW a = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .grad_scale = 1, .step = 1};
    const Tensor w = tensor_1d(p, DTYPE_BF16, N), second = tensor_1d(copy, DTYPE_BF16, N);
    const Tensor zero = tensor_1d(g, DTYPE_F32, N);
    memcpy(was, p, sizeof was);
    a.weight_decay = 0;
    assert_ok(adamw_step(*state, w, none, tensor_1d(m, DTYPE_F32, N), tensor_1d(v, DTYPE_F32, N),
                         zero, &a, &err),
              &err);
    /* 0 times infinity in the decay is a NaN; what does not change keeps its bits. */
    assert_int_equal(p[2], was[2]);
    assert_true(isnan(bf16_to_f32(p[1])));
    assert_refused(adamw_step(*state, w, second, tensor_1d(m, DTYPE_F32, N),
                              tensor_1d(v, DTYPE_F32, N), zero, &a, &err),
                   &err, "adamw_step", "copy");
    a.first = -1;
    assert_refused(adamw_step(*state, w, none, tensor_1d(m, DTYPE_F32, N),
                              tensor_1d(v, DTYPE_F32, N), zero, &a, &err),
                   &err, "first is -1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw),
        cmocka_unit_test(adamw_nan),
        cmocka_unit_test(adamw_bf16),
    };
    return cmocka_run_group_tests(tests, two_threads_setup, device_teardown);
}
