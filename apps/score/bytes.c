#include "apps/score/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/file_open.h"

enum { PIPE_WAIT_MS = 10000, BLOCK = 1 << 16 };

typedef struct Stream {
    const char *path;
    int fd;
    bool pipe; /* one that may have no writer yet */
    char *bytes;
    size_t size, capacity;
    size_t line_begin; /* of the last line */
    int64_t line;      /* its number, from 1 */
} Stream;

/* Without O_NONBLOCK, opening a named pipe waits for its writer, perhaps forever. */
static int stream_open(Stream *s, Error *err) {
    struct stat info;
    s->fd = !strcmp(s->path, "-") ? dup(STDIN_FILENO) : open(s->path, O_RDONLY | O_NONBLOCK);
    if (s->fd < 0 || fstat(s->fd, &info)) return error_set(err, "%s: %s", s->path, strerror(errno));
    if (S_ISDIR(info.st_mode) || S_ISSOCK(info.st_mode))
        return error_set(err, "%s: %s, expected a file or pipe with lines of text", s->path,
                         file_mode_name(info.st_mode));
    s->pipe = S_ISFIFO(info.st_mode) && strcmp(s->path, "-") != 0;
    return 0;
}

/* Nothing came: waits until there is something, or a writer. */
static int stream_wait(Stream *s, bool writer, Error *err) {
    struct pollfd poll_fd = {.fd = s->fd, .events = POLLIN};
    int ready = poll(&poll_fd, 1, writer ? -1 : PIPE_WAIT_MS);
    if (ready > 0 || (ready < 0 && errno == EINTR)) return 0;
    if (ready < 0) return error_set(err, "%s: %s", s->path, strerror(errno));
    return error_set(err, "%s: a pipe that nothing was written to for %d s", s->path,
                     PIPE_WAIT_MS / 1000);
}

/* *got is 0 at the end. */
static int stream_read(Stream *s, size_t *got, Error *err) {
    for (;;) {
        ssize_t n = read(s->fd, s->bytes + s->size, s->capacity - s->size - 1);
        *got = n > 0 ? (size_t)n : 0;
        if (n > 0 || (n == 0 && !s->pipe)) {
            s->pipe = false; /* there is a writer: the next 0 is the end */
            return 0;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return error_set(err, "%s: %s", s->path, strerror(errno));
        if (n == 0 || errno == EAGAIN) TRY(stream_wait(s, n < 0, err));
        if (n == 0) s->pipe = false; /* a writer has come, and may have gone */
    }
}

/* Notes the lines of what was read last. */
static int check_lines(Stream *s, size_t got, size_t most, Error *err) {
    const char *from = s->bytes + s->size - got, *end = s->bytes + s->size;
    for (const char *stop; (stop = memchr(from, '\n', (size_t)(end - from))); from = stop + 1) {
        if ((size_t)(stop - s->bytes) - s->line_begin > most) break;
        s->line_begin = (size_t)(stop + 1 - s->bytes);
        s->line++;
    }
    if (s->size - s->line_begin <= most) return 0;
    return error_set(err, "%s: line %lld has more than %zu MiB: no line of an answer is as long",
                     s->path, (long long)s->line, most >> 20);
}

static int read_all(Stream *s, size_t line_most, Error *err) {
    TRY(stream_open(s, err));
    for (size_t got = 1; got > 0;) {
        if (s->capacity - s->size <= BLOCK / 2) {
            s->capacity += s->capacity / 2 + BLOCK;
            char *more = realloc(s->bytes, s->capacity);
            if (!more) return error_set(err, "%s: out of memory", s->path);
            s->bytes = more;
        }
        TRY(stream_read(s, &got, err));
        s->size += got;
        TRY(check_lines(s, got, line_most, err));
    }
    s->bytes[s->size] = 0;
    return 0;
}

int score_bytes_read(const char *path, size_t line_most, char **bytes, size_t *size, Error *err) {
    Stream s = {.path = path, .fd = -1, .line = 1};
    int status = read_all(&s, line_most, err);
    if (s.fd >= 0) close(s.fd);
    *bytes = s.bytes, *size = s.size;
    return status;
}
