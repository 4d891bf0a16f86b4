#include "tests/checkpoint_files.h"

static char folder[256]; /* of the running program's files, made by the group's setup */

int make_folder(void **state) {
    (void)state;
    temporary_folder(folder, sizeof folder);
    return 0;
}

int remove_folder(void **state) {
    (void)state;
    temporary_remove(folder);
    return 0;
}

const char *at(const char *name) {
    static char paths[2][512];
    static int turn;
    turn ^= 1;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

void save(const char *path, const void *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (size) assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

void save_text(const char *path, const char *text) {
    save(path, text, strlen(text));
}

int open_path(const char *path, Error *err) {
    Checkpoint checkpoint;
    int failed = checkpoint_open(&checkpoint, path, NULL, err);
    if (failed) assert_true(checkpoint.count == 0 && !checkpoint.tensors && !checkpoint.store);
    checkpoint_close(&checkpoint);
    return failed;
}

/* The i-th value of every golden tensor, in the order of its shape (make_checkpoints.py). */
static double expected_value(Dtype dtype, size_t i) {
    if (dtype == DTYPE_BOOL) return (double)(i % 2);
    if (dtype == DTYPE_U8) return (double)i;
    return dtype_is_float(dtype) || dtype == DTYPE_F64 ? ((double)i - 3) / 2 : (double)i - 3;
}

double value_at(const Tensor *t, size_t i) {
    switch (t->dtype) {
    case DTYPE_F64:
        return ((double *)t->data)[i];
    case DTYPE_I64:
        return (double)((int64_t *)t->data)[i];
    case DTYPE_I32:
        return ((int32_t *)t->data)[i];
    case DTYPE_I16:
        return ((int16_t *)t->data)[i];
    case DTYPE_I8:
        return ((int8_t *)t->data)[i];
    case DTYPE_U8:
    case DTYPE_BOOL:
        return ((uint8_t *)t->data)[i];
    default: {
        float value;
        size_t size = dtype_size(t->dtype);
        assert_true(values_convert(&value, DTYPE_F32, (char *)t->data + i * size, t->dtype, 1));
        return value;
    }
    }
}

void check_tensor(const Checkpoint *c, const char *name, Dtype dtype, const int *shape) {
    const CheckpointTensor *found = checkpoint_find(c, name);
    if (!found) fail_msg("no tensor \"%s\"", name);
    const Tensor *t = &found->value;
    assert_string_equal(found->name, name);
    assert_int_equal(t->dtype, dtype);
    int ndim = 0;
    for (; shape[ndim] >= 0; ndim++) assert_int_equal(t->shape[ndim], shape[ndim]);
    assert_int_equal(t->ndim, ndim);
    assert_non_null(t->data);
    assert_int_equal((uintptr_t)t->data % dtype_size(dtype), 0);
    for (size_t i = 0; i < (size_t)tensor_count(*t); i++)
        if (value_at(t, i) != expected_value(dtype, i))
            fail_msg("%s[%zu] is %g, expected %g", name, i, value_at(t, i),
                     expected_value(dtype, i));
}

void open_good(Checkpoint *c, const char *path, const char *stem) {
    Error err = {0};
    assert_ok(checkpoint_open(c, path, stem, &err), &err);
    for (size_t i = 1; i < c->count; i++)
        assert_true(strcmp(c->tensors[i - 1].name, c->tensors[i].name) < 0);
}

void check_types(const Checkpoint *c) {
    check_tensor(c, "f32", DTYPE_F32, DIMS(2, 3));
    check_tensor(c, "f16", DTYPE_F16, DIMS(4));
    check_tensor(c, "bf16", DTYPE_BF16, DIMS(2, 2));
    check_tensor(c, "f64", DTYPE_F64, DIMS(3));
    check_tensor(c, "i64", DTYPE_I64, DIMS(1, 5));
    check_tensor(c, "i32", DTYPE_I32, DIMS(5));
    check_tensor(c, "i16", DTYPE_I16, DIMS(5));
    check_tensor(c, "i8", DTYPE_I8, DIMS(5));
    check_tensor(c, "u8", DTYPE_U8, DIMS(5));
    check_tensor(c, "bool", DTYPE_BOOL, DIMS(3));
}

void check_views(const Checkpoint *c) {
    check_tensor(c, "transposed", DTYPE_F32, DIMS(3, 4));
    check_tensor(c, "permuted", DTYPE_F32, DIMS(2, 3, 4));
    check_tensor(c, "every_second", DTYPE_F32, DIMS(5));
    check_tensor(c, "one", DTYPE_F32, DIMS(1, 3));
    check_tensor(c, "tied", DTYPE_F32, DIMS(4, 3));
    check_tensor(c, "tied_too", DTYPE_F32, DIMS(4, 3));
    check_tensor(c, "parameter", DTYPE_F32, DIMS(2, 2));
}
