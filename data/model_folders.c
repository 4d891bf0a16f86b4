/* Folders that appear whole (folder_begin, folder_commit), and their removal. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/file_write.h"
#include "data/model_files.h"

/* A walk over a folder's entries from the leaves up. Symbolic links are entries, never followed. */
typedef struct Walk {
    const char *root; /* for messages */
    bool remove;      /* else everything is synced */
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
        struct stat info;
        if (fstatat(folder, e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
            failed = walk_failed(w, e->d_name);
        else if (S_ISDIR(info.st_mode))
            failed = walk_folder(w, folder, e->d_name);
        else
            failed = walk_file(w, folder, e->d_name, info.st_mode);
    }
    if (!failed && errno) failed = walk_failed(w, "what is in it");
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

int folder_begin(char *partial, size_t size, const char *path, Error *err) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    if ((size_t)snprintf(partial, size, "%.*s.partial", (int)length, path) >= size)
        return error_set(err, "%s: the name is too long", path);
    TRY(folder_remove(partial, err));
    if (mkdir(partial, 0777) != 0)
        return error_set(err, "%s: cannot be made: %s", partial, strerror(errno));
    return 0;
}

/* A rename that replaces nothing, not even an empty folder. */
static int rename_new(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    struct stat info; /* a file system without such renames: look first */
    if (lstat(to, &info) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

int folder_commit(const char *partial, const char *path, Error *err) {
    TRY(walk_folder(&(Walk){partial, false, err}, AT_FDCWD, partial));
    if (rename_new(partial, path) != 0)
        return error_set(err, "%s: cannot be put in place: %s; what was written is in %s", path,
                         strerror(errno), partial);
    if (folder_sync_above(path) != 0)
        return error_set(err, "%s: written, but its folder cannot be synced: %s", path,
                         strerror(errno));
    return 0;
}

void folder_discard(const char *partial) {
    folder_remove(partial, NULL);
}
