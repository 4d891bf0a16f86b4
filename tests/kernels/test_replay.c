/* Work that a GPU records and replays (kernels/device.h): the result must equal that of running it,
 * after anything else in between. On a CPU the work is always run, with the same checks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/matrix.h"
#include "tests/test.h"

/* A linear layer, attention over spans that differ from key to key, LayerNorm. One head so wide
 * that a GPU's attention copies q to the backend's memory. */
enum { ROWS = 37, WIDTH = 136, HEADS = 1 };

typedef struct Work {
    Device *device;
    Tensor x, w, b, qkv, out, norm_w, norm_b; /* on the device */
    AttentionSpan spans[2];
    int calls;
    bool fail;
} Work;

static int do_work(void *user, Error *err) {
    Work *k = user;
    k->calls++;
    if (k->fail) return error_set(err, "this work fails");
    TRY(linear_forward(k->device, k->qkv, k->x, k->w, k->b, ACTIVATION_NONE, false, err));
    TRY(attention_forward(k->device, k->out, TENSOR_NONE, tensor_columns(k->qkv, 0, WIDTH),
                          tensor_columns(k->qkv, WIDTH, WIDTH),
                          tensor_columns(k->qkv, 2 * WIDTH, WIDTH), HEADS, 0.25f, k->spans, 2, NULL,
                          err));
    return layernorm_forward(k->device, k->out, TENSOR_NONE, TENSOR_NONE, k->out, k->norm_w,
                             k->norm_b, 1e-5f, err);
}

/* The first `split` rows attend to each other, and so do the others. */
static void work_split(Work *k, int split) {
    k->spans[0] = (AttentionSpan){0, split, 1, {{0, split}}};
    k->spans[1] = (AttentionSpan){split, ROWS, 1, {{split, ROWS}}};
}

static Tensor take(Device *device, TestRandom *random, int64_t rows, int64_t columns) {
    Error err;
    Tensor t = tensor_2d(NULL, DTYPE_F32, rows, columns);
    float *values = malloc(tensor_bytes(t));
    for (int64_t i = 0; i < rows * columns; i++) values[i] = (float)test_random_normal(random);
    assert_ok(device_alloc(device, &t.data, tensor_bytes(t), &err), &err);
    assert_ok(device_upload(device, t.data, values, tensor_bytes(t), &err), &err);
    free(values);
    return t;
}

static void work_open(Work *k, Device *device, uint64_t seed) {
    TestRandom random = {seed};
    *k = (Work){.device = device};
    k->x = take(device, &random, ROWS, WIDTH), k->w = take(device, &random, 3 * WIDTH, WIDTH);
    k->qkv = take(device, &random, ROWS, 3 * WIDTH), k->out = take(device, &random, ROWS, WIDTH);
    Tensor b = take(device, &random, 1, 3 * WIDTH), norm_w = take(device, &random, 1, WIDTH),
           norm_b = take(device, &random, 1, WIDTH);
    k->b = tensor_1d(b.data, DTYPE_F32, 3 * WIDTH);
    k->norm_w = tensor_1d(norm_w.data, DTYPE_F32, WIDTH);
    k->norm_b = tensor_1d(norm_b.data, DTYPE_F32, WIDTH);
}

static void work_close(Work *k) {
    const Tensor all[] = {k->x, k->w, k->b, k->qkv, k->out, k->norm_w, k->norm_b};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_free(k->device, all[i].data);
}

static void download(Device *device, Tensor t, float *out) {
    Error err;
    assert_ok(device_download(device, out, t.data, tensor_bytes(t), &err), &err);
}

static ReplayKey key_of(const Work *k) {
    ReplayKey key = replay_key();
    replay_key_add_tensor(&key, k->x);
    replay_key_add(&key, k->spans, sizeof k->spans);
    return key;
}

/* New values of x, the work by device_replay, and the same without: equal to the bit. Returns the
 * number of launches. */
