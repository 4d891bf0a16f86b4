/* PyTorch's files from before 1.6: read as the same values, and broken ones refused. */
#include <unistd.h>

#include "projector/model.h"
#include "data/checkpoints/model_files.h"
#include "tests/checkpoint_files.h"

static void check_legacy_types(const char *path) {
    Checkpoint c;
    open_good(&c, path, NULL);
    assert_int_equal(c.count, 12);
    check_types(&c);
    assert_int_equal(checkpoint_find(&c, "scalar")->value.ndim, 0);
    assert_true(value_at(&checkpoint_find(&c, "scalar")->value, 0) == -1.5);
    assert_int_equal(tensor_count(checkpoint_find(&c, "empty")->value), 0);
    checkpoint_close(&c);
}

static void test_types(void **state) {
    (void)state;
    check_legacy_types(GOLDEN "legacy_types.bin");
    check_legacy_types(GOLDEN "legacy_protocol4.bin");
}

static void test_views(void **state) {
    (void)state;
    Checkpoint c;
    open_good(&c, GOLDEN "legacy_views.bin", NULL);
    assert_int_equal(c.count, 9);
    check_views(&c);
    const Tensor *rows = &checkpoint_find(&c, "tied_rows")->value;
    for (size_t i = 0; i < 6; i++) assert_true(value_at(rows, i) == i / 2.0);
    checkpoint_close(&c);
    open_good(&c, GOLDEN "legacy_trainer.pt", NULL);
    assert_int_equal(c.count, 2);
    check_tensor(&c, "a", DTYPE_F32, DIMS(2));
    check_tensor(&c, "b.c", DTYPE_F32, DIMS(3));
    checkpoint_close(&c);
    open_good(&c, GOLDEN "legacy_module.bin", NULL);
    check_tensor(&c, "weight", DTYPE_F32, DIMS(2, 3));
    check_tensor(&c, "bias", DTYPE_F32, DIMS(2));
    checkpoint_close(&c);
    open_good(&c, GOLDEN "legacy.bin", NULL);
    check_tensor(&c, "a", DTYPE_F32, DIMS(2));
    checkpoint_close(&c);
}

static const char *const files[] = {GOLDEN "legacy_types.bin", GOLDEN "legacy_protocol4.bin",
                                    GOLDEN "legacy_views.bin", GOLDEN "legacy_trainer.pt",
                                    GOLDEN "legacy_module.bin"};
enum { FILES = sizeof files / sizeof *files };

/* A file cut anywhere is refused: every value of it is needed. */
static void test_cut(void **state) {
    (void)state;
    Error err;
    for (int f = 0; f < FILES; f++) {
        size_t size;
        char *bytes = file_bytes(files[f], &size);
        for (size_t n = 1; n < size; n += n < size - 40 ? 5 : 1) {
            unlink(at("cut.bin")); /* writing over a file waits for the disk on some systems */
            save(at("cut.bin"), bytes, n);
            err.text[0] = 0;
            if (open_path(at("cut.bin"), &err) == 0) fail_msg("%s: %zu of %zu", files[f], n, size);
            assert_non_null(strstr(err.text, "cut.bin"));
        }
        free(bytes);
    }
}

/* Any byte changed: refused with a message, or read within the file (a sanitizer checks). */
static void test_changed(void **state) {
    (void)state;
    TestRandom random = {14};
    for (int f = 0; f < FILES; f++) {
        size_t size;
        char *bytes = file_bytes(files[f], &size), *changed = malloc(size);
        for (int i = 0; i < 400; i++) {
            Error err = {0};
            Checkpoint c;
            memcpy(changed, bytes, size);
            for (uint64_t k = test_random_next(&random) % 3 + 1; k > 0; k--)
                changed[test_random_next(&random) % size] = (char)test_random_next(&random);
            unlink(at("changed.bin"));
            save(at("changed.bin"), changed, size);
            if (checkpoint_open(&c, at("changed.bin"), NULL, &err)) {
                assert_true(err.text[0] != 0 && c.count == 0);
                continue;
            }
            for (size_t t = 0; t < c.count; t++)
                for (size_t k = 0; c.tensors[t].value.dtype && k < tensor_bytes(c.tensors[t].value);
                     k++)
                    (void)*((volatile const char *)c.tensors[t].value.data + k);
            checkpoint_close(&c);
        }
        free(bytes), free(changed);
    }
}

static void replace(const char *from, const char *to, const char *expected) {
    Error err;
    size_t size, n = strlen(from);
    char *bytes = file_bytes(GOLDEN "legacy_module.bin", &size);
    char *found = memmem(bytes, size, from, n);
    assert_non_null(found);
    memcpy(found, to, n);
    save(at("replaced.bin"), bytes, size);
    assert_refused(open_path(at("replaced.bin"), &err), &err, "replaced.bin", expected);
    free(bytes);
}

static void test_refused(void **state) {
    (void)state;
    Error err;
    replace("M\351\3", "M\352\3", "unknown protocol");
    replace("little_endian\x71\2\x88", "little_endian\x71\2\x89", "big-endian");
    replace("FloatStorage", "EvilStorage\n", "nothing was executed");
    /* Pickles that torch.save did not write. */
    save(at("bare.bin"), "\x80\2}q\1.", 6);
    assert_refused(open_path(at("bare.bin"), &err), &err, "bare.bin", "bare pickle");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_views),   cmocka_unit_test(test_cut),
        cmocka_unit_test(test_changed), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
