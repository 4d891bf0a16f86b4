#include "data/files/file_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fuzzers use small files: a small block tests items across two blocks. */
#ifdef SMALL_WINDOW
#define WINDOW_BLOCK SMALL_WINDOW
#endif

int window_more(FileWindow *window, size_t done, Error *err) {
    size_t kept = window->size - done;
    if (kept > WINDOW_MOST)
        return error_set(err, "%s: more than %d MiB in one piece from byte %lld on", window->path,
                         WINDOW_MOST >> 20, (long long)window->offset);
    if (kept + WINDOW_BLOCK > window->capacity) {
        /* Grows by half: long items are not moved block by block. */
        size_t capacity = kept + kept / 2 + WINDOW_BLOCK;
        if (capacity > WINDOW_MOST + 2 * WINDOW_BLOCK) capacity = WINDOW_MOST + 2 * WINDOW_BLOCK;
        char *bytes = realloc(window->bytes, capacity);
        if (!bytes) return error_set(err, "%s: out of memory", window->path);
        window->bytes = bytes;
        window->capacity = capacity;
    }
    if (done) memmove(window->bytes, window->bytes + done, kept);
    window->offset += (int64_t)done;
    window->size = kept;
    ssize_t got;
    do {
        got = pread(window->fd, window->bytes + kept, window->capacity - kept,
                    (off_t)(window->offset + (int64_t)kept));
    } while (got < 0 && errno == EINTR);
    if (got < 0) return error_set(err, "%s: %s", window->path, strerror(errno));
    if (window->hash) content_hash_add(window->hash, window->bytes + kept, (size_t)got);
    window->size += (size_t)got;
    window->end = got == 0;
    return 0;
}

void window_free(FileWindow *window) {
    free(window->bytes);
    window->bytes = NULL;
    window->size = window->capacity = 0;
}

int file_read_at(int fd, const char *path, void *bytes, size_t size, int64_t offset, Error *err) {
    for (size_t have = 0; have < size;) {
        ssize_t got = pread(fd, (char *)bytes + have, size - have, (off_t)(offset + (int64_t)have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set(err, "%s: %s", path, strerror(errno));
        if (got == 0)
            return error_set(err, "%s: was truncated after it was scanned; start again", path);
        have += (size_t)got;
    }
    return 0;
}