static uint64_t check_replay(Work *k, TestRandom *random) {
    Error err;
    static float x[ROWS * WIDTH], got[ROWS * WIDTH], want[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = (float)test_random_normal(random);
    assert_ok(device_upload(k->device, k->x.data, x, sizeof x, &err), &err);
    assert_ok(device_clear(k->device, k->out.data, tensor_bytes(k->out), &err), &err);
    const uint64_t before = device_counters(k->device).launches;
    assert_ok(device_replay(k->device, key_of(k), do_work, k, &err), &err);
    const uint64_t launches = device_counters(k->device).launches - before;
    download(k->device, k->out, got);
    assert_ok(do_work(k, &err), &err);
    download(k->device, k->out, want);
    for (int i = 0; i < ROWS * WIDTH; i++) assert_true(isfinite(want[i]));
    assert_memory_equal(got, want, sizeof got);
    return launches;
}

static int open_device(void **state) {
    Error err;
    Device *device;
    const DeviceOptions options = {.kind = test_on_gpu() ? DEVICE_CUDA : DEVICE_CPU};
    if (device_open(&device, &options, &err) != 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    *state = device;
    return 0;
}

static void replays(void **state) {
    Device *device = *state;
    TestRandom random = {7};
    Work k;
    work_open(&k, device, 1);
    work_split(&k, 20);
    for (int i = 0; i < 6; i++) {
        const uint64_t launches = check_replay(&k, &random);
        if (device_replays(device) && i >= 1) assert_int_equal(launches, 1);
    }
    /* Once by itself, once to be recorded, and once in each of the 6 comparisons. */
    if (device_replays(device)) assert_int_equal(k.calls, 8);
    work_close(&k);
}

/* Pieces of work in turn, each with its own spans: a few, which are all cached, and more than the
 * cache holds. */
static void many_keys(void **state) {
    TestRandom random = {8};
    Work k;
    work_open(&k, *state, 2);
    for (int keys = 3; keys < ROWS; keys += ROWS - 4)
        for (int i = 0; i < 4 * keys; i++) {
            work_split(&k, 1 + i % keys);
            const uint64_t launches = check_replay(&k, &random);
            if (device_replays(k.device) && keys == 3 && i >= keys) assert_int_equal(launches, 1);
        }
    work_close(&k);
}

/* The backend's memory moves when an operation needs more of it. */
static void workspace_grows(void **state) {
    Error err;
    Device *device = *state;
    TestRandom random = {9};
    Work k;
    work_open(&k, device, 3);
    work_split(&k, 5);
    for (int i = 0; i < 3; i++) check_replay(&k, &random);
    for (int64_t rows = 300; rows <= 3000; rows *= 10) {
        Tensor wide = take(device, &random, rows, 300), out = take(device, &random, rows, 300);
        const AttentionSpan span = {0, (int32_t)rows, 1, {{0, 9}}};
        assert_ok(attention_forward(device, out, TENSOR_NONE, wide, wide, wide, 1, 0.1f, &span, 1,
                                    NULL, &err),
                  &err);
        check_replay(&k, &random);
        device_free(device, wide.data), device_free(device, out.data);
    }
    for (int i = 0; i < 3; i++) check_replay(&k, &random);
    work_close(&k);
}

/* An error is returned unchanged: the first time, when recording, and afterwards. */
static void failing_work(void **state) {
    TestRandom random = {10};
    Work k;
    work_open(&k, *state, 4);
    work_split(&k, 9);
    k.fail = true;
    for (int i = 0; i < 4; i++) {
        Error err;
        assert_refused(device_replay(k.device, key_of(&k), do_work, &k, &err), &err,
                       "this work fails");
    }
    k.fail = false;
    for (int i = 0; i < 3; i++) check_replay(&k, &random);
    work_close(&k);
}

/* A matmul with a packed weight, with which a GPU stores its bias in bf16. */
typedef struct PackedWork {
    Device *device;
    Tensor y, x, w, b;
} PackedWork;

static int do_packed(void *user, Error *err) {
    const PackedWork *k = user;
    return linear_forward(k->device, k->y, k->x, k->w, k->b, ACTIVATION_NONE, false, err);
}

/* One model after another at the same addresses, as freed memory is reused: a recording of one must
 * not be replayed for the other. */
static void packs_come_and_go(void **state) {
    enum { IN = 64, OUT = 128, MODELS = 4 };
    Error err;
    Device *device = *state;
    if (!device_has_bf16(device)) skip();
    PackedWork k = {.device = device,
                    .y = tensor_2d(NULL, DTYPE_BF16, ROWS, OUT),
                    .x = tensor_2d(NULL, DTYPE_BF16, ROWS, IN),
                    .b = tensor_1d(NULL, DTYPE_F32, OUT)};
    assert_ok(device_alloc(device, &k.y.data, tensor_bytes(k.y), &err), &err);
    assert_ok(device_alloc(device, &k.x.data, tensor_bytes(k.x), &err), &err);
    assert_ok(device_alloc(device, &k.b.data, tensor_bytes(k.b), &err), &err);
    assert_ok(device_clear(device, k.x.data, tensor_bytes(k.x), &err), &err);
    for (int model = 1; model <= MODELS; model++) {
        static uint16_t weights[OUT * IN], got[ROWS * OUT]; /* x = 0: the result is the bias */
        float bias[OUT];
        for (int i = 0; i < OUT; i++) bias[i] = (float)(model * (i + 1));
        assert_ok(device_upload(device, k.b.data, bias, sizeof bias, &err), &err);
        Tensor w = tensor_2d(weights, DTYPE_BF16, OUT, IN);
        struct Packed *packed;
        assert_ok(pack_weight(device, &packed, &w, 1, DTYPE_BF16, false, NULL, &err), &err);
        k.w = tensor_2d(NULL, DTYPE_BF16, OUT, IN);
        k.w.packed = packed;
        ReplayKey key = replay_key();
        replay_key_add_tensor(&key, k.x);
        replay_key_add_tensor(&key, k.w);
        for (int i = 0; i < 3; i++) {
            assert_ok(device_clear(device, k.y.data, tensor_bytes(k.y), &err), &err);
            assert_ok(device_replay(device, key, do_packed, &k, &err), &err);
            assert_ok(device_download(device, got, k.y.data, sizeof got, &err), &err);
            for (int j = 0; j < ROWS * OUT; j++) assert_true(got[j] == f32_to_bf16(bias[j % OUT]));
        }
        packed_free(device, packed);
    }
    device_free(device, k.y.data), device_free(device, k.x.data), device_free(device, k.b.data);
}

static void keys_differ(void **state) {
    (void)state;
    const char bytes[] = "abcdefgh\0\0";
    ReplayKey seen[12];
    for (size_t n = 0; n <= 10; n++) {
        ReplayKey key = replay_key();
        replay_key_add(&key, bytes, n);
        for (size_t i = 0; i < n; i++) assert_true(memcmp(&seen[i], &key, sizeof key) != 0);
        seen[n] = key;
    }
    ReplayKey once = replay_key(), again = replay_key();
    replay_key_add(&once, bytes, 3);
    replay_key_add(&again, bytes, 3);
    assert_memory_equal(&once, &again, sizeof once);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_differ),  cmocka_unit_test(replays),
        cmocka_unit_test(many_keys),    cmocka_unit_test(workspace_grows),
        cmocka_unit_test(failing_work), cmocka_unit_test(packs_come_and_go),
    };
    return cmocka_run_group_tests(tests, open_device, device_teardown);
}
