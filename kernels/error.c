#include "kernels/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clean_text.h"

static bool inside_character(char c) {
    return (c & 0xc0) == 0x80;
}

/* Copies a line into the message. One that is too long loses its middle, not its end: a message
 * begins with a path, which may be long, and ends with the reason and the next step. */
static void keep_ends(char *out, size_t size, const char *line) {
    static const char gap[] = " ... ";
    size_t length = strlen(line), gap_length = sizeof gap - 1;
    if (length < size) {
        memcpy(out, line, length + 1);
        return;
    }
    size_t head = (size - 1 - gap_length) / 2, tail = size - 1 - gap_length - head;
    while (head > 0 && inside_character(line[head])) head--;
    const char *end = line + length - tail;
    while (inside_character(*end)) end++;
    memcpy(out, line, head);
    memcpy(out + head, gap, gap_length);
    strcpy(out + head + gap_length, end);
}

/* The line is formatted into separate memory, as the arguments may point into err->text. If out of
 * memory, the format itself is the message. */
static void write_line(Error *err, char *line, const char *format) {
    if (line) clean_text(line);
    keep_ends(err->text, sizeof err->text, line ? line : format);
    free(line);
}

void error_write(Error *err, const char *format, ...) {
    if (!err) return;
    char *line;
    va_list args;
    va_start(args, format);
    if (vasprintf(&line, format, args) < 0) line = NULL;
    va_end(args);
    write_line(err, line, format);
    err->code = ERROR_OTHER;
}

void error_write_context(Error *err, const char *format, ...) {
    if (!err) return;
    char *context, *line;
    va_list args;
    va_start(args, format);
    if (vasprintf(&context, format, args) < 0) context = NULL;
    va_end(args);
    if (!context) return; /* keep the message without its context */
    if (asprintf(&line, "%s: %s", context, err->text) < 0) line = NULL;
    free(context);
    if (line) write_line(err, line, "");
}
