/* matrix.h - matrices for tests of operations, and a device for each instruction set.
 *
 * A TestMatrix lies in the middle of memory that is NaN all around it: before its first row,
 * between its rows and after the last. An operation that reads there shows it in its result; one
 * that writes there is found by matrix_check.
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
/* Fails the test if anything outside of the matrix was written. */
void matrix_check(const TestMatrix *m);
/* The same, and frees it. */
void matrix_free(TestMatrix *m);

double matrix_get(const TestMatrix *m, int64_t row, int64_t column);
void matrix_set(TestMatrix *m, int64_t row, int64_t column, double value);
/* True if all bits of these rows agree. */
bool matrix_same_row(const TestMatrix *a, int64_t row_a, const TestMatrix *b, int64_t row_b);
/* Fails unless every value is finite and the whole is within the relative error of `want`, row
 * after row without gaps. */
void matrix_assert_close(const TestMatrix *m, const double *want, double limit, const char *what);
/* 1e-6 for f32, 1e-2 for bf16. */
double dtype_limit(Dtype dtype);

/* ---- What a test runs on. ----
 *
 * The CPU, or a GPU behind tests/mirror_device.h: in a program that is built with the emulator, and
 * wherever the environment says EASYFIRST_TEST_DEVICE=cuda. */

bool test_on_gpu(void);

/* The device with these options, which are the CPU's and of no account on a GPU. */
int test_device_open(Device **device, const DeviceOptions *options, Error *err);

/* A group's setup and teardown: *state is a device with the usual threads. */
int device_setup(void **state);
int device_teardown(void **state);

/* Rows of a group's tests that are for one of the two are left out by their names where the other
 * is tested: "... cuda" on the CPU, and "... (something)" on a GPU. */
#define ON_GPU(f) \
    { #f " cuda", f, NULL, NULL, NULL }
#define ON_CPU(f) \
    { #f " (cpu)", f, NULL, NULL, NULL }

/* A test that runs once for each instruction set, or once on the GPU. Its state is the set's name
 * before the setup and a device, or NULL, after it. The second form: on the CPU only. */
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
