/* spool.h - a temporary file without a name, in $TMPDIR or /tmp: what is unpacked or built from a
 * file that cannot be read in place. It vanishes with its descriptor.
 */
#ifndef EASYFIRST_DATA_FILES_SPOOL_H
#define EASYFIRST_DATA_FILES_SPOOL_H

#include <stdint.h>
#include <stdio.h>

#include "kernels/error.h"

/* Opens one for reading and writing: a descriptor, the caller's; -1 with a message. */
int spool_open(Error *err);

/* Appends [size] bytes. The message names no file but the spool. */
int spool_write(int spool, const void *bytes, size_t size, Error *err);

/* Appends the text of a gzip file that is open as `fd`, from its beginning: all its members. Errors:
 * damaged, truncated, or more than 200 times its size (above 64 MiB). */
int spool_gunzip(int spool, int fd, const char *path, Error *err);

/* Appends all of another file. */
int spool_copy(int spool, int fd, const char *path, Error *err);

/* Where the next bytes go: the size of the file. -1 with a message. */
int64_t spool_end(int spool, Error *err);

#endif
