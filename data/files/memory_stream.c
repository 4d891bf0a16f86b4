#include "data/files/memory_stream.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/types.h>

typedef struct Stream {
    char **text;
    size_t *size;
    char *bytes; /* [used], with room for a 0 after them */
    size_t used, capacity;
    bool failed;
} Stream;

static bool make_room(Stream *s, size_t more) {
    if (more > SIZE_MAX / 4 - s->used) return false;
    size_t needed = s->used + more + 1;
    if (needed <= s->capacity) return true;
    size_t capacity = needed + needed / 2 + 256;
    char *bytes = realloc(s->bytes, capacity);
    if (!bytes) return false;
    s->bytes = bytes, s->capacity = capacity;
    return true;
}

static ssize_t stream_write(void *cookie, const char *from, size_t count) {
    Stream *s = cookie;
    if (s->failed || !make_room(s, count)) {
        s->failed = true;
        return 0; /* an error, to stdio */
    }
    memcpy(s->bytes + s->used, from, count);
    s->used += count;
    return (ssize_t)count;
}

static int stream_close(void *cookie) {
    Stream *s = cookie;
    bool failed = s->failed || !make_room(s, 0);
    if (s->bytes) s->bytes[s->used] = 0;
    *s->text = s->bytes, *s->size = s->used;
    free(s);
    return failed ? -1 : 0;
}

FILE *memory_stream_open(char **text, size_t *size) {
    *text = NULL, *size = 0;
    Stream *s = malloc(sizeof *s);
    if (!s) return NULL;
    *s = (Stream){.text = text, .size = size};
    FILE *stream =
        fopencookie(s, "w", (cookie_io_functions_t){.write = stream_write, .close = stream_close});
    if (!stream) free(s);
    return stream;
}
