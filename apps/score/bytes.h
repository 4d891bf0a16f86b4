/* bytes.h - a whole file or pipe in memory, its lines no longer than a limit. */
#ifndef EASYFIRST_APPS_SCORE_BYTES_H
#define EASYFIRST_APPS_SCORE_BYTES_H

#include <stddef.h>

#include "kernels/error.h"

/* The bytes of `path` ("-": standard input) with a 0 after them, the caller's to free, also after a
 * failure. A line of more than `line_most` bytes is refused as soon as it is that long. A named
 * pipe that gets no writer within ten seconds is an error. */
int score_bytes_read(const char *path, size_t line_most, char **bytes, size_t *size, Error *err);

#endif
