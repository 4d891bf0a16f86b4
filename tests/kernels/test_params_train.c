/* The parameter table in training: the flat tables, frozen parameters, values read and written, on
 * the CPU and on a device whose memory the host cannot access. */
#include "kernels/params.h"
#include "tests/guarded_device.h"
#include "tests/matrix.h"
#include "tests/test.h"

typedef struct Slots {
    Tensor qkv, bias, conv, table, vocabulary, words, norm, extra, rest;
} Slots;

/* Values that no type rounds: small multiples of 1/8. */
static float given_value(const Param *p, int64_t i) {
    return (float)((i * 7 + p->name[0] + p->name[2]) % 61 - 30) / 8;
}

static int64_t elements(const Param *p) {
    return tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape));
}

/* Joined matrices and vectors, a convolution, a table, a vocabulary, vectors of odd size, an
 * optional one without values, an idle one. */
static void declare_all(Params *p, Slots *s, bool part_frozen) {
    Error err;
    *s = (Slots){0};
    for (int i = 0; i < 3; i++) {
        ParamSpec w = {
            .slot = &s->qkv, .role = PARAM_MATRIX, .ndim = 2, .shape = {5 + i, 7}, .joined = i > 0};
        assert_ok(params_declare(p, &w, &err, "p.%d.weight", i), &err);
    }
    for (int i = 0; i < 3; i++) {
        ParamSpec b = {
            .slot = &s->bias, .role = PARAM_VECTOR, .ndim = 1, .shape = {5 + i}, .joined = i > 0};
        assert_ok(params_declare(p, &b, &err, "p.%d.bias", i), &err);
    }
    ParamSpec specs[] = {
        {.slot = &s->conv, .role = PARAM_MATRIX, .ndim = 4, .shape = {4, 3, 2, 2}},
        {.slot = &s->table, .role = PARAM_TABLE, .ndim = 2, .shape = {30, 11}},
        {.slot = &s->vocabulary,
         .table_slot = &s->words,
         .role = PARAM_VOCABULARY,
         .ndim = 2,
         .shape = {13, 7}},
        {.slot = &s->norm, .role = PARAM_VECTOR, .ndim = 1, .shape = {65}},
        {.slot = &s->extra, .role = PARAM_VECTOR, .ndim = 1, .shape = {9}, .optional = true},
        {.slot = &s->rest, .role = PARAM_MATRIX, .ndim = 2, .shape = {3, 3}, .idle = true},
    };
    static const char *const names[] = {"conv", "table", "words", "norm", "extra", "rest"};
    for (int i = 0; i < 6; i++) {
        specs[i].frozen = part_frozen && i < 4;
        assert_ok(params_declare(p, &specs[i], &err, "%s", names[i]), &err);
    }
}

/* Sets the values of all but the optional one, each in another type if `mixed`; the caller frees
 * *memory after the table. */
static void give_values(Params *p, Dtype dtype, bool mixed, char **memory) {
    static const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    Error err;
    *memory = malloc(1 << 16);
    char *next = *memory;
    for (int i = 0; i < p->count; i++) {
        Param *q = &p->items[i];
        if (!strcmp(q->name, "extra")) continue;
        Dtype own = mixed ? types[i % 3] : dtype;
        int64_t n = elements(q);
        float values[512];
        for (int64_t j = 0; j < n; j++) values[j] = given_value(q, j);
        assert_true(values_convert(next, own, values, DTYPE_F32, (size_t)n));
        assert_ok(params_set(q, tensor_nd(next, own, q->ndim, q->shape), &err), &err);
        next += (size_t)n * dtype_size(own);
        assert_true(next < *memory + (1 << 16));
        next += (size_t)(-(uintptr_t)next % 4);
    }
}

static void download(Device *device, float *to, const void *from, Dtype dtype, int64_t n) {
    Error err;
    char raw[4096];
    assert_in_range(n, 0, 1024);
    assert_ok(device_download(device, raw, from, (size_t)n * dtype_size(dtype), &err), &err);
    values_convert(to, DTYPE_F32, raw, dtype, (size_t)n);
}

/* The slot holds the group's values, contiguous and in the type, and `grad` is zero and
 * separate. */
static void check_slot(Params *p, Tensor slot, Dtype dtype, const char *const *names, int count,
                       bool trained) {
    float values[1024];
    int64_t n = tensor_count(slot), at = 0;
    assert_int_equal(slot.dtype, dtype);
    assert_int_equal(slot.ld, slot.shape[slot.ndim - 1]);
    assert_null(slot.packed);
    if (device_kind(p->device) != DEVICE_CPU) assert_true(guarded_owns(slot.data));
    download(p->device, values, slot.data, dtype, n);
    for (int i = 0; i < count; i++) {
        const Param *q = params_find(p, names[i]);
        for (int64_t j = 0; j < elements(q); j++, at++)
            assert_true(values[at] == (strcmp(names[i], "extra") ? given_value(q, j) : 0));
        assert_int_equal(q->offset >= 0, trained);
    }
    assert_int_equal(at, n);
    if (!trained) {
        assert_null(slot.grad);
        return;
    }
    assert_ptr_equal(slot.grad, p->grad + params_find(p, names[0])->offset);
    download(p->device, values, slot.grad, DTYPE_F32, n);
    for (int64_t i = 0; i < n; i++) assert_true(values[i] == 0);
}

