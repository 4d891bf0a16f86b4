/* matrix.h - matrices for tests of operations, and a device for each instruction set.
 *
 * A TestMatrix is surrounded by NaN in memory: before its first row, between its rows and after the
 * last. An operation that reads there gives a NaN result; matrix_check detects one that writes
 * there.
 */
#ifndef EASYFIRST_TESTS_MATRIX_H
#define EASYFIRST_TESTS_MATRIX_H

#include "kernels/ops.h"
#include "tests/test.h"

typedef struct TestMatrix {
    Tensor t; /* [rows, columns]; values undefined (NaN) until filled */
    void *block;
    int64_t elements; /* of the block */
} TestMatrix;

/* `gap` elements between one row and the next; 0: the rows lie end to end. */
TestMatrix matrix_new(Dtype dtype, int64_t rows, int64_t columns, int64_t gap);
/* The same, with normal random values times `scale`, plus `shift`. */
TestMatrix matrix_random(TestRandom *random, Dtype dtype, int64_t rows, int64_t columns,
                         int64_t gap, double scale, double shift);
/* Fails the test if something outside of the matrix was written. */
void matrix_check(const TestMatrix *m);
/* matrix_check, and frees it. */
void matrix_free(TestMatrix *m);

double matrix_get(const TestMatrix *m, int64_t row, int64_t column);
void matrix_set(TestMatrix *m, int64_t row, int64_t column, double value);
/* Zeros, and the values of a matrix as they are stored, to be freed by the caller. */
double *doubles(int64_t n);
double *matrix_doubles(const TestMatrix *m);
/* A matrix of one row as a vector. */
Tensor as_vector(const TestMatrix *m);
/* |a - b| relative to the largest of |a|, |b| and `floor`. */
double distance(double a, double b, double floor);
/* True if these rows have the same bits. */
bool matrix_same_row(const TestMatrix *a, int64_t row_a, const TestMatrix *b, int64_t row_b);
/* Fails unless every value is finite and the relative error to `want` [rows, columns], without
 * gaps, is at most `limit`. */
void matrix_assert_close(const TestMatrix *m, const double *want, double limit, const char *what);
/* 1e-6 for f32, 1e-2 for bf16. */
double dtype_limit(Dtype dtype);

/* ---- What a test runs on. ----
 *
 * The CPU, or a GPU through tests/mirror_device.h: in a program built with the emulator, and with
 * EASYFIRST_TEST_DEVICE=cuda in the environment. */

bool test_on_gpu(void);

/* Opens the device with these options, which are the CPU's and ignored on a GPU. */
int test_device_open(Device **device, const DeviceOptions *options, Error *err);

/* A group's setup and teardown: *state is a device with the usual threads. */
int device_setup(void **state);
int device_teardown(void **state);
/* The same with two threads on any machine, so that work is divided; a device of so many; a test's device,
 * skipping the test where it cannot compute in `dtype`. */
int two_threads_setup(void **state);
Device *device_new(int threads);
Device *device_of(void **state, Dtype dtype);

/* Tests of one kind of device only: the runner excludes them by name on the other, "... cuda" on
 * the CPU and "... (something)" on a GPU. */
#define ON_GPU(f) \
    { #f " cuda", f, NULL, NULL, NULL }
#define ON_CPU(f) \
    { #f " (cpu)", f, NULL, NULL, NULL }

/* A test that runs once for each instruction set, or once on the GPU. Its state is the set's name
 * before the setup, and a device or NULL after it. The second form: on the CPU only. */
#define ON_EACH_ISA(f) {#f " cuda", f, isa_setup, isa_teardown, "cuda"}, ON_EACH_CPU_ISA(f)
#define ON_EACH_CPU_ISA(f)                                    \
    {#f " (base)", f, isa_setup, isa_teardown, "base"},       \
        {#f " (avx2)", f, isa_setup, isa_teardown, "avx2"}, { \
#f " (avx512)", f, isa_setup, isa_teardown, "avx512"  \
    }
int isa_setup(void **state);
int isa_teardown(void **state);
/* The device; skips the test where the processor or the build lacks the set. */
Device *isa_device(void **state);
const char *isa_name(const Device *device);

#endif
