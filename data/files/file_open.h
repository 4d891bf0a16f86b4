/* file_open.h - opens an input file without ever blocking.
 *
 * open() of a named pipe waits for a writer, perhaps forever. Here anything but a regular file is
 * refused at once, with a message that names what it is.
 */
#ifndef EASYFIRST_DATA_FILES_FILE_OPEN_H
#define EASYFIRST_DATA_FILES_FILE_OPEN_H

#include <stdint.h>
#include <stdio.h>

#include "kernels/error.h"

/* Opens a regular file, or one inside of a zip archive (archive.h), for reading: returns the descriptor, the caller's to close; -1 with a
 * message if the file does not exist, is a folder, a pipe, a socket or a device, or may not be
 * read. `size` may be NULL. `why` ends the message about a pipe or device: "training data are read
 * more than once: save them to a file"; NULL: a file on disk was expected. */
int file_open_input(const char *path, const char *why, int64_t *size, Error *err);

/* What a path is, for messages: "a folder", "a named pipe (FIFO)", "a device", "a socket"; "a file"
 * if it is one. `mode` is stat's. */
const char *file_mode_name(unsigned mode);

#endif