static const char *const weights[] = {"p.0.weight", "p.1.weight", "p.2.weight"};
static const char *const biases[] = {"p.0.bias", "p.1.bias", "p.2.bias"};

static void check_all(Params *p, const Slots *s, Dtype compute, Dtype table, bool part_frozen) {
    check_slot(p, s->qkv, compute, weights, 3, true);
    assert_int_equal(s->qkv.shape[0], 18);
    assert_int_equal(s->qkv.shape[1], 7);
    check_slot(p, s->bias, DTYPE_F32, biases, 3, true);
    assert_int_equal(s->bias.ndim, 1);
    check_slot(p, s->conv, compute, (const char *[]){"conv"}, 1, !part_frozen);
    assert_int_equal(s->conv.ndim, 2);
    assert_int_equal(s->conv.shape[1], 12);
    check_slot(p, s->table, table, (const char *[]){"table"}, 1, !part_frozen);
    check_slot(p, s->vocabulary, compute, (const char *[]){"words"}, 1, !part_frozen);
    assert_memory_equal(&s->vocabulary, &s->words, sizeof s->words);
    check_slot(p, s->norm, DTYPE_F32, (const char *[]){"norm"}, 1, !part_frozen);
    check_slot(p, s->extra, DTYPE_F32, (const char *[]){"extra"}, 1, true);
    assert_null(s->rest.data);
}

/* Offsets are multiples of 64 except within a group; gaps are zero in both tables. */
static void check_layout(Params *p, int64_t values) {
    float master[4096], grad[1024];
    assert_in_range(p->flat, values, 1024);
    assert_int_equal(p->flat % 64, 0);
    download(p->device, master, p->master, DTYPE_F32, p->flat);
    download(p->device, grad, p->grad, DTYPE_F32, p->flat);
    int64_t end = 0;
    for (int i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        if (q->offset < 0) continue;
        if (q->join < 0 || q->join == i)
            assert_int_equal(q->offset, (end + 63) / 64 * 64);
        else
            assert_int_equal(q->offset, end);
        for (; end < q->offset; end++) assert_true(master[end] == 0 && grad[end] == 0);
        end += elements(q);
    }
    for (; end < p->flat; end++) assert_true(master[end] == 0 && grad[end] == 0);
    assert_int_equal(params_trainable_count(p), values);
}

static void check_table(Device *device, Dtype compute, bool mixed, bool part_frozen) {
    Params p;
    Slots s;
    Error err;
    char *memory;
    params_init(&p, device);
    declare_all(&p, &s, part_frozen);
    give_values(&p, DTYPE_BF16, mixed, &memory);
    Dtype table = part_frozen ? params_find(&p, "table")->value.dtype : compute;
    size_t before = guarded_bytes(), predicted = params_training_bytes(&p, compute);
    assert_ok(params_train(&p, compute, &err), &err);
    if (device_kind(device) != DEVICE_CPU) assert_int_equal(guarded_bytes() - before, predicted);
    assert_int_equal(params_training_bytes(&p, compute), predicted);
    assert_int_equal(p.working != NULL, compute == DTYPE_BF16);
    check_all(&p, &s, compute, table, part_frozen);
    check_layout(&p, 18 * 8 + 9 + (part_frozen ? 0 : 48 + 330 + 91 + 65));
    assert_refused(params_train(&p, compute, &err), &err, "already");
    params_free(&p);
    assert_int_equal(guarded_bytes(), before);
    free(memory);
}

static void each_kind(Device *device) {
    for (int k = 0; k < 8; k++) {
        Dtype compute = k & 1 ? DTYPE_BF16 : DTYPE_F32;
        if (compute == DTYPE_BF16 && !device_has_bf16(device)) continue;
        check_table(device, compute, k & 2, k & 4);
    }
}

static Device *device_fresh(void) {
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    return device;
}

static void test_cpu(void **state) {
    (void)state;
    Device *device = device_fresh();
    each_kind(device);
    device_close(device);
}

static void test_guarded(void **state) {
    (void)state;
    Device *device = guarded_open();
    each_kind(device);
    guarded_close(device);
}

