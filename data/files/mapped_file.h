/* mapped_file.h - a file mapped into memory, read-only.
 *
 * Pages are read from disk when touched, so opening takes the same time for a kilobyte and for ten
 * gigabytes. The file must not be truncated while it is mapped: touching missing pages raises
 * SIGBUS, and mapped_file_at gives a handler the file's name. checkpoint_write never truncates a
 * file: it replaces it.
 */
#ifndef EASYFIRST_DATA_FILES_MAPPED_FILE_H
#define EASYFIRST_DATA_FILES_MAPPED_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

typedef struct MappedFile {
    char *path;                 /* owned; as given, for messages */
    const unsigned char *bytes; /* [size], page-aligned */
    size_t size;                /* at least 1 */
} MappedFile;

/* Errors: no such file, no permission, a folder or device, an empty file. On failure *file is
 * empty. */
int mapped_file_open(MappedFile *file, const char *path, Error *err);

/* Unmaps and empties; an empty one may be closed again. */
void mapped_file_close(MappedFile *file);

/* The path of the mapped file that holds an address; NULL if there is none (only the first thousand
 * mapped files are known). Safe in a signal handler. */
const char *mapped_file_at(const void *address);

/* True if [begin, begin + size) lies in the mapping. */
bool mapped_file_contains(const MappedFile *file, const void *begin, size_t size);

/* Starts reading the pages of [offset, offset + size), as far as they are in the file, without
 * waiting for them: many calls before the first touch let the disk read in parallel. */
void mapped_file_prefetch(const MappedFile *file, size_t offset, size_t size);

/* Releases the whole pages inside [begin, begin + size), which must lie in the mapping. They are
 * read from the file again when touched. */
void mapped_file_release(const MappedFile *file, const void *begin, size_t size);

#endif
