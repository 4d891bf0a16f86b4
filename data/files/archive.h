/* archive.h - files inside of zip archives, under paths that lead through the archive:
 * "images.zip/train2017/1.jpg". They are read by libzip, and nothing is unpacked on disk.
 *
 * Archives stay open, the eight that were used last, since a directory of half a million names takes a
 * second to read; one that has changed on disk is read again. All functions are safe from several
 * threads at once. Refused: archives with two members of one name, members whose name leaves the
 * archive (".."), encrypted ones.
 */
#ifndef EASYFIRST_DATA_FILES_ARCHIVE_H
#define EASYFIRST_DATA_FILES_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* Whether a path leads into a zip file, or is one. */
bool archive_path(const char *path);

/* The paths ("ARCHIVE/NAME") of the files in an archive, in its order; free each, and the list. */
int archive_names(const char *path, char ***names, int *count, Error *err);

/* The size of a member in *size. -1 with a message: there is none of this name. */
int archive_size(const char *path, int64_t *size, Error *err);

/* The bytes of a member of at most `most`; the caller frees them. */
int archive_read(const char *path, size_t most, uint8_t **bytes, size_t *size, Error *err);

/* A temporary file (spool.h) with a member's contents: a descriptor, the caller's. -1 with a message; a
 * member that unpacks to more than 200 times its size is refused above 64 MiB. */
int archive_open(const char *path, Error *err);

#endif