/* On the CPU frozen parameters are used in place if possible. */
static void test_in_place(void **state) {
    (void)state;
    Device *device = device_fresh();
    Params p;
    Slots s;
    Error err;
    params_init(&p, device);
    declare_all(&p, &s, false);
    params_freeze(&p, true);
    assert_ok(params_allocate(&p, DTYPE_F32, &err), &err);
    params_initialise(&p, 1);
    size_t vectors = params_training_bytes(&p, DTYPE_F32);
    assert_int_equal(vectors, 256 + 512 + 9 * 4); /* 72, 260 and 36 bytes, aligned */
    assert_ok(params_train(&p, DTYPE_F32, &err), &err);
    assert_int_equal(p.flat, 0);
    assert_null(p.master);
    assert_null(p.plain);
    assert_ptr_equal(s.qkv.data, params_find(&p, "p.0.weight")->value.data);
    assert_int_equal(s.qkv.shape[0], 18);
    assert_ptr_equal(s.words.data, params_find(&p, "words")->value.data);
    assert_int_equal(params_trainable_count(&p), 0);
    assert_null(s.qkv.grad);
    params_free(&p);

    /* A group that is not contiguous is copied into one stack. */
    params_init(&p, device);
    declare_all(&p, &s, false);
    params_freeze(&p, true);
    params_freeze(&p, false);
    assert_false(params_find(&p, "rest")->trainable);
    params_freeze(&p, true);
    char *memory;
    give_values(&p, DTYPE_F32, false, &memory);
    Param *last = params_find(&p, "p.2.weight");
    float own[49];
    memcpy(own, last->value.data, sizeof own);
    last->value.data = own;
    vectors = params_training_bytes(&p, DTYPE_F32);
    assert_int_equal(vectors, 256 + 512 + 9 * 4 + 18 * 7 * 4);
    assert_ok(params_train(&p, DTYPE_F32, &err), &err);
    assert_ptr_equal(s.qkv.data, p.plain);
    check_slot(&p, s.qkv, DTYPE_F32, weights, 3, false);
    assert_ptr_equal(s.conv.data, params_find(&p, "conv")->value.data);
    params_free(&p);
    free(memory);
    device_close(device);
}

/* Reading, whole and in part, in every type; writing reaches masters and working copy. */
static void check_fetch(Device *device, Dtype compute) {
    static const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    Params p;
    Slots s;
    Error err;
    char *memory;
    params_init(&p, device);
    declare_all(&p, &s, true);
    give_values(&p, DTYPE_F16, false, &memory);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < p.count; i++)
            for (int t = 0; t < 3; t++) {
                const Param *q = &p.items[i];
                int64_t n = elements(q), first = n / 3, count = n - first - 1;
                char raw[2048];
                float values[512];
                assert_ok(params_fetch(&p, q, raw, types[t], &err), &err);
                values_convert(values, DTYPE_F32, raw, types[t], (size_t)n);
                for (int64_t j = 0; j < n; j++)
                    assert_true(values[j] == (strcmp(q->name, "extra") ? given_value(q, j) : 0));
                assert_ok(params_fetch_part(&p, q, first, count, raw, types[t], &err), &err);
                float part[512];
                values_convert(part, DTYPE_F32, raw, types[t], (size_t)count);
                assert_memory_equal(part, values + first, (size_t)count * sizeof *part);
            }
        if (round == 0) assert_ok(params_train(&p, compute, &err), &err);
    }
    Param *q = params_find(&p, "p.1.weight");
    char raw[256];
    assert_null(q->value.data);
    assert_int_equal(q->value.dtype, DTYPE_F16);
    assert_refused(params_fetch_part(&p, q, 40, 3, raw, DTYPE_F32, &err), &err, "p.1.weight",
                   "of 42");
    assert_refused(params_fetch_part(&p, q, -1, 3, raw, DTYPE_F32, &err), &err, "-1");
    assert_refused(params_fetch(&p, q, raw, DTYPE_I8, &err), &err, "i8", "bf16");

    float fresh[42], seen[126], exact[42];
    for (int i = 0; i < 42; i++) fresh[i] = 1.0f + (float)i / 1000;
    assert_ok(params_store(&p, q, fresh, &err), &err);
    assert_ok(params_fetch(&p, q, exact, DTYPE_F32, &err), &err);
    assert_memory_equal(exact, fresh, sizeof fresh);
    download(device, seen, s.qkv.data, compute, 126);
    for (int i = 0; i < 42; i++)
        assert_true(seen[35 + i] ==
                    (compute == DTYPE_F32 ? fresh[i] : bf16_to_f32(f32_to_bf16(fresh[i]))));
    assert_true(seen[34] == given_value(params_find(&p, "p.0.weight"), 34));
    assert_true(seen[77] == given_value(params_find(&p, "p.2.weight"), 0));
    assert_refused(params_store(&p, params_find(&p, "conv"), fresh, &err), &err, "conv",
                   "not being trained");
    params_free(&p);
    free(memory);
}

