/* lines.h - text line by line from a file, a FIFO or a terminal, in bounded memory.
 *
 * A line longer than a limit is not kept, only counted, so that a file without line ends costs
 * nothing. What is at hand can be told from what would have to be waited for, so that lines which
 * come one by one can be answered one by one.
 */
#ifndef EASYFIRST_APPS_CLI_LINES_H
#define EASYFIRST_APPS_CLI_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum { LINES_BUFFER = 1 << 16, LINES_KEPT = 256 };

typedef struct Lines {
    const char *name; /* what messages call it; the caller's */
    int fd;
    size_t most;   /* bytes of a line */
    int64_t taken; /* lines so far */
    size_t begin, end;
    bool at_end;
    char buffer[LINES_BUFFER];
} Lines;

/* Opens a file, or standard input ("-"). A folder, or a file that begins as UTF-16 does, is an
 * error. lines_close is for opened ones and for {0}. */
int lines_open(Lines *lines, const char *path, size_t most, Error *err);
void lines_close(Lines *lines);

/* The next line without its end (LF or CR LF) and, the first one, without a byte order mark; *text
 * is terminated and the caller's to free, NULL at the end. *size is the line's; of one that is
 * longer than `most`, *text has the first LINES_KEPT bytes. */
int lines_next(Lines *lines, char **text, size_t *size, Error *err);

/* Whether a whole line, or the end, can be had without waiting. */
bool lines_ready(Lines *lines);

#endif
