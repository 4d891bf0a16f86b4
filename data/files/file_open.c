#include "data/files/file_open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/archive.h"

const char *file_mode_name(unsigned mode) {
    if (S_ISREG(mode)) return "a file";
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe (FIFO)";
    return S_ISSOCK(mode) ? "a socket" : "a device";
}

static int check_kind(const char *path, const struct stat *info, const char *why, Error *err) {
    if (S_ISREG(info->st_mode)) return 0;
    if (S_ISDIR(info->st_mode) || !why)
        return error_set(err, "%s: %s, expected a file on disk", path,
                         file_mode_name(info->st_mode));
    return error_set(err, "%s: %s; %s", path, file_mode_name(info->st_mode), why);
}

int file_open_input(const char *path, const char *why, int64_t *size, Error *err) {
    struct stat info;
    /* O_NONBLOCK: opening a named pipe would otherwise wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOTDIR && archive_path(path))
        fd = archive_open(path, err);
    else if (fd < 0)
        error_set(err, "%s: %s", path, strerror(errno));
    if (fd < 0) return -1;
    int status = fstat(fd, &info) ? error_set(err, "%s: %s", path, strerror(errno))
                                  : check_kind(path, &info, why, err);
    if (status) {
        close(fd);
        return -1;
    }
    if (size) *size = (int64_t)info.st_size;
    return fd;
}
