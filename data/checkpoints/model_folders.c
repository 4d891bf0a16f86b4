/* Atomic creation of folders (folder_begin, folder_commit), and their removal. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/file_write.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"

/* An unfinished folder is "<target>.partial-XXXXXXXX" with this file in it, which its process keeps
 * locked. The system releases the lock when the process ends in any way: a folder whose marker can
 * be locked was left by a dead run, and one without a marker is not ours. */
#define MARKER      ".easyfirst-partial"
#define MARKER_NEW  ".easyfirst-partial-new" /* before it is locked */
#define PARTIAL_END ".partial-"
enum { RANDOM_LETTERS = 8 };

/* A post-order walk over a folder's entries. Symbolic links are entries, never followed. */
typedef struct Walk {
    const char *root; /* for messages */
    bool remove;      /* else sync everything */
    Error *err;
} Walk;

static int walk_failed(const Walk *w, const char *name) {
    return error_set(w->err, "%s: %s cannot be %s: %s", w->root, name,
                     w->remove ? "removed" : "synced", strerror(errno));
}

static int walk_file(const Walk *w, int folder, const char *name, mode_t mode) {
    if (w->remove) return unlinkat(folder, name, 0) == 0 ? 0 : walk_failed(w, name);
    if (!S_ISREG(mode)) return 0;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return walk_failed(w, name);
    int failed = fsync(fd) != 0 ? walk_failed(w, name) : 0;
    close(fd);
    return failed;
}

static int walk_folder(const Walk *w, int above, const char *name);

