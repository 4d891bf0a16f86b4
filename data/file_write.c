#include "data/file_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Names that are tried for a temporary file before giving up. */
enum { ATTEMPTS = 1000 };

static char *name_beside(const char *path, int attempt) {
    size_t size = strlen(path) + 64;
    char *name = malloc(size);
    if (name) snprintf(name, size, "%s.part-%ld-%d", path, (long)getpid(), attempt);
    return name;
}

/* open's own mode, not mkstemp's 0600: the result gets the permissions of any file the user makes.
 */
static int open_beside(FileWriter *w) {
    for (int i = 0; i < ATTEMPTS; i++) {
        w->beside = name_beside(w->path, i);
        if (!w->beside) return -1;
        w->fd = open(w->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0) return 0;
        int problem = errno;
        free(w->beside);
        errno = problem;
        if (problem != EEXIST) return -1;
    }
    return -1;
}

static int write_error(const FileWriter *w, int problem, Error *err) {
    if (problem != ENOSPC && problem != EDQUOT)
        return error_set(err, "%s: writing failed: %s; what was there before is unchanged", w->path,
                         strerror(problem));
    char needed[48] = "";
    if (w->size) snprintf(needed, sizeof needed, " (%.1f MB needed)", (double)w->size / 1e6);
    return error_set(err,
                     "%s: writing failed: %s%s: make room there or choose another folder; what was "
                     "there before is unchanged",
                     w->path, strerror(problem), needed);
}

int file_write_begin(FileWriter *w, const char *path, uint64_t size, Error *err) {
    *w = (FileWriter){.path = path, .fd = -1, .size = size};
    if (open_beside(w) != 0)
        return error_set(err, "%s: cannot be written: %s", path, strerror(errno));
    if (size && fallocate(w->fd, 0, 0, (off_t)size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return file_write_end(w, write_error(w, errno, err), err);
    return 0;
}

int file_write_bytes(FileWriter *w, const void *bytes, size_t size, Error *err) {
    for (const char *at = bytes; size > 0;) {
        /* One call moves at most 2 GiB; a short write is not an error, the next one tells. */
        ssize_t done = write(w->fd, at, size < (1u << 30) ? size : (1u << 30));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return write_error(w, done < 0 ? errno : EIO, err);
        at += done;
        size -= (size_t)done;
    }
    return 0;
}

int file_write_end(FileWriter *w, int failed, Error *err) {
    if (!failed && fsync(w->fd) != 0) failed = write_error(w, errno, err);
    if (close(w->fd) != 0 && !failed) failed = write_error(w, errno, err);
    if (!failed && rename(w->beside, w->path) != 0) failed = write_error(w, errno, err);
    if (failed)
        unlink(w->beside);
    else if (folder_sync_above(w->path) != 0)
        failed = error_set(err, "%s: written, but its folder cannot be synced: %s", w->path,
                           strerror(errno));
    free(w->beside);
    *w = (FileWriter){.fd = -1};
    return failed ? -1 : 0;
}

static int link_beside(const char *from, const char *path, char **beside) {
    for (int i = 0; i < ATTEMPTS; i++) {
        *beside = name_beside(path, i);
        if (!*beside) return -1;
        if (linkat(AT_FDCWD, from, AT_FDCWD, *beside, AT_SYMLINK_FOLLOW) == 0) return 0;
        int problem = errno;
        free(*beside);
        if (problem != EEXIST) return -1;
    }
    return -1;
}

static int file_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int failed = fsync(fd);
    close(fd);
    return failed;
}

int file_link(const char *from, const char *path) {
    char *beside;
    if (link_beside(from, path, &beside) != 0) return -1;
    int failed = file_sync(beside) != 0 || rename(beside, path) != 0;
    unlink(beside); /* a rename does nothing where both names are one file already */
    free(beside);
    return failed || folder_sync_above(path) != 0 ? -1 : 0;
}

/* A rename is on the disk once its folder is. Some file systems cannot sync a folder (EINVAL). */
int folder_sync_above(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--; /* a folder's name may end in one */
    while (end > 0 && path[end - 1] != '/') end--;
    while (end > 1 && path[end - 1] == '/') end--;
    char *folder = end ? strndup(path, end) : strdup(".");
    if (!folder) return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0) return -1;
    int failed = fsync(fd) != 0 && errno != EINVAL;
    int problem = errno;
    close(fd);
    errno = problem;
    return failed ? -1 : 0;
}
