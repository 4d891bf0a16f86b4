#include "tests/matrix.h"

#include <math.h>

#include "tests/mirror_device.h"

enum { GUARD = 64 }; /* elements before and after */

TestMatrix matrix_new(Dtype dtype, int64_t rows, int64_t columns, int64_t gap) {
    TestMatrix m = {.elements = 2 * GUARD + rows * (columns + gap)};
    size_t size = dtype_size(dtype);
    m.block = malloc((size_t)m.elements * size);
    assert_non_null(m.block);
    memset(m.block, 0xff, (size_t)m.elements * size); /* NaN in every floating type */
    m.t = tensor_2d((char *)m.block + GUARD * size, dtype, rows, columns);
    m.t.ld = columns + gap;
    return m;
}

TestMatrix matrix_random(TestRandom *random, Dtype dtype, int64_t rows, int64_t columns,
                         int64_t gap, double scale, double shift) {
    TestMatrix m = matrix_new(dtype, rows, columns, gap);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            matrix_set(&m, r, c, scale * test_random_normal(random) + shift);
    return m;
}

void matrix_check(const TestMatrix *m) {
    size_t size = dtype_size(m->t.dtype);
    int64_t stride = m->t.ld;
    for (int64_t i = 0; i < m->elements; i++) {
        int64_t at = i - GUARD;
        if (at >= 0 && at < m->t.shape[0] * stride && at % stride < m->t.shape[1]) continue;
        const unsigned char *p = (const unsigned char *)m->block + (size_t)i * size;
        for (size_t b = 0; b < size; b++)
            if (p[b] != 0xff)
                fail_msg("written outside of the matrix [%lld, %lld]: element %lld",
                         (long long)m->t.shape[0], (long long)m->t.shape[1], (long long)at);
    }
}

void matrix_free(TestMatrix *m) {
    matrix_check(m);
    free(m->block);
    *m = (TestMatrix){0};
}

static void *element(const TestMatrix *m, int64_t row, int64_t column) {
    return (char *)m->t.data + (size_t)(row * m->t.ld + column) * dtype_size(m->t.dtype);
}

double matrix_get(const TestMatrix *m, int64_t row, int64_t column) {
    float v;
    assert_true(values_convert(&v, DTYPE_F32, element(m, row, column), m->t.dtype, 1));
    return v;
}

void matrix_set(TestMatrix *m, int64_t row, int64_t column, double value) {
    float v = (float)value;
    assert_true(values_convert(element(m, row, column), m->t.dtype, &v, DTYPE_F32, 1));
}

bool matrix_same_row(const TestMatrix *a, int64_t row_a, const TestMatrix *b, int64_t row_b) {
    return memcmp(element(a, row_a, 0), element(b, row_b, 0),
                  (size_t)a->t.shape[1] * dtype_size(a->t.dtype)) == 0;
}

void matrix_assert_close(const TestMatrix *m, const double *want, double limit, const char *what) {
    double difference = 0, norm = 0;
    for (int64_t r = 0; r < m->t.shape[0]; r++)
        for (int64_t c = 0; c < m->t.shape[1]; c++) {
            double v = matrix_get(m, r, c), w = want[r * m->t.shape[1] + c];
            if (!isfinite(v) || !isfinite(w))
                fail_msg("%s: %g at [%lld, %lld], expected %g", what, v, (long long)r, (long long)c,
                         w);
            difference += (v - w) * (v - w);
            norm += w * w;
        }
    double e = difference == 0 ? 0 : sqrt(difference / norm);
    if (!(e <= limit))
        fail_msg("%s [%lld, %lld] %s: relative error %g, at most %g allowed", what,
                 (long long)m->t.shape[0], (long long)m->t.shape[1], dtype_name(m->t.dtype), e,
                 limit);
}

double dtype_limit(Dtype dtype) {
    return dtype == DTYPE_F32 ? 1e-6 : 1e-2;
}

bool test_on_gpu(void) {
#ifdef EASYFIRST_EMULATED
    return true;
#else
    const char *device = getenv("EASYFIRST_TEST_DEVICE");
    return device && !strcmp(device, "cuda");
#endif
}

/* Before main, and so before any group of tests begins. */
__attribute__((constructor)) static void choose_rows(void) {
    cmocka_set_skip_filter(test_on_gpu() ? "* (*)" : "* cuda");
}

int test_device_open(Device **device, const DeviceOptions *options, Error *err) {
    return test_on_gpu() ? mirror_open(device, 0, err) : device_open(device, options, err);
}

int isa_setup(void **state) {
    /* More threads than the pieces of small cases, fewer than those of large ones. */
    DeviceOptions options = {.kind = DEVICE_CPU, .threads = 3, .isa = *state};
    Device *device = NULL;
    Error err;
    if (test_device_open(&device, &options, &err) != 0) {
        if (test_on_gpu()) printf("note: %s\n", err.text);
        device = NULL;
    }
    *state = device;
    return 0;
}

int isa_teardown(void **state) {
    device_close(*state);
    return 0;
}

Device *isa_device(void **state) {
    if (!*state) skip();
    return *state;
}

const char *isa_name(const Device *device) {
    static const char *const names[] = {"avx512", "avx2", "base"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(device_text(device), names[i])) return names[i];
    return NULL;
}

int device_setup(void **state) {
    Error err;
    Device *device;
    if (test_device_open(&device, NULL, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    *state = device;
    return 0;
}

int device_teardown(void **state) {
    device_close(*state);
    return 0;
}

Device *device_new(int threads) {
    Error err;
    Device *device;
    DeviceOptions options = {.threads = threads};
    assert_ok(test_device_open(&device, &options, &err), &err);
    return device;
}

int two_threads_setup(void **state) {
    *state = device_new(2);
    return 0;
}

Device *device_of(void **state, Dtype dtype) {
    if (dtype == DTYPE_BF16 && !device_has_bf16(*state)) skip();
    return *state;
}

double *doubles(int64_t n) {
    double *d = calloc((size_t)n + 1, sizeof *d);
    assert_non_null(d);
    return d;
}

double *matrix_doubles(const TestMatrix *m) {
    int64_t rows = m->t.shape[0], columns = m->t.shape[1];
    double *d = doubles(rows * columns);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) d[r * columns + c] = matrix_get(m, r, c);
    return d;
}

Tensor as_vector(const TestMatrix *m) {
    return tensor_1d(m->t.data, m->t.dtype, m->t.shape[1]);
}

double distance(double a, double b, double floor) {
    return fabs(a - b) / fmax(floor, fmax(fabs(a), fabs(b)));
}
