#include "kernels/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages quote names from files; a newline or escape sequence in one must not reach a terminal.
 */
static void clean_line(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
}

void error_write(Error *err, const char *format, ...) {
    if (!err) return;
    char line[sizeof err->text]; /* the arguments may point into err->text itself */
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    clean_line(line);
    memcpy(err->text, line, sizeof line);
}

void error_write_context(Error *err, const char *format, ...) {
    if (!err) return;
    char line[sizeof err->text];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof line)
        snprintf(line + used, sizeof line - (size_t)used, ": %s", err->text);
    clean_line(line);
    memcpy(err->text, line, sizeof line);
}
