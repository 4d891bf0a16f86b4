/* file_write.h - writes files atomically. All files are written through this.
 *
 * A regular file is written under a temporary name in the folder of its target, synced, and
 * renamed: no incomplete file ever has the target's name, and after a failure (disk full, for
 * example) the old file is unchanged and nothing else is left. Permissions and owner are kept where
 * possible. A symbolic link is followed: its target is replaced or created, the link stays.
 * Anything else (a device, a FIFO, a socket, /dev/stdout, /dev/fd/N) is never replaced or removed:
 * the bytes are written through to it.
 */
#ifndef EASYFIRST_DATA_FILES_FILE_WRITE_H
#define EASYFIRST_DATA_FILES_FILE_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct FileWriter {
    const char *path; /* the caller's, valid until file_write_end */
    char *target;     /* the regular file to be replaced; NULL: written through */
    char *temporary;  /* the temporary name; NULL: none */
    int fd;
    uint64_t size; /* expected; 0: not known */
} FileWriter;

/* With a size, disk space is reserved where the file system supports it, so that a full disk is
 * detected before the work begins. After a failure file_write_end is not needed. */
int file_write_begin(FileWriter *writer, const char *path, uint64_t size, Error *err);

/* After a failure only file_write_end may be called. */
int file_write_bytes(FileWriter *writer, const void *bytes, size_t size, Error *err);

/* Completes the file, or with `failed` (whose message is in *err already) removes it. Returns -1 if
 * anything failed. */
int file_write_end(FileWriter *writer, int failed, Error *err);

/* All three at once. */
int file_write_all(const char *path, const void *bytes, size_t size, Error *err);

/* Checks before long work whether `path` can be written: its folder exists and is writable, and it
 * is itself not a folder and not write-protected. Changes nothing. */
int file_write_check(const char *path, Error *err);

/* Removes temporary files that killed writers of `path` left: regular files in its folder named
 * "<name>.part-<16 hexadecimal digits>". Call it only where no other process can be writing `path`
 * (with the folder locked). Returns how many were removed; -1 (with errno) if the folder cannot be
 * read or a file cannot be removed. */
int file_write_clean(const char *path);

/* Whether both paths are one regular file (by device and inode, symbolic links followed), or, if
 * neither exists yet, one name in one folder. Devices and FIFOs are never the same: two outputs may
 * both be /dev/null. */
bool file_same(const char *a, const char *b);

/* An input or output of a command, with its name for messages. */
typedef struct FileRole {
    const char *role; /* "--html", "IMAGE" */
    const char *path; /* NULL: not given; "-" is standard input or output */
    bool whole;       /* an input: if it is a folder, any file in it may be read */
} FileRole;

/* Refuses an output that is also an input (or, in a folder that is one, a model's file, or any if
 * the folder is read whole), and two outputs that are one file; then file_write_check for each
 * output. */
int file_roles_check(const FileRole *outputs, int output_count, const FileRole *inputs,
                     int input_count, Error *err);

/* Replaces `path` atomically by a hard link to `from` (a symbolic link is followed). -1 where that
 * is not possible: copy the file instead. */
int file_link(const char *from, const char *path);

/* Syncs the folder that holds `path`. -1 with errno. */
int folder_sync_above(const char *path);

#endif
