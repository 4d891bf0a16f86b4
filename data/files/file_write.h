/* file_write.h - a file that appears whole or not at all. The one way in which files are written.
 *
 * A regular file is written in the folder of its target, synced, and then put in its place at once:
 * at no moment does a half-written file have that name, and after a failure (a full disk, say) what
 * was there before is there still and nothing else is left. Its permissions and owner are kept
 * where that is allowed. A symbolic link is followed: the file that it names is replaced or made,
 * the link stays. Whatever else has that name (a device, a FIFO, a socket, /dev/stdout, /dev/fd/N)
 * is never replaced or removed: the bytes are written through to it.
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
    char *beside;     /* the temporary name; NULL: there is none */
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

/* All three at once. */
int file_write_all(const char *path, const void *bytes, size_t size, Error *err);

/* Whether `path` can be written, to be asked before long work: its folder is there and can be
 * written, and it is itself no folder and not write-protected. Changes nothing. */
int file_write_check(const char *path, Error *err);

/* Removes what killed writers of `path` may have left: regular files beside it of the name
 * "<name>.part-<16 hexadecimal digits>". Only for one who knows that nobody else is writing `path`
 * now (who holds the lock of its folder). Returns how many were removed; -1 (with errno) if the
 * folder cannot be read or a file cannot be removed. */
int file_write_clean(const char *path);

/* Whether both names lead to one regular file (by device and inode, symbolic links followed), or,
 * where no file is there yet, to one name in one folder. Devices and FIFOs are never the same: two
 * outputs may both be /dev/null. */
bool file_same(const char *a, const char *b);

/* What a command reads or writes, with the words for it in a message. */
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

/* Puts a hard link to `from` (a symbolic link is followed) in the place of `path`, as atomically.
 * -1 where that cannot be, which is no error: the file can still be copied. */
int file_link(const char *from, const char *path);

/* Makes the entries of the folder that holds `path` last; errno tells why not. */
int folder_sync_above(const char *path);

#endif
