/* file_write.h - a file that appears whole or not at all. Private to data/.
 *
 * It is written under a temporary name in the folder of its target, synced, and renamed: at no
 * moment does a half-written file stand under `path`, and after a failure (a full disk, say) what
 * was there before is there still and the temporary file is gone.
 */
#ifndef EASYFIRST_DATA_FILE_WRITE_H
#define EASYFIRST_DATA_FILE_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct FileWriter {
    const char *path; /* the caller's, valid until file_write_end */
    char *beside;     /* the temporary name */
    int fd;
    uint64_t size; /* expected; 0: not known */
} FileWriter;

/* With a size the disk space is reserved at once where the file system can do that, so that a full
 * disk is known before the work begins. Nothing is left to be freed after a failure. */
int file_write_begin(FileWriter *writer, const char *path, uint64_t size, Error *err);

/* After a failure there is only file_write_end. */
int file_write_bytes(FileWriter *writer, const void *bytes, size_t size, Error *err);

/* Completes the file, or with `failed` (whose message is in *err already) removes it. Its value is
 * -1 if anything failed. */
int file_write_end(FileWriter *writer, int failed, Error *err);

/* Puts a hard link to `from` (a symbolic link is followed) in the place of `path`, as atomically.
 * -1 where that cannot be, which is no error: the file can still be copied. */
int file_link(const char *from, const char *path);

/* Makes the entries of the folder that holds `path` last; errno tells why not. */
int folder_sync_above(const char *path);

#endif
