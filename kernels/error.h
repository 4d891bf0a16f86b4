/* error.h - the library's error convention.
 *
 * A function that can fail returns 0 for success and -1 for failure, and takes an `Error *` as its
 * last parameter, into which it writes one line: the file or object concerned, what was found, what
 * was expected, and, where there is one, the next step. Libraries neither print nor exit; the
 * program decides. `err` may be NULL if the caller does not need the text.
 */
#ifndef EASYFIRST_KERNELS_ERROR_H
#define EASYFIRST_KERNELS_ERROR_H

/* What kind of failure it is, for callers that act on it: the program names an option of its command
 * line, another program shows a message of its own. The numbers are those of ef_code. */
typedef enum ErrorCode {
    ERROR_OTHER = 1,
    ERROR_CANCELLED,
    ERROR_NO_DEVICE,     /* the GPU that was asked for cannot be used */
    ERROR_DEVICE_MEMORY, /* a GPU's memory is full */
    ERROR_MISSING_PART,  /* the model lacks a part that the request needs */
    ERROR_NO_LENGTH,     /* an answer's length is neither given nor can it be predicted */
    ERROR_TOO_LONG,      /* the prompt leaves no room for an answer */
    ERROR_SKIPPED,       /* the same, where such prompts are to be skipped */
    ERROR_FULL,          /* an engine's queue is full */
    ERROR_CLOSED,        /* an engine is closing */
    ERROR_TIMEOUT,       /* a job has not ended in time */
    ERROR_NO_IMAGES      /* data have images, but their folder is not named */
} ErrorCode;

typedef struct Error {
    char text[1024]; /* one line, no newline at its end, always terminated */
    int code;        /* ErrorCode */
} Error;

/* Writes the message; its value is -1, so that a failure is `return error_set(err, "...", ...)`.
 * Control characters in the result (from file names, say) are replaced by '?' (clean_text), so that
 * it stays one line. A line that is too long loses its middle: the reason at its end is kept. A
 * macro, so that the compiler sees that such a path fails. */
#define error_set(err, ...) (error_write((err), __VA_ARGS__), error_value())

/* The same with a code; error_set has ERROR_OTHER. */
#define error_set_code(err, code, ...) \
    (error_write((err), __VA_ARGS__), error_mark((err), (code)), error_value())

/* Prepends "<context>: " to the message; its value is -1. */
#define error_context(err, ...) (error_write_context((err), __VA_ARGS__), error_value())

static inline int error_value(void) {
    return -1;
}
static inline void error_mark(Error *err, ErrorCode code) {
    if (err) err->code = (int)code;
}
void error_write(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_write_context(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns a failure to the caller, in functions that have nothing to free. */
#define TRY(call)                   \
    do {                            \
        if ((call) != 0) return -1; \
    } while (0)

#endif
