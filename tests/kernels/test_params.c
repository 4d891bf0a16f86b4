/* The parameter table: declaring, giving values, allocating, initializing, preparing. */
#include <math.h>

#include "kernels/params.h"
#include "tests/guarded_device.h"
#include "tests/test.h"

typedef struct Slots {
    Tensor qkv, bias, table, words, vocabulary, norm, rest;
} Slots;

static Device *device_fresh(void) {
    Device *device;
    Error err;
    assert_ok(device_open(&device, &(DeviceOptions){0}, &err), &err);
    return device;
}

/* Three joined matrices with their joined biases, a table, a vocabulary, an optional and an idle
 * one. */
static void declare_all(Params *p, Slots *s) {
    Error err;
    for (int i = 0; i < 3; i++) {
        ParamSpec w = {.slot = &s->qkv,
                       .role = PARAM_MATRIX,
                       .init = INIT_NORMAL,
                       .init_std = 0.5f,
                       .ndim = 2,
                       .shape = {5 + i, 7},
                       .joined = i > 0};
        assert_ok(params_declare(p, &w, &err, "part.%d.weight", i), &err);
    }
    for (int i = 0; i < 3; i++) {
        ParamSpec b = {
            .slot = &s->bias, .role = PARAM_VECTOR, .ndim = 1, .shape = {5 + i}, .joined = i > 0};
        assert_ok(params_declare(p, &b, &err, "part.%d.bias", i), &err);
    }
    ParamSpec table = {.slot = &s->table,
                       .role = PARAM_TABLE,
                       .init = INIT_NORMAL,
                       .init_std = 1,
                       .ndim = 2,
                       .shape = {30, 100}};
    ParamSpec words = {.slot = &s->vocabulary,
                       .table_slot = &s->words,
                       .role = PARAM_VOCABULARY,
                       .init = INIT_NORMAL,
                       .init_std = 1,
                       .ndim = 2,
                       .shape = {11, 7}};
    ParamSpec norm = {.slot = &s->norm,
                      .role = PARAM_VECTOR,
                      .init = INIT_ONE,
                      .ndim = 1,
                      .shape = {9},
                      .optional = true};
    ParamSpec idle = {
        .slot = &s->rest, .role = PARAM_MATRIX, .ndim = 2, .shape = {3, 3}, .idle = true};
    assert_ok(params_declare(p, &table, &err, "table"), &err);
    assert_ok(params_declare(p, &words, &err, "words"), &err);
    assert_ok(params_declare(p, &norm, &err, "norm"), &err);
    assert_ok(params_declare(p, &idle, &err, "idle"), &err);
}

static void test_allocated(void **state) {
    (void)state;
    Device *device = device_fresh();
    Params p, q;
    Slots s = {0}, t = {0};
    Error err;
    params_init(&p, device), params_init(&q, device);
    declare_all(&p, &s), declare_all(&q, &t);
    assert_string_equal(params_missing(&p), "part.0.weight");
    assert_ok(params_allocate(&p, DTYPE_F32, &err), &err);
    assert_ok(params_allocate(&q, DTYPE_F32, &err), &err);
    assert_null(params_missing(&p));
    assert_int_equal(params_count(&p), (5 + 6 + 7) * 8 + 3000 + 77 + 9 + 9);
    /* Members of a group are contiguous; everything else is aligned. */
    const float *first = params_find(&p, "part.0.weight")->value.data;
    assert_ptr_equal(params_find(&p, "part.1.weight")->value.data, first + 5 * 7);
    assert_ptr_equal(params_find(&p, "part.2.weight")->value.data, first + 11 * 7);
    assert_int_equal((uintptr_t)first % 256, 0);
    assert_int_equal((uintptr_t)params_find(&p, "table")->value.data % 256, 0);
    /* The same seed gives the same values; another, others. */
    params_initialise(&p, 1), params_initialise(&q, 1);
    const float *table = params_find(&p, "table")->value.data;
    assert_memory_equal(table, params_find(&q, "table")->value.data, 3000 * sizeof(float));
    params_initialise(&q, 2);
    assert_memory_not_equal(table, params_find(&q, "table")->value.data, 3000 * sizeof(float));
    double sum = 0, squares = 0;
    for (int i = 0; i < 3000; i++) sum += table[i], squares += table[i] * table[i];
    assert_true(fabs(sum / 3000) < 0.1 && fabs(squares / 3000 - 1) < 0.1);
    assert_true(*(const float *)params_find(&p, "norm")->value.data == 1);

    size_t predicted = params_prepared_bytes(&p, DTYPE_F32);
    assert_ok(params_prepare(&p, DTYPE_F32, NULL, NULL, &err), &err);
    assert_int_equal(s.qkv.shape[0], 18);
    assert_int_equal(s.qkv.shape[1], 7);
    assert_non_null(s.qkv.packed);
    assert_int_equal(s.bias.shape[0], 18);
    assert_non_null(s.vocabulary.packed);
    assert_ptr_equal(s.words.data, params_find(&p, "words")->value.data);
    assert_null(s.rest.packed);
    assert_int_equal(predicted, packed_bytes(s.qkv.packed) + packed_bytes(s.vocabulary.packed) +
                                    256 + 9 * sizeof(float)); /* 18 values, aligned; 9 */

    /* The joined matrix is its stacked pieces. */
    float x[7], y[18];
    for (int i = 0; i < 7; i++) x[i] = (float)i - 3.5f;
    assert_ok(linear_forward(device, tensor_2d(y, DTYPE_F32, 1, 18), tensor_2d(x, DTYPE_F32, 1, 7),
                             s.qkv, s.bias, ACTIVATION_NONE, false, &err),
              &err);
    for (int r = 0; r < 18; r++) {
        double want = 0;
        for (int i = 0; i < 7; i++) want += (double)first[r * 7 + i] * x[i];
        assert_true(fabs(y[r] - want) <= 1e-5 * (1 + fabs(want)));
    }
    params_free(&p), params_free(&q);
    device_close(device);
}

