/* test.h - shared by all test programs: cmocka, relative errors, golden files, ../shared. */
#ifndef EASYFIRST_TESTS_TEST_H
#define EASYFIRST_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/error.h"

/* ||a - b|| / ||b|| over n values. NaN or infinity in either gives infinity, so it never passes a
 * `<=` comparison, and neither do two all-zero arrays that should not be zero (b all zero and a not
 * gives infinity; both all zero gives 0). */
double relative_error(const float *a, const float *b, size_t n);

/* Fails the test, naming the error, unless relative_error(a, b, n) <= limit. */
void assert_close(const float *a, const float *b, size_t n, double limit, const char *what);

/* Fails with the message in err unless the call returned 0. */
#define assert_ok(call, err)                                     \
    do {                                                         \
        if ((call) != 0) fail_msg("%s: %s", #call, (err)->text); \
    } while (0)

/* Fails unless the call failed and its message contains every one of the given words. */
#define assert_refused(call, err, ...)                                    \
    do {                                                                  \
        (err)->text[0] = 0;                                               \
        if ((call) == 0) fail_msg("%s: should have been refused", #call); \
        check_message((err), #call, (const char *[]){__VA_ARGS__, NULL}); \
    } while (0)
void check_message(const Error *err, const char *call, const char **words);

/* A whole file as bytes, with a terminating 0 that *size does not count; NULL if there is none.
 * Free with free(). */
char *file_bytes(const char *path, size_t *size);

/* The path of a file under ../shared/data, or NULL if that folder is absent: then the test calls
 * skip(). Static storage, overwritten by the next call. */
const char *shared_file(const char *name);

/* A new folder for a test's files; temporary_remove deletes it with its contents. */
void temporary_folder(char *path, size_t size);
void temporary_remove(const char *path);

/* A small reproducible generator for test inputs (xorshift64*); uniform in [0, 1) and normal. */
typedef struct TestRandom {
    uint64_t state;
} TestRandom;
uint64_t test_random_next(TestRandom *random);
double test_random_uniform(TestRandom *random);
float test_random_normal(TestRandom *random);

#endif
