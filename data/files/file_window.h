/* file_window.h - reads a file sequentially through a window of bounded size.
 *
 * The window holds bytes [offset, offset + size) of the file. A reader looks for the end of an item
 * (a line, an element of an array); if the window ends first, it asks for more and says how many
 * bytes at the front it has consumed. The window grows only to the length of one item.
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
    bool end;          /* the window reaches the end of the file */
    ContentHash *hash; /* of all bytes read, the caller's; may be NULL */
} FileWindow;

/* Drops `done` bytes at the front and reads on; sets `end` at the end of the file. More than
 * WINDOW_MOST bytes in the window are an error. */
int window_more(FileWindow *window, size_t done, Error *err);
void window_free(FileWindow *window);

/* Reads `size` bytes at `offset` of an open file; fewer are an error: the file has changed. */
int file_read_at(int fd, const char *path, void *bytes, size_t size, int64_t offset, Error *err);

#endif
