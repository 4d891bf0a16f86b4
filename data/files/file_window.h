/* file_window.h - a file read front to back through a window of bounded size.
 *
 * The window holds the stretch [offset, offset + size) of the file. A reader looks for the end of
 * what it wants (a line, an element of an array); where the window ends first, it asks for more
 * and says how much at the front it is done with. The window grows only as far as one such thing is
 * long.
 */
#ifndef EASYFIRST_DATA_FILES_FILE_WINDOW_H
#define EASYFIRST_DATA_FILES_FILE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/files/content_hash.h"
#include "kernels/error.h"

enum { WINDOW_BLOCK = 1 << 18, WINDOW_MOST = 16 << 20 };

typedef struct FileWindow {
    const char *path; /* for messages; the caller's */
    int fd;           /* the caller's */
    char *bytes;      /* [size] */
    size_t size, capacity;
    int64_t offset;    /* of bytes[0] in the file */
    bool end;          /* nothing follows the window */
    ContentHash *hash; /* of all bytes that were read, the caller's; NULL: none wanted */
} FileWindow;

/* Drops `done` bytes at the front and reads on; sets `end` where the file ends. The caller keeps
 * what stays in the window below WINDOW_MOST: more is refused. */
int window_more(FileWindow *window, size_t done, Error *err);
void window_free(FileWindow *window);

/* Fills `size` bytes from `offset` of an open file; fewer are an error: the file was changed. */
int file_read_at(int fd, const char *path, void *bytes, size_t size, int64_t offset, Error *err);

#endif
