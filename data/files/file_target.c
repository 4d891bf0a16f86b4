#include "data/files/file_target.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "data/files/path.h"

enum { LINKS_MAX = 40 }; /* as many as the kernel follows */

char *file_folder(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--; /* a folder's name may end in a slash */
    while (end > 0 && path[end - 1] != '/') end--;
    while (end > 1 && path[end - 1] == '/') end--;
    return end ? strndup(path, end) : strdup(".");
}

/* A symbolic link's target, relative to the link's folder. NULL with errno: EINVAL if `path` is not
 * a link, ENOENT if it does not exist. */
static char *link_read(const char *path) {
    char text[PATH_MAX];
    ssize_t size = readlink(path, text, sizeof text - 1);
    if (size < 0) return NULL;
    text[size] = 0;
    if (text[0] == '/') return strdup(text);
    char *folder = file_folder(path);
    char *next = folder ? path_join(folder, text, NULL) : NULL;
    free(folder);
    if (!next) errno = ENOMEM;
    return next;
}

/* Whether a link is one of the kernel's own, whose text need not be a name (/proc/self/fd/1); *fd
 * takes the descriptor if it is one of this process. */
static bool link_is_descriptor(const char *path, int *fd) {
    char *folder = file_folder(path);
    char *real = folder ? realpath(folder, NULL) : NULL;
    struct statfs system;
    bool in_proc = real && statfs(real, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
    char own[48], *end;
    snprintf(own, sizeof own, "/proc/%ld/", (long)getpid());
    size_t length = real ? strlen(real) : 0;
    bool descriptor = in_proc && length > 3 && !strcmp(real + length - 3, "/fd");
    long number = descriptor ? strtol(path_name(path), &end, 10) : -1;
    if (descriptor && !strncmp(real, own, strlen(own)) && !*end && number >= 0 && number <= INT_MAX)
        *fd = (int)number;
    free(real);
    free(folder);
    return descriptor;
}

static int follow(FileTarget *t, const char *path) {
    t->path = strdup(path);
    for (int i = 0; t->path && i < LINKS_MAX; i++) {
        char *next = link_read(t->path);
        if (!next && (errno == EINVAL || errno == ENOENT)) return 0;
        if (next && link_is_descriptor(t->path, &t->own_fd)) {
            free(next);
            free(t->path), t->path = NULL;
            return 0;
        }
        free(t->path);
        t->path = next;
    }
    if (!t->path) return -1;
    free(t->path), t->path = NULL;
    errno = ELOOP;
    return -1;
}

int file_target(FileTarget *t, const char *path) {
    *t = (FileTarget){.own_fd = -1};
    /* The kernel first: it may forbid links of other users in a shared folder. */
    t->found = stat(path, &t->info) == 0;
    if (!t->found && errno != ENOENT) return -1;
    if (!*path) return errno = ENOENT, -1;
    if (follow(t, path) != 0) return -1;
    if (t->found && !S_ISREG(t->info.st_mode)) free(t->path), t->path = NULL;
    return 0;
}

void file_target_free(FileTarget *t) {
    free(t->path);
    t->path = NULL;
}
