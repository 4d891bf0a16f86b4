#include "data/picture_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/file_open.h"
#include "data/path.h"

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
    struct stat info;
    Error err = {{0}};
    char *path = path_join(images, image, &err);
    int failed = path ? stat(path, &info) : -1;
    int why = failed ? errno : 0;
    free(path);
    if (failed || !S_ISREG(info.st_mode)) {
        if (why == ENOENT)
            snprintf(text, size, "%s: there is no such file in the folder of pictures", image);
        else if (failed)
            snprintf(text, size, "%s: %s", image, strerror(why));
        else
            snprintf(text, size, "%s: %s, not a file that can be opened", image,
                     file_mode_name(info.st_mode));
        return "no such picture";
    }
    if (info.st_size > 0) return NULL;
    snprintf(text, size, "%s has no bytes", image);
    return "empty picture file";
}
