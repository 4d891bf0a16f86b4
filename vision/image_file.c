/* image_file.c - reads the bytes of an image file of any type: pipes grow while they are read,
 * other files can be endless, and a pipe may have no writer. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/files/archive.h"
#include "vision/formats.h"

const char *image_file_name(const char *path) {
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

/* "scheme://...", which people copy from browsers. */
static bool is_url(const char *path) {
    size_t scheme = strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+");
    return scheme > 1 && strncmp(path + scheme, "://", 3) == 0;
}

static int refuse_open(const char *path, Error *err) {
    int reason = errno;
    if (reason == ENOENT && strncasecmp(path, "file://", 7) == 0)
        return error_set(err, "%s: is a URL; give the path alone: what comes after file://", path);
    if ((reason == ENOENT || reason == ENAMETOOLONG) && strncasecmp(path, "data:", 5) == 0)
        return error_set(err,
                         "%s: is a data: URL, not a file; decode it first: base64 -d, from what "
                         "follows \"base64,\"",
                         path);
    if ((reason == ENOENT || reason == ENAMETOOLONG) && is_url(path))
        return error_set(err, "%s: is a URL, not a file; download it first (curl -LO URL)", path);
    if (reason == ENXIO)
        return error_set(err,
                         "%s: cannot open the image: a socket or an unknown device; expected "
                         "an image file",
                         path);
    return error_set(err, "%s: cannot open the image: %s", path,
                     reason == ENOENT ? "no such file; check the path" : strerror(reason));
}

/* A named pipe can be opened before anything writes to it. With a writer, reads wait for data, as
 * on any pipe. Non-blocking reads distinguish the two: without a writer they return the end of
 * file, with one EAGAIN. */
static int wait_for_writer(FILE *stream, const char *name, Error *err) {
    enum { STEP_MS = 10, MOST_MS = 3000 };
    int fd = fileno(stream);
    for (int waited = 0;; waited += STEP_MS) {
        uint8_t byte;
        struct pollfd gone = {.fd = fd};
        ssize_t n = read(fd, &byte, 1);
        if (n > 0) ungetc(byte, stream);
        if (n != 0 || (poll(&gone, 1, 0) > 0 && (gone.revents & POLLHUP))) break;
        if (waited >= MOST_MS)
            return error_set(err,
                             "%s: nothing writes to this pipe (waited %d seconds); start the "
                             "program that does, or give a file",
                             name, MOST_MS / 1000);
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
    return 0;
}

static int make_blocking(FILE *stream, const char *name, Error *err) {
    int flags = fcntl(fileno(stream), F_GETFL);
    if (flags < 0 || fcntl(fileno(stream), F_SETFL, flags & ~O_NONBLOCK) < 0)
        return error_set(err, "%s: cannot read: %s", name, strerror(errno));
    return 0;
}

static FILE *open_stream(const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *stream = fd < 0 ? NULL : fdopen(fd, "rb");
    if (fd >= 0 && !stream) close(fd);
    return stream;
}

/* `most` is the size of a regular file, so that memory fits it; 0 for others. */
static int stream_read(FILE *stream, const char *name, int64_t most, uint8_t **bytes, size_t *size,
                       Error *err) {
    enum { FIRST = 1 << 16 };
    size_t capacity = most > 0 && most < FIRST ? (size_t)most + 1 : FIRST;
    bool looked = false;
    for (;;) {
        uint8_t *more = realloc(*bytes, capacity);
        if (!more) return error_set(err, "%s: not enough memory to read it", name);
        *bytes = more;
        *size += fread(*bytes + *size, 1, capacity - *size, stream);
        if (ferror(stream)) return error_set(err, "%s: cannot read: %s", name, strerror(errno));
        if (!looked && image_kind(*bytes, *size) == IMAGE_OTHER)
            return image_refuse(*bytes, *size, name, err);
        looked = true;
        if (*size < capacity) return 0;
        if (capacity >= IMAGE_MAX_BYTES || most > IMAGE_MAX_BYTES)
            return error_set(err, "%s: more than %d MiB, too large for an image", name,
                             IMAGE_MAX_BYTES >> 20);
        capacity = most >= (int64_t)capacity ? (size_t)most + 1 : capacity * 2;
        if (capacity > IMAGE_MAX_BYTES) capacity = IMAGE_MAX_BYTES + 1;
    }
}

int image_file_read(uint8_t **bytes, size_t *size, const char *path, Error *err) {
    bool standard_input = strcmp(path, "-") == 0;
    const char *name = image_file_name(path);
    struct stat info = {0};
    *bytes = NULL, *size = 0;
    FILE *stream = standard_input ? stdin : open_stream(path);
    if (!stream && errno == ENOTDIR && archive_path(path))
        return archive_read(path, IMAGE_MAX_BYTES, bytes, size, err);
    if (!stream) return refuse_open(path, err);
    int result = 0;
    if (fstat(fileno(stream), &info) == 0 && S_ISDIR(info.st_mode))
        result = error_set(err, "%s: this is a folder; expected an image file", name);
    if (result == 0 && !standard_input && S_ISFIFO(info.st_mode))
        result = wait_for_writer(stream, name, err);
    if (result == 0 && !standard_input) result = make_blocking(stream, name, err);
    int64_t most = S_ISREG(info.st_mode) ? (int64_t)info.st_size : 0;
    if (result == 0) result = stream_read(stream, name, most, bytes, size, err);
    if (!standard_input) fclose(stream);
    return result;
}