static void test_fetch(void **state) {
    (void)state;
    Device *device = device_fresh();
    check_fetch(device, DTYPE_F32);
    device_close(device);
    device = guarded_open();
    check_fetch(device, DTYPE_F32);
    check_fetch(device, DTYPE_BF16);
    guarded_close(device);
}

/* More values than are converted at a time. */
static void test_large(void **state) {
    (void)state;
    enum { N = 300007 };
    Device *device = guarded_open();
    Params p;
    Tensor slot;
    Error err;
    params_init(&p, device);
    ParamSpec spec = {.slot = &slot, .role = PARAM_TABLE, .ndim = 2, .shape = {N, 1}};
    assert_ok(params_declare(&p, &spec, &err, "large"), &err);
    uint16_t *given = malloc(N * 2), *seen = malloc(N * 2);
    TestRandom random = {5};
    for (int i = 0; i < N; i++) given[i] = f32_to_bf16(test_random_normal(&random));
    assert_ok(params_set(&p.items[0], tensor_2d(given, DTYPE_BF16, N, 1), &err), &err);
    assert_ok(params_train(&p, DTYPE_BF16, &err), &err);
    assert_ok(params_fetch(&p, &p.items[0], seen, DTYPE_BF16, &err), &err);
    assert_memory_equal(given, seen, N * 2);
    assert_ok(device_download(device, seen, slot.data, N * 2, &err), &err);
    assert_memory_equal(given, seen, N * 2);
    params_free(&p);
    guarded_close(device);
    free(given), free(seen);
}

/* The description equals training's layout, without allocating. */
static void test_describe(void **state) {
    (void)state;
    Device *device = guarded_open();
    for (int k = 0; k < 4; k++) {
        Dtype compute = k & 1 ? DTYPE_BF16 : DTYPE_F32;
        Params described, trained;
        Slots a, b;
        Error err;
        char *memory;
        params_init(&described, device);
        params_init(&trained, device);
        declare_all(&described, &a, k & 2);
        declare_all(&trained, &b, k & 2);
        assert_refused(params_train_describe(&described, compute, &err), &err, "no values");
        give_values(&described, DTYPE_F16, true, &memory);
        for (int i = 0; i < described.count; i++)
            if (described.items[i].present)
                assert_ok(params_set(&trained.items[i], described.items[i].value, &err), &err);
        assert_ok(params_train_describe(&described, compute, &err), &err);
        assert_int_equal(guarded_bytes(), 0);
        assert_ok(params_train(&trained, compute, &err), &err);
        assert_int_equal(described.flat, trained.flat);
        assert_int_equal(described.compute, trained.compute);
        assert_int_equal(params_training_bytes(&described, compute), guarded_bytes());
        for (int i = 0; i < described.count; i++)
            assert_int_equal(described.items[i].offset, trained.items[i].offset);
        const Tensor *x = (const Tensor *)&a, *y = (const Tensor *)&b;
        for (size_t i = 0; i < sizeof a / sizeof *x; i++) {
            assert_null(x[i].data);
            assert_int_equal(x[i].grad != NULL, y[i].grad != NULL);
            assert_int_equal(x[i].dtype, y[i].dtype);
            assert_true(tensor_same_shape(x[i], y[i]));
            assert_int_equal(x[i].ld, y[i].ld);
        }
        params_free(&described);
        params_free(&trained);
        free(memory);
    }
    guarded_close(device);
}

static void test_refused(void **state) {
    (void)state;
    Device *device = guarded_open();
    Params p;
    Slots s;
    Error err;
    char *memory;
    params_init(&p, device);
    declare_all(&p, &s, false);
    assert_refused(params_train(&p, DTYPE_F32, &err), &err, "p.0.weight", "no values");
    give_values(&p, DTYPE_F32, false, &memory);
    assert_refused(params_train(&p, DTYPE_F16, &err), &err, "f16", "bf16");
    params_find(&p, "p.2.bias")->trainable = false;
    assert_refused(params_train(&p, DTYPE_F32, &err), &err, "p.0.bias", "p.2.bias", "joined");
    params_free(&p);
    free(memory);
    /* Out of memory at any allocation: an error, without leaks. */
    for (int i = 0; i < 5; i++) {
        params_init(&p, device);
        declare_all(&p, &s, true);
        give_values(&p, DTYPE_F32, false, &memory);
        guarded_fail_after(i);
        assert_refused(params_train(&p, DTYPE_BF16, &err), &err, "out of memory");
        params_free(&p);
        assert_int_equal(guarded_bytes(), 0);
        free(memory);
    }
    guarded_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),      cmocka_unit_test(test_guarded),
        cmocka_unit_test(test_in_place), cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_large),    cmocka_unit_test(test_describe),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
