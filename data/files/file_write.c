#include "data/files/file_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "data/files/file_target.h"
#include "data/files/path.h"

/* Tries of names for a temporary file. */
enum { ATTEMPTS = 100, DIGITS = 16 };

#define PART ".part-"

/* ---- Temporary names. ---- */

/* The bytes of a file's name at the start of its temporary names: as many as fit. */
static size_t stem_length(const char *name) {
    const size_t most = NAME_MAX - (sizeof PART - 1) - DIGITS;
    size_t length = strlen(name);
    return length < most ? length : most;
}

/* A random name: a file of that name is our own. */
static char *temporary_name(const char *path) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) return NULL;
    const char *name = path_name(path);
    char *temporary = path_format(NULL, "%.*s%.*s" PART "%016" PRIx64, (int)(name - path), path,
                                  (int)stem_length(name), name, number);
    if (!temporary) errno = ENOMEM;
    return temporary;
}

static bool is_beside(const char *entry, const char *name) {
    size_t stem = stem_length(name);
    if (strncmp(entry, name, stem) || strncmp(entry + stem, PART, sizeof PART - 1)) return false;
    entry += stem + sizeof PART - 1;
    return strspn(entry, "0123456789abcdef") == DIGITS && !entry[DIGITS];
}

static int remove_beside(DIR *folder, const char *name) {
    int removed = 0;
    struct stat info;
    for (struct dirent *e; (errno = 0, e = readdir(folder));) {
        if (!is_beside(e->d_name, name)) continue;
        if (fstatat(dirfd(folder), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        if (unlinkat(dirfd(folder), e->d_name, 0) != 0) return -1;
        removed++;
    }
    return errno ? -1 : removed;
}

int file_write_clean(const char *path) {
    FileTarget t;
    if (file_target(&t, path) != 0) return -1;
    char *folder = t.path ? file_folder(t.path) : NULL;
    DIR *dir = folder ? opendir(folder) : NULL;
    int removed = dir ? remove_beside(dir, path_name(t.path)) : t.path ? -1 : 0;
    int code = errno;
    if (dir) closedir(dir);
    free(folder);
    file_target_free(&t);
    errno = code;
    return removed;
}

/* ---- Writing. ---- */

/* An unnamed file (O_TMPFILE), if supported: a killed writer leaves nothing. -1 if it is not, or
 * could not be named later. */
static int open_nameless(const char *target) {
    if (access("/proc/self/fd", X_OK) != 0) return -1;
    char *folder = file_folder(target);
    int fd = folder ? open(folder, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666) : -1;
    free(folder);
    return fd;
}

/* open's own mode, not mkstemp's 0600: the result gets the permissions of any file the
 * user makes. */
static int open_beside(FileWriter *w) {
    if ((w->fd = open_nameless(w->target)) >= 0) return 0;
    for (int i = 0; i < ATTEMPTS; i++) {
        w->temporary = temporary_name(w->target);
        if (!w->temporary) return -1;
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0) return 0;
        int code = errno;
        free(w->temporary), w->temporary = NULL;
        errno = code;
        if (code != EEXIST) return -1;
    }
    return -1;
}

/* Copies owner and permissions of the replaced file, as far as permitted. */
static void keep_mode(int fd, const struct stat *info) {
    mode_t mode = info->st_mode & 07777;
    if (fchown(fd, info->st_uid, info->st_gid) != 0 && fchown(fd, (uid_t)-1, info->st_gid) != 0)
        mode &= 0777;                  /* no setuid or setgid for another owner */
    if (fchmod(fd, mode) != 0) return; /* those of a new file */
}

/* Not a regular file; flushes earlier output first. */
static int open_through(FileWriter *w, const FileTarget *t) {
    fflush(stdout);
    w->fd = t->own_fd >= 0 ? fcntl(t->own_fd, F_DUPFD_CLOEXEC, 0)
                           : open(w->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return w->fd < 0 ? -1 : 0;
}

static int open_target(FileWriter *w, FileTarget *t) {
    if (t->found && S_ISDIR(t->info.st_mode)) return errno = EISDIR, -1;
    if (!t->path) return open_through(w, t);
    if (t->found && faccessat(AT_FDCWD, t->path, W_OK, AT_EACCESS) != 0) return -1;
    w->target = t->path, t->path = NULL;
    if (open_beside(w) != 0) {
        int code = errno;
        free(w->target), w->target = NULL;
        errno = code;
        return -1;
    }
    if (t->found) keep_mode(w->fd, &t->info);
    return 0;
}

static int write_error(const FileWriter *w, int code, Error *err) {
    const char *unchanged = w->target ? "; the old file is unchanged" : "";
    if (code != ENOSPC && code != EDQUOT)
        return error_set(err, "%s: writing failed: %s%s", w->path, strerror(code), unchanged);
    char needed[48] = "";
    if (w->size) snprintf(needed, sizeof needed, " (%.1f MB needed)", (double)w->size / 1e6);
    return error_set(err, "%s: writing failed: %s%s: make room there or choose another folder%s",
                     w->path, strerror(code), needed, unchanged);
}

int file_write_begin(FileWriter *w, const char *path, uint64_t size, Error *err) {
    *w = (FileWriter){.path = path, .fd = -1, .size = size};
    FileTarget t;
    int failed = file_target(&t, path);
    if (!failed) failed = open_target(w, &t);
    if (failed) error_set(err, "%s: cannot be written: %s", path, strerror(errno));
    file_target_free(&t);
    if (failed) return -1;
    if (w->target && size && fallocate(w->fd, 0, 0, (off_t)size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return file_write_end(w, write_error(w, errno, err), err);
    return 0;
}

int file_write_bytes(FileWriter *w, const void *bytes, size_t size, Error *err) {
    for (const char *at = bytes; size > 0;) {
        /* One call writes at most 2 GiB; a short write is not an error, the next one reports it. */
        ssize_t done = write(w->fd, at, size < (1u << 30) ? size : (1u << 30));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return write_error(w, done < 0 ? errno : EIO, err);
        at += done;
        size -= (size_t)done;
    }
    return 0;
}

/* Links `from` (a symbolic link is followed) to a temporary name next to `path`. */
static int link_temporary(const char *from, const char *path, char **temporary) {
    for (int i = 0; i < ATTEMPTS; i++) {
        *temporary = temporary_name(path);
        if (!*temporary) return -1;
        if (linkat(AT_FDCWD, from, AT_FDCWD, *temporary, AT_SYMLINK_FOLLOW) == 0) return 0;
        int code = errno;
        free(*temporary), *temporary = NULL;
        errno = code;
        if (code != EEXIST) return -1;
    }
    return -1;
}

/* Gives the complete file its name. An unnamed file first needs a temporary name: only rename
 * replaces. */
static int put_in_place(FileWriter *w) {
    if (!w->temporary) {
        char name[48];
        snprintf(name, sizeof name, "/proc/self/fd/%d", w->fd);
        if (link_temporary(name, w->target, &w->temporary) != 0) return -1;
    }
    return rename(w->temporary, w->target);
}

static int finish(FileWriter *w, Error *err) {
    if (!w->target) return 0;
    if (fsync(w->fd) != 0) return write_error(w, errno, err);
    if (put_in_place(w) != 0) return write_error(w, errno, err);
    return 0;
}

int file_write_end(FileWriter *w, int failed, Error *err) {
    if (!failed) failed = finish(w, err);
    bool placed = !failed && w->target;
    if (!placed && w->temporary) unlink(w->temporary);
    if (close(w->fd) != 0 && !failed) failed = write_error(w, errno, err);
    if (!failed && placed && folder_sync_above(w->target) != 0)
        failed = error_set(err, "%s: written, but its folder cannot be synced: %s", w->path,
                           strerror(errno));
    free(w->temporary);
    free(w->target);
    *w = (FileWriter){.fd = -1};
    return failed ? -1 : 0;
}

int file_write_all(const char *path, const void *bytes, size_t size, Error *err) {
    FileWriter w;
    TRY(file_write_begin(&w, path, size, err));
    return file_write_end(&w, file_write_bytes(&w, bytes, size, err), err);
}

/* ---- Hard links and folders. ---- */

static int file_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int failed = fsync(fd);
    close(fd);
    return failed;
}

int file_link(const char *from, const char *path) {
    char *temporary;
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode)) return -1;
    if (link_temporary(from, path, &temporary) != 0) return -1;
    int failed = file_sync(temporary) != 0 || rename(temporary, path) != 0;
    unlink(temporary); /* rename does nothing if both names are one file already */
    free(temporary);
    return failed || folder_sync_above(path) != 0 ? -1 : 0;
}

/* A rename is on the disk once its folder is. Some file systems cannot sync a folder (EINVAL). */
int folder_sync_above(const char *path) {
    char *folder = file_folder(path);
    if (!folder) return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0) return -1;
    int failed = fsync(fd) != 0 && errno != EINVAL;
    int code = errno;
    close(fd);
    errno = code;
    return failed ? -1 : 0;
}
