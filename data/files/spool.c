#include "data/files/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "data/files/path.h"

enum { BLOCK = 1 << 16, BOMB_RATIO = 200 };
static const int64_t BOMB_BYTES = 64 << 20; /* smaller texts may be of any ratio */

int spool_open(Error *err) {
    const char *folder = getenv("TMPDIR");
    if (!folder || !folder[0]) folder = "/tmp";
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    char *path = path_join(folder, "easyfirst-XXXXXX", err);
    if (!path) return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        error_set(err, "%s: no temporary file can be made there: %s; set TMPDIR to a folder",
                  folder, strerror(errno));
    else
        unlink(path);
    free(path);
    return fd;
}

int spool_write(int spool, const void *bytes, size_t size, Error *err) {
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(spool, (const char *)bytes + done, size - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0)
            return error_set(err,
                             "a temporary file cannot be written: %s; set TMPDIR to a folder with "
                             "more space",
                             strerror(errno));
        done += (size_t)wrote;
    }
    return 0;
}

/* Reads a block from the file's position on; 0 at its end, -1 with a message. */
static ssize_t read_block(int fd, int64_t offset, void *bytes, const char *path, Error *err) {
    ssize_t got;
    do {
        got = pread(fd, bytes, BLOCK, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? error_set(err, "%s: %s", path, strerror(errno)) : got;
}

int spool_copy(int spool, int fd, const char *path, Error *err) {
    char *bytes = malloc(BLOCK);
    if (!bytes) return error_set(err, "%s: out of memory", path);
    int status = 0;
    for (int64_t at = 0; status == 0;) {
        ssize_t got = read_block(fd, at, bytes, path, err);
        if (got <= 0) {
            status = (int)got;
            break;
        }
        status = spool_write(spool, bytes, (size_t)got, err);
        at += got;
    }
    free(bytes);
    return status;
}

/* ---- gzip. ---- */

typedef struct Unpack {
    int spool, fd;
    const char *path;
    z_stream z;
    int64_t read, written;
    bool whole; /* the last member ended */
    unsigned char in[BLOCK], out[BLOCK];
} Unpack;

static int inflate_block(Unpack *u, Error *err) {
    u->z.next_out = u->out, u->z.avail_out = BLOCK;
    int code = inflate(&u->z, Z_NO_FLUSH);
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        return error_set(err,
                         "%s: a damaged gzip file (%s, after %lld bytes of text); copy or "
                         "download it again",
                         u->path, u->z.msg ? u->z.msg : "wrong data", (long long)u->written);
    size_t made = BLOCK - u->z.avail_out;
    u->written += (int64_t)made;
    if (u->written > BOMB_BYTES && u->written / BOMB_RATIO > u->read)
        return error_set(err,
                         "%s: it unpacks to more than %d times its size; if it is meant so, "
                         "unpack it first (gunzip)",
                         u->path, BOMB_RATIO);
    TRY(spool_write(u->spool, u->out, made, err));
    u->whole = code == Z_STREAM_END;
    return 0;
}

static int inflate_all(Unpack *u, Error *err) {
    for (;;) {
        ssize_t got = read_block(u->fd, u->read, u->in, u->path, err);
        if (got < 0) return -1;
        if (got == 0) break;
        u->read += got;
        u->z.next_in = u->in, u->z.avail_in = (uInt)got;
        do {
            /* Another member, or zeros up to the end of a tape's block. */
            if (u->whole && u->z.avail_in && !*u->z.next_in) return 0;
            if (u->whole && u->z.avail_in && inflateReset(&u->z) != Z_OK)
                return error_set(err, "%s: a damaged gzip file", u->path);
            TRY(inflate_block(u, err));
        } while (u->z.avail_in || !u->z.avail_out);
    }
    if (u->whole) return 0;
    return error_set(err,
                     "%s: a truncated gzip file (%lld bytes of text); copy or download it again",
                     u->path, (long long)u->written);
}

int spool_gunzip(int spool, int fd, const char *path, Error *err) {
    Unpack *u = calloc(1, sizeof *u);
    if (!u) return error_set(err, "%s: out of memory", path);
    u->spool = spool, u->fd = fd, u->path = path;
    int status = inflateInit2(&u->z, 15 + 16) == Z_OK ? inflate_all(u, err)
                                                      : error_set(err, "%s: out of memory", path);
    inflateEnd(&u->z);
    free(u);
    return status;
}

int64_t spool_end(int spool, Error *err) {
    off_t end = lseek(spool, 0, SEEK_END);
    return end < 0 ? error_set(err, "a temporary file: %s", strerror(errno)) : (int64_t)end;
}