static void test_given(void **state) {
    (void)state;
    Device *device = device_fresh();
    Params p;
    Slots s = {0};
    Error err;
    params_init(&p, device);
    declare_all(&p, &s);
    float values[35] = {0};
    Param *w = params_find(&p, "part.0.weight");
    assert_refused(params_set(w, tensor_2d(values, DTYPE_F32, 7, 5), &err), &err, "part.0.weight",
                   "found [7, 5]", "expected [5, 7]");
    assert_refused(params_set(w, tensor_1d(values, DTYPE_F32, 35), &err), &err, "found [35]");
    assert_refused(params_set(w, tensor_2d(values, DTYPE_I64, 5, 7), &err), &err, "i64", "bf16");
    assert_ok(params_set(w, tensor_2d(values, DTYPE_F32, 5, 7), &err), &err);
    /* Dimensions of 1 are ignored. */
    int64_t shape[] = {1, 5, 1};
    assert_ok(
        params_set(params_find(&p, "part.0.bias"), tensor_nd(values, DTYPE_F32, 3, shape), &err),
        &err);
    assert_null(params_find(&p, "nothing"));
    assert_refused(params_prepare(&p, DTYPE_F32, NULL, NULL, &err), &err, "part.1.weight");
    params_free(&p);
    device_close(device);
}

/* On a device that cannot access host memory, tables are copied, counted, and freed with the
 * rest. */
static void test_tables_copied(void **state) {
    (void)state;
    Device *device = guarded_open();
    Params p;
    Slots s = {0};
    Error err;
    params_init(&p, device);
    declare_all(&p, &s);
    assert_ok(params_allocate(&p, DTYPE_F32, &err), &err);
    params_initialise(&p, 3);
    size_t bytes = params_prepared_bytes(&p, DTYPE_F32);
    assert_ok(params_prepare(&p, DTYPE_F32, NULL, NULL, &err), &err);
    assert_int_equal(guarded_bytes(), bytes);
    const Tensor tables[] = {s.table, s.words};
    static const char *const names[] = {"table", "words"};
    for (int i = 0; i < 2; i++) {
        const Param *q = params_find(&p, names[i]);
        float seen[3000];
        assert_true(guarded_owns(tables[i].data));
        assert_true(tensor_same_shape(tables[i], q->value));
        assert_ok(device_download(device, seen, tables[i].data, tensor_bytes(tables[i]), &err),
                  &err);
        assert_memory_equal(seen, q->value.data, tensor_bytes(tables[i]));
    }
    params_free(&p);
    guarded_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocated),
        cmocka_unit_test(test_given),
        cmocka_unit_test(test_tables_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
