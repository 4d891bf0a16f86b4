#include "data/picture_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool picture_leaves_folder(const char *path) {
    if (path[0] == '/') return true;
    for (const char *part = path; part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && part[0] == '.' && part[1] == '.') return true;
        part = part[size] ? part + size + 1 : NULL;
    }
    return false;
}

const char *picture_file_problem(char *text, size_t size, const char *images, const char *image) {
    char path[4096];
    struct stat info;
    int length = snprintf(path, sizeof path, "%s/%s", images, image);
    bool fits = length > 0 && length < (int)sizeof path;
    if (!fits || stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        snprintf(text, size, "%s: %s", image,
                 !fits             ? "too long a path"
                 : errno == ENOENT ? "there is no such file in the folder of pictures"
                                   : "not a file that can be opened");
        return "no such picture";
    }
    if (info.st_size > 0) return NULL;
    snprintf(text, size, "%s has no bytes", image);
    return "empty picture file";
}
