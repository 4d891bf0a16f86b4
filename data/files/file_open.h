/* file_open.h - opening a file that is read, without ever waiting for one.
 *
 * open() of a named pipe waits until somebody writes to it, perhaps forever. Here whatever is not a
 * file on disk is refused at once, in words that say what it is.
 */
#ifndef EASYFIRST_DATA_FILES_FILE_OPEN_H
#define EASYFIRST_DATA_FILES_FILE_OPEN_H

#include <stdint.h>
#include <stdio.h>

#include "kernels/error.h"

/* The descriptor of a regular file opened for reading, the caller's to close; -1 with a message
 * where there is none, where it is a folder, a pipe, a socket or a device, or may not be read. Of
 * the size *size may be NULL. `why` ends the message about a pipe or device: "training data are
 * read more than once: save them to a file"; NULL: a file on disk was expected. */
int file_open_input(const char *path, const char *why, int64_t *size, Error *err);

/* What a path is, in the words of messages: "a folder", "a named pipe (FIFO)", "a device", "a
 * socket"; "a file" if it is one. `mode` is stat's. */
const char *file_mode_name(unsigned mode);

#endif
