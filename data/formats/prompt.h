/* prompt.h - prompts of questions: instruction, demonstrations, the question itself.
 *
 *   <instruction> <demonstration> <its answer><between> ... <question>
 *
 * with one space between them, and (as in the files of the paper's authors) one before the first if
 * there is no instruction; a prompt of a template, or of a file that has finished ones, begins with
 * itself.
 */
#ifndef EASYFIRST_DATA_FORMATS_PROMPT_H
#define EASYFIRST_DATA_FORMATS_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "kernels/error.h"

typedef struct PromptOptions {
    const char *prompt_template; /* of parallel files and tables, with {source} or {column} */
    const char *instruction;     /* before all; NULL: the format's own */
    const char *demonstrations;  /* a file of any format; NULL: none */
    int shots;                   /* its first so many before each prompt */
    bool no_instruction;
    const char *answers; /* parallel files: the path of the answers' file; NULL: not such */
    bool pairs;          /* lines of two fields with a tab between them, whatever they look like */
} PromptOptions;

/* Data beside files of one path each. */
typedef struct ParallelFiles {
    const char *source, *target; /* a line each of prompt and answer; NULL: none */
    const char *pairs;           /* lines of both with a tab between them; NULL: none */
} ParallelFiles;

/* The path of entry `i` (0 or 1) with its options in *options; NULL: there are no more. */
const char *parallel_entry(const ParallelFiles *files, int i, PromptOptions *options);

typedef struct Sample {
    const char *instruction; /* "": none */
    const char *stem;        /* the question with its marks: "Q: How many? A:" */
    const char *answer;
    const char *between; /* after a demonstration: " |"; "" */
    bool bare;           /* without a space at its front */
    bool finished;       /* the stem is the whole prompt */
    const char *shown;   /* the answer as a demonstration's; NULL: `answer` */
    int64_t number;      /* where it is in the file */
} Sample;

typedef struct Demonstration {
    char *stem, *answer;
} Demonstration;

typedef struct Prompting {
    PromptOptions options;
    Demonstration *demonstrations; /* [count] */
    int count;
} Prompting;

/* Why an object cannot be used. */
typedef struct ObjectFault {
    const char *kind; /* of skipped.h; a constant */
    char why[256];
    bool memory; /* out of memory, nothing else */
} ObjectFault;

/* Sets the fault; its value is NULL. */
json_t *object_fault(ObjectFault *fault, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The prompt of a sample; the caller frees it. NULL: out of memory. `prompting` may be NULL. */
char *prompt_build(const Prompting *prompting, const Sample *sample);

/* A copy of the object without the members in `without` (NULL at its end), and with the prompt and
 * answer as "inputs" and "targets". NULL: out of memory, in *fault. */
json_t *prompt_object(json_t *object, const char *const *without, const Prompting *prompting,
                      const Sample *sample, ObjectFault *fault);

/* The line {"inputs": ..., "targets": ...} with its end, as Python's json.dumps writes it; the caller
 * frees it. NULL: out of memory. */
char *prompt_line(const char *prompt, const char *answer);

/* `text` with {name} replaced by the values of these names; the caller frees it. NULL with a message:
 * out of memory, or a name that is none of them. `used` (of `count`, may be NULL) is set where a name
 * occurs. */
char *template_fill(const char *text, const char *const *names, const char *const *values,
                    int count, bool *used, Error *err);

#endif
