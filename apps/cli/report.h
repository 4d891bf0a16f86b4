/* report.h - what the program says: plain lines, timings, errors.
 */
#ifndef EASYFIRST_APPS_CLI_REPORT_H
#define EASYFIRST_APPS_CLI_REPORT_H

#include <stdio.h>

#include "apps/cli/json.h"
#include "kernels/clock.h"
#include "projector/easyfirst.h"
#include "projector/choices.h"
#include "projector/answers.h"

/* "easyfirst: ..." on standard error, one line whatever the text holds (error.h). */
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A failure of the library, with the option of the command line that helps, where there is one. */
void report_failure(const Error *err);

/* printf for a line that has names or texts of files in it: all but the ends of lines with which
 * the format begins and ends goes through clean_character. */
void report_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { REPORT_NUMBER_SIZE = 32 };

/* "38 s", "12 min", "3 h 20 min", "2 d 4 h" */
void report_duration(char out[REPORT_NUMBER_SIZE], double seconds);

/* A number with commas between groups of three digits. */
void report_number(char out[REPORT_NUMBER_SIZE], int64_t number);

/* Text as one field of a line: tabs and line ends become spaces, other controls U+FFFD. */
void report_field(FILE *out, const char *text);

/* Writes what is buffered for standard output; an error if that, or anything before, went wrong. */
int report_flush(Error *err);

/* Time and work, added up over the batches of a command. */
typedef struct Timings {
    double load_s, encode_s, prefix_s, decode_s;
    int64_t images, answers, steps, evaluations; /* answers: requests that have one */
    int64_t skipped, shortened, dropped; /* long prompts: left out, shortened, by so many tokens */
    InfillCounts counts;
} Timings;

void timings_add(Timings *t, const Answers *answers);
void timings_add_choices(Timings *t, const Choices *choices);
void timings_add_work(Timings *t, const ef_work *work);

/* How many prompts were skipped or shortened, if any were, on standard error. */
void report_long_prompts(const Timings *t);

/* A few lines on standard error; `options` NULL: the answers were chosen from given ones. */
void timings_print(const Timings *t, Device *device, const DecodeOptions *options);
void timings_print_model(const Timings *t, ef_model *model, const DecodeOptions *options);

size_t peak_memory(void); /* bytes of this process that were resident at most */

#endif
