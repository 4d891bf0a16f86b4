/* report.h - what the program says: answers as plain lines and as JSON, steps, timings, errors.
 *
 * JSON. One object a line:
 *
 *   image        the image's name, with `ask` and `show`
 *   question     (or "prompt" with `text`) as it was given; with `text` also "line", from 1
 *   answer       the best hypothesis as text
 *   score        mean log-probability of its tokens
 *   length       of it, in tokens
 *   tokens       [{"id", "piece", "score"}]; "▁" in a piece stands for the space in front of a word
 *   steps        that were taken
 *   evaluations  runs of the network for this request: at most steps x hypotheses
 *   strategy, seed, prompt_tokens
 *   dropped_tokens  of the prompt, with --long-prompts keep-last; left out where it fits
 *   hypotheses   [{"text", "length", "sample", "score", "evaluations"}], all that were tried
 *   trace        if asked for: the steps of the best hypothesis; the object is then a whole trace,
 *                with the steps of the others, too, as apps/show/trace.h describes it
 *   error        instead of all that follows the question, if it could not be answered
 */
#ifndef EASYFIRST_APPS_CLI_REPORT_H
#define EASYFIRST_APPS_CLI_REPORT_H

#include <stdio.h>

#include "apps/cli/json.h"
#include "kernels/clock.h"
#include "projector/easyfirst.h"
#include "projector/multimodal.h"

/* "easyfirst: ..." on standard error, one line whatever the text holds (error.h). */
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A failure of the library, with the option of the command line that helps, where there is one. */
void report_failure(const Error *err);

/* printf for a line that has names or texts of files in it: all but the ends of lines with which
 * the format begins and ends goes through clean_character. */
void report_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What was asked. */
typedef struct Asked {
    const char *image; /* NULL: none */
    const char *text;
    const char *text_key; /* JSON's name for it: "question" or "prompt" */
    int64_t line;         /* 0: none */
} Asked;

/* The steps of a call's requests, kept for JSON. */
typedef struct StepTraces {
    struct Trace *items; /* [count] */
    int count;
    Error error; /* of a step */
    bool failed;
} StepTraces;

/* Begins an empty one for `most` requests; adds the next request; and the ef_step_callback, whose
 * user is the StepTraces. */
int step_traces_open(StepTraces *traces, int most, Error *err);
int step_traces_add(StepTraces *traces, const Asked *asked, const DecodeOptions *options,
                    Error *err);
void step_traces_step(void *traces, const ef_step *step);
void step_traces_free(StepTraces *traces); /* zeroed is allowed */

/* Answer i as JSON, a line on standard output; `traces` are NULL, or the call's. */
int report_json(const Asked *asked, const ef_answers *answers, size_t i,
                const DecodeOptions *options, StepTraces *traces, Error *err);

/* In its place for a request that could not be answered (`error`), or had nothing to
 * answer (NULL). */
int report_json_none(const Asked *asked, const char *error, Error *err);

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
void timings_add_work(Timings *t, const ef_work *work);

/* How many prompts were skipped or shortened, if any were, on standard error. */
void report_long_prompts(const Timings *t);

/* A few lines on standard error. */
void timings_print(const Timings *t, Device *device, const DecodeOptions *options);
void timings_print_model(const Timings *t, ef_model *model, const DecodeOptions *options);

size_t peak_memory(void); /* bytes of this process that were resident at most */

#endif
