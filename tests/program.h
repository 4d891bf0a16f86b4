/* program.h - runs the built program (EASYFIRST in the environment, else build/easyfirst) with
 * arguments and input, and checks its output. */
#ifndef EASYFIRST_TESTS_PROGRAM_H
#define EASYFIRST_TESTS_PROGRAM_H

#include "tests/test.h"

typedef struct Run {
    char folder[256]; /* of the files that catch the output; the test may put its own there */
    char *out, *err;  /* of the last run */
    int status;
} Run;

/* Makes the folder, and an environment without EASYFIRST_MODEL, and without a GPU unless the tests
 * run on one (matrix.h). */
void run_start(Run *r);
void run_end(Run *r);

/* Runs with the arguments (NULL-terminated), input from a file, and output to one (NULL: to
 * r->out). A crash or a sanitizer's report fails the test. */
void run_files(Run *r, const char *input, const char *output, char *const *args);

/* The same with some bytes as standard input. */
void run_input(Run *r, const char *bytes, size_t size, char *const *args);

#define run(r, ...)            run_files((r), "/dev/null", NULL, (char *[]){__VA_ARGS__, NULL})
#define run_text(r, text, ...) run_input((r), (text), strlen(text), (char *[]){__VA_ARGS__, NULL})

/* The path of a file in the run's folder; writes such a file. */
void path_in(char *out, size_t size, const Run *r, const char *name);
void write_file(const Run *r, const char *name, const char *bytes, size_t size, char *path,
                size_t path_size);

int count_lines(const char *text);

/* The exit status, and (unless NULL) all of the output. */
void expect(const Run *r, int status, const char *out);

/* The run failed with one line on standard error that contains all the words, and printed
 * nothing. */
void expect_message(const Run *r, int status, const char *const *words);
#define assert_message(r, status, ...) \
    expect_message((r), (status), (const char *const[]){__VA_ARGS__, NULL})

#endif
