#include "data/sets/image_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files/archive.h"
#include "data/files/path.h"

bool image_leaves_folder(const char *path) {
    if (path[0] == '/') return true;
    for (const char *part = path; part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && part[0] == '.' && part[1] == '.') return true;
        part = part[size] ? part + size + 1 : NULL;
    }
    return false;
}

/* Why the file cannot be used; NULL if it can. `image` is its name in the data. */
static const char *reason_against(const char *path, const char *image, struct stat *info) {
    int64_t size;
    if (stat(path, info) != 0) {
        if (errno == ENOTDIR && archive_path(path) && archive_size(path, &size, NULL) == 0) {
            info->st_size = size;
            return NULL;
        }
        if (strstr(image, "://")) return "a URL, not a file; download the images first";
        if (errno == ENAMETOOLONG) return "too long a path";
        if (errno == ENOENT || errno == ENOTDIR) return "no such file in the folder of images";
        return errno == EACCES ? "a file that may not be opened (permission denied)"
                               : "not a file that can be opened";
    }
    if (S_ISDIR(info->st_mode)) return "a folder, not a file that can be opened";
    return S_ISREG(info->st_mode) ? NULL : "not a file that can be opened (a pipe or a device)";
}

const char *image_file_check(char *text, size_t size, const char *images, const char *image) {
    enum { HEAD = 60 }; /* names may not crowd out the reason */
    Error err;
    struct stat info = {0};
    char *path = path_join(images, image, &err);
    const char *reason = path ? reason_against(path, image, &info) : "out of memory for its path";
    free(path);
    size_t length = strlen(image), room = size > 2 * HEAD ? size - 2 * HEAD : HEAD;
    int head = length > room ? HEAD : (int)length;
    const char *tail = length > room ? image + length - (room - HEAD) : "";
    const char *gap = length > room ? "..." : "";
    if (!reason && info.st_size > 0) return NULL;
    snprintf(text, size, "%.*s%s%s%s%s", head, image, gap, tail, reason ? ": " : " has no bytes",
             reason ? reason : "");
    return reason ? "no such image" : "empty image file";
}
