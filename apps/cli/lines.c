#include "apps/cli/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads what there is into the buffer, behind what is in it, if there is room. */
static int fill(Lines *l, Error *err) {
    if (l->at_end) return 0;
    if (l->begin == l->end) l->begin = l->end = 0;
    if (l->begin > 0) {
        memmove(l->buffer, l->buffer + l->begin, l->end - l->begin);
        l->end -= l->begin, l->begin = 0;
    }
    if (l->end == sizeof l->buffer) return 0;
    ssize_t n;
    struct pollfd wait = {.fd = l->fd, .events = POLLIN};
    do n = read(l->fd, l->buffer + l->end, sizeof l->buffer - l->end);
    while (n < 0 && (errno == EINTR || (errno == EAGAIN && poll(&wait, 1, -1) > 0)));
    if (n < 0) return error_set(err, "%s: %s", l->name, strerror(errno));
    l->at_end = n == 0;
    l->end += (size_t)n;
    return 0;
}

/* Fills the buffer up to the first few bytes, which say what kind of file it is. */
static int check_start(Lines *l, Error *err) {
    do TRY(fill(l, err));
    while (!l->at_end && l->end < 3 && !memchr(l->buffer, '\n', l->end));
    if (l->end >= 2 && (!memcmp(l->buffer, "\xff\xfe", 2) || !memcmp(l->buffer, "\xfe\xff", 2)))
        return error_set(err,
                         "%s: it begins as UTF-16 text does (%02X %02X), UTF-8 expected: convert "
                         "it, for instance with iconv -f UTF-16 -t UTF-8",
                         l->name, (unsigned char)l->buffer[0], (unsigned char)l->buffer[1]);
    if (l->end >= 3 && !memcmp(l->buffer, "\xef\xbb\xbf", 3)) l->begin = 3;
    return 0;
}

int lines_open(Lines *l, const char *path, size_t most, Error *err) {
    struct stat info;
    bool input = !strcmp(path, "-");
    l->name = input ? "standard input" : path;
    l->most = most;
    l->taken = 0, l->begin = l->end = 0, l->at_end = false;
    l->fd = input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0) return error_set(err, "%s: %s", l->name, strerror(errno));
    if (fstat(l->fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        lines_close(l);
        return error_set(err, "%s: a folder, a text file expected", l->name);
    }
    return 0;
}

void lines_close(Lines *l) {
    if (l->fd > STDERR_FILENO) close(l->fd);
    l->fd = 0;
}

/* Appends a part of a line to *text, as far as the line is kept. */
static int keep(const Lines *l, char **text, size_t *size, size_t *capacity, const char *part,
                size_t n, Error *err) {
    size_t before = *size;
    *size += n;
    if (before > l->most) return 0;
    if (*size > l->most) { /* what was kept so far is enough, or is filled up to that */
        size_t left = before < LINES_KEPT ? LINES_KEPT - before : 0;
        n = n < left ? n : left;
    }
    if (before + n + 1 > *capacity) {
        size_t more = 2 * *capacity + n + 1;
        char *larger = realloc(*text, more);
        if (!larger) return error_set(err, "out of memory for a line of %zu bytes", before + n);
        *text = larger, *capacity = more;
    }
    memcpy(*text + before, part, n);
    return 0;
}

int lines_next(Lines *l, char **text, size_t *size, Error *err) {
    size_t capacity = LINES_KEPT + 1;
    *size = 0;
    *text = NULL;
    if (l->taken == 0) TRY(check_start(l, err));
    if (l->begin == l->end) TRY(fill(l, err));
    if (l->begin == l->end && l->at_end) return 0;
    if (!(*text = malloc(capacity))) return error_set(err, "out of memory for a line");
    for (const char *end = NULL; !end;) {
        size_t n = l->end - l->begin;
        end = memchr(l->buffer + l->begin, '\n', n);
        if (end) n = (size_t)(end - (l->buffer + l->begin));
        int status = keep(l, text, size, &capacity, l->buffer + l->begin, n, err);
        l->begin += n + (end != NULL);
        if (!end && status == 0) status = fill(l, err);
        if (status) {
            free(*text);
            *text = NULL;
            return -1;
        }
        if (l->begin == l->end && l->at_end) break;
    }
    l->taken++;
    if (*size > l->most) {
        (*text)[LINES_KEPT] = 0;
        return 0;
    }
    if (*size > 0 && (*text)[*size - 1] == '\r') --*size;
    (*text)[*size] = 0;
    return 0;
}

bool lines_ready(Lines *l) {
    Error err;
    for (;;) {
        size_t n = l->end - l->begin;
        struct pollfd wait = {.fd = l->fd, .events = POLLIN};
        if (l->at_end || n == sizeof l->buffer || memchr(l->buffer + l->begin, '\n', n))
            return true;
        if (poll(&wait, 1, 0) < 1) return false;
        if (fill(l, &err)) return true; /* whoever reads next finds the same */
    }
}
