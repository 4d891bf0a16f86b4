/* Embeddings of which some rows are in memory at a time: the bits of whole ones. */
#include "tests/parted.h"
#include "tests/test.h"

/* The bits of whole tables. */
static void lookups(void **state) {
    Device *device;
    Error err;
    (void)state;
    enum { V = 150, D = 7, T = 23 };
    TestRandom random = {20};
    assert_ok(device_open(&device, NULL, &err), &err);
    for (int i = 0; i < 6; i++) {
        const int rows = 64 + i % 3 * 64;
        TestMatrix w = matrix_random(&random, DTYPE_F32, V, D, 0, 1, 0);
        TestMatrix other = matrix_random(&random, DTYPE_F32, T, D, 0, 1, 0);
        TestMatrix dy = matrix_random(&random, DTYPE_F32, T, D, 0, 1, 0);
        TestMatrix y = matrix_new(DTYPE_F32, T, D, 0), want = matrix_new(DTYPE_F32, T, D, 0);
        TestMatrix dw = matrix_new(DTYPE_F32, V, D, 0), dwant = matrix_new(DTYPE_F32, V, D, 0);
        int32_t ids[T], order[T];
        for (int k = 0; k < T; k++) ids[k] = k % 5 ? (k * 37) % V : -1, order[k] = k;
        memset(dw.t.data, 0, tensor_bytes(dw.t)), memset(dwant.t.data, 0, tensor_bytes(dwant.t));
        Parted parted;
        parted_open(&parted, rows, w.t, dw.t, i > 2);
        Tensor table = w.t;
        table.data = parted.part.t.data, table.grad = parted.grad.t.data;
        table.parts = &parted.parts;
        const Tensor index = tensor_1d(ids, DTYPE_I32, T), all = tensor_1d(order, DTYPE_I32, T);
        Arena arena;
        assert_ok(arena_open(&arena, device, parts_gather_bytes(T), &err), &err);
        const GatherTerm whole[2] = {{w.t, index}, {other.t, all}};
        const GatherTerm parts[2] = {{table, index}, {other.t, all}};
        assert_ok(gather_forward(device, want.t, whole, 2, &err), &err);
        assert_refused(gather_forward(device, y.t, parts, 2, &err), &err, "not all rows", "memory");
        assert_ok(parts_gather(&arena, y.t, parts, 2, ids, &err), &err);
        assert_memory_equal(y.t.data, want.t.data, tensor_bytes(y.t));
        assert_ok(gather_backward(device, dwant.t, dy.t, index, &err), &err);
        assert_ok(parts_gather_backward(&arena, table, dy.t, ids, &err), &err);
        parted_leave(&parted);
        assert_memory_equal(dw.t.data, dwant.t.data, tensor_bytes(dw.t));
        arena_close(&arena);
        parted_free(&parted);
        matrix_free(&w), matrix_free(&other), matrix_free(&dy), matrix_free(&y);
        matrix_free(&want), matrix_free(&dw), matrix_free(&dwant);
    }
    device_close(device);
}

/* Parts that no rank brings, and operations that need all rows. */
static void refused(void **state) {
    Device *device;
    Error err;
    (void)state;
    float values[64] = {0}, bias[128] = {0};
    const TensorParts parts = {.rows = 64, .count = 2};
    Tensor w = tensor_2d(values, DTYPE_F32, 128, 1);
    const Tensor x = tensor_2d(values, DTYPE_F32, 1, 1);
    w.parts = &parts;
    assert_ok(device_open(&device, NULL, &err), &err);
    assert_refused(parts_enter(w, PARTS_SCAN, 64, &err), &err, "other processes", "bring");
    assert_ok(parts_enter(w, PARTS_SCAN, 65, &err), &err);
    assert_int_equal(parts_together(w, 60), 4);
    assert_int_equal(parts_together(w, 64), 64);
    assert_null(tensor_rows(w, 0, 3).parts);
    const GatherTerm many[8] = {{w, TENSOR_NONE}};
    assert_refused(parts_gather(NULL, x, many, 8, NULL, &err), &err, "8 terms", "at most 7");
    assert_refused(linear_forward(device, tensor_2d(bias, DTYPE_F32, 1, 128), x, w, TENSOR_NONE, 0,
                                  false, &err),
                   &err, "not all rows", "memory");
    assert_refused(
        vocab_logits(device, tensor_2d(bias, DTYPE_F32, 1, 128), x, w, TENSOR_NONE, &err), &err,
        "not all rows", "memory");
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lookups), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
