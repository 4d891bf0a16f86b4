/* error.h - the one error convention of the whole library.
 *
 * A function that can fail returns 0 for success and -1 for failure, and takes an `Error *` as its
 * last parameter, into which it writes one line for a person: the file or thing concerned, what
 * was found, what was expected, and, where there is one, the next step. Libraries neither print nor
 * exit; the program decides. `err` may be NULL where the caller does not want the text.
 */
#ifndef EASYFIRST_KERNELS_ERROR_H
#define EASYFIRST_KERNELS_ERROR_H

typedef struct Error {
    char text[1024]; /* one line, no newline at its end, always terminated */
} Error;

/* Writes the message; its value is -1, so that a failure is `return error_set(err, "...", ...)`.
 * Control characters in the result (from file names, say) are replaced by '?' (clean_text): one
 * line it stays. A line that is too long loses its middle: the reason at its end is kept. A macro,
 * so that the compiler sees that such a path fails. */
#define error_set(err, ...) (error_write((err), __VA_ARGS__), error_value())

/* Puts "<context>: " in front of the message already there; its value is -1. */
#define error_context(err, ...) (error_write_context((err), __VA_ARGS__), error_value())

static inline int error_value(void) {
    return -1;
}
void error_write(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_write_context(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hands a failure on to the caller, in functions that hold nothing to free. */
#define TRY(call)                   \
    do {                            \
        if ((call) != 0) return -1; \
    } while (0)

#endif