static int walk_entries(const Walk *w, DIR *entries) {
    int folder = dirfd(entries), failed = 0;
    for (const struct dirent *e; !failed && (errno = 0, e = readdir(entries));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (w->remove && !strcmp(e->d_name, MARKER)) continue; /* removed last: see walk_folder */
        struct stat info;
        if (fstatat(folder, e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
            failed = walk_failed(w, e->d_name);
        else if (S_ISDIR(info.st_mode))
            failed = walk_folder(w, folder, e->d_name);
        else
            failed = walk_file(w, folder, e->d_name, info.st_mode);
    }
    if (!failed && errno) failed = walk_failed(w, "its contents");
    return failed;
}

static int walk_folder(const Walk *w, int above, const char *name) {
    int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return walk_failed(w, name);
    DIR *entries = fdopendir(fd);
    if (!entries) {
        close(fd);
        return walk_failed(w, name);
    }
    int failed = walk_entries(w, entries);
    if (!failed && !w->remove && fsync(fd) != 0 && errno != EINVAL) failed = walk_failed(w, name);
    if (!failed && w->remove && unlinkat(fd, MARKER, 0) != 0 && errno != ENOENT)
        failed = walk_failed(w, MARKER);
    closedir(entries);
    if (!failed && w->remove && unlinkat(above, name, AT_REMOVEDIR) != 0)
        failed = walk_failed(w, name);
    return failed;
}

int folder_remove(const char *path, Error *err) {
    struct stat info;
    if (lstat(path, &info) != 0 && errno == ENOENT) return 0;
    return walk_folder(&(Walk){path, true, err}, AT_FDCWD, path);
}

/* ---- Unfinished folders. ---- */

/* The locked markers of this process. */
typedef struct Lock {
    struct Lock *next;
    char *partial;
    int fd;
} Lock;

static pthread_mutex_t locks_mutex = PTHREAD_MUTEX_INITIALIZER;
static Lock *locks;

static void lock_keep(const char *partial, int fd) {
    Lock *lock = calloc(1, sizeof *lock);
    if (lock) lock->partial = strdup(partial);
    if (!lock || !lock->partial) { /* out of memory: the folder will not be cleaned up */
        free(lock);
        close(fd);
        return;
    }
    lock->fd = fd;
    pthread_mutex_lock(&locks_mutex);
    lock->next = locks;
    locks = lock;
    pthread_mutex_unlock(&locks_mutex);
}

static void lock_drop(const char *partial) {
    pthread_mutex_lock(&locks_mutex);
    for (Lock **at = &locks; *at; at = &(*at)->next) {
        Lock *lock = *at;
        if (strcmp(lock->partial, partial)) continue;
        *at = lock->next;
        close(lock->fd);
        free(lock->partial);
        free(lock);
        break;
    }
    pthread_mutex_unlock(&locks_mutex);
}

/* Locked before it gets its name, so that no process sees an unlocked marker of a live one. Where
 * files cannot be locked there is no marker, and nothing is cleaned up. */
static int marker_write(const char *partial, Error *err) {
    char *fresh = path_join(partial, MARKER_NEW, err), *marker = path_join(partial, MARKER, err);
    int fd = -1, failed = fresh && marker ? 0 : -1;
    if (!failed) fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (!failed && fd < 0) failed = error_set(err, "%s: %s", fresh, strerror(errno));
    if (!failed && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        unlink(fresh);
    } else if (!failed && rename(fresh, marker) != 0) {
        failed = error_set(err, "%s: %s", marker, strerror(errno));
    } else if (!failed) {
        lock_keep(partial, fd);
        fd = -1;
    }
    if (fd >= 0) close(fd);
    free(fresh);
    free(marker);
    return failed;
}

/* Whether `name` is `stem` (NULL: anything that begins with `prefix`), ".partial-" and letters. */
static bool partial_named(const char *name, const char *prefix, const char *stem) {
    size_t length = strlen(name), end = strlen(PARTIAL_END) + RANDOM_LETTERS;
    if (length <= end || strncmp(name + length - end, PARTIAL_END, strlen(PARTIAL_END)))
        return false;
    if (stem) return strlen(stem) == length - end && !strncmp(name, stem, length - end);
    return !strncmp(name, prefix, strlen(prefix));
}

/* Removes a partial folder if it is a dead run's. */
static void remove_if_dead(const char *folder) {
    char *marker = path_join(folder, MARKER, NULL);
    int fd = marker ? open(marker, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    free(marker);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) folder_remove(folder, NULL);
    close(fd);
}

static void remove_leftovers(const char *above, const char *prefix, const char *stem) {
    DIR *entries = opendir(above[0] ? above : ".");
    for (const struct dirent *e; entries && (e = readdir(entries));) {
        if (!partial_named(e->d_name, prefix, stem)) continue;
        char *folder = path_join(above, e->d_name, NULL);
        if (folder) remove_if_dead(folder);
        free(folder);
    }
    if (entries) closedir(entries);
}

void folder_clean(const char *above, const char *prefix) {
    remove_leftovers(above, prefix, NULL);
}

/* Removes what other runs of the same target left. */
static void clean_target(const char *path) {
    const char *name = path_name(path);
    size_t length = strlen(name);
    while (length > 1 && name[length - 1] == '/') length--;
    char *stem = strndup(name, length), *above = strndup(path, (size_t)(name - path));
    if (stem && above) remove_leftovers(above, "", stem);
    free(stem);
    free(above);
}

static int random_letters(char *out) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
    unsigned char bytes[RANDOM_LETTERS];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return -1;
    for (int i = 0; i < RANDOM_LETTERS; i++) out[i] = letters[bytes[i] % 32];
    out[RANDOM_LETTERS] = 0;
    return 0;
}

int folder_begin(char *partial, size_t size, const char *path, Error *err) {
    char letters[RANDOM_LETTERS + 1];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    clean_target(path);
    do {
        if (random_letters(letters) != 0)
            return error_set(err, "%s: no random name for a partial folder: %s", path,
                             strerror(errno));
        if ((size_t)snprintf(partial, size, "%.*s" PARTIAL_END "%s", (int)length, path, letters) >=
            size)
            return error_set(err, "%s: the name is too long", path);
        if (mkdir(partial, 0777) == 0) {
            if (marker_write(partial, err) == 0) return 0;
            folder_discard(partial);
            return -1;
        }
    } while (errno == EEXIST);
    return error_set(err, "%s: cannot be created: %s", partial, strerror(errno));
}

/* A rename that never replaces anything, not even an empty folder. */
static int rename_new(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    struct stat info; /* a file system without such renames: check first */
    if (lstat(to, &info) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

/* The folder is complete when it has its name; the marker is removed last, so that a partial folder
 * always has one. */
static int put_in_place(const char *partial, const char *path, const char *marker, Error *err) {
    if (rename_new(partial, path) != 0)
        return errno == EEXIST
                   ? error_set(err,
                               "%s: exists already; was it made meanwhile, by another run? Nothing "
                               "in it was changed",
                               path)
                   : error_set(err, "%s: cannot be renamed into place: %s", path, strerror(errno));
    unlink(marker);
    lock_drop(partial);
    if (folder_sync_above(path) != 0)
        return error_set(err, "%s: written, but its folder cannot be synced: %s", path,
                         strerror(errno));
    return 0;
}

int folder_commit(const char *partial, const char *path, Error *err) {
    TRY(walk_folder(&(Walk){partial, false, err}, AT_FDCWD, partial));
    char *marker = path_join(path, MARKER, err);
    if (!marker) return -1;
    int status = put_in_place(partial, path, marker, err);
    free(marker);
    return status;
}

void folder_discard(const char *partial) {
    folder_remove(partial, NULL);
    lock_drop(partial);
}
