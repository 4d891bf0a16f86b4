/* mapped_file.h - a whole file as read-only memory.
 *
 * Pages come from the disk when they are touched, so opening takes the same time for a kilobyte
 * and for ten gigabytes. The file must not be shortened while it is mapped: touching what is gone
 * raises SIGBUS, and mapped_file_at tells a handler which file it was. checkpoint_write never
 * shortens a file: it replaces it.
 */
#ifndef EASYFIRST_DATA_FILES_MAPPED_FILE_H
#define EASYFIRST_DATA_FILES_MAPPED_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

typedef struct MappedFile {
    char *path;                 /* owned; as it was given, for messages */
    const unsigned char *bytes; /* [size], page-aligned */
    size_t size;                /* at least 1 */
} MappedFile;

/* Errors: no such file, no permission, a folder or device, an empty file. On failure *file is
 * empty. */
int mapped_file_open(MappedFile *file, const char *path, Error *err);

/* Unmaps and empties; an empty one may be closed again. */
void mapped_file_close(MappedFile *file);

/* The path of the mapped file that an address lies in; NULL if it lies in none, or among more than
 * a thousand files in one of the later ones. May be called by a signal handler. */
const char *mapped_file_at(const void *address);

/* True if [begin, begin + size) lies in the mapping. */
bool mapped_file_contains(const MappedFile *file, const void *begin, size_t size);

/* Starts reading the pages of [offset, offset + size), as far as they are in the file, without
 * waiting for them: many such calls before the first touch let a disk read all at once. */
void mapped_file_prefetch(const MappedFile *file, size_t offset, size_t size);

/* Lets go of the whole pages inside [begin, begin + size), which must lie in the mapping. They come
 * back from the file when touched. */
void mapped_file_release(const MappedFile *file, const void *begin, size_t size);

#endif
