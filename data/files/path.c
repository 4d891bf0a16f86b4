#include "data/files/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *path_format(Error *err, const char *format, ...) {
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length >= 0) return text;
    error_set(err, "out of memory for the name of a file");
    return NULL;
}

char *path_join(const char *folder, const char *name, Error *err) {
    if (!folder || !*folder) return path_format(err, "%s", name);
    size_t length = strlen(folder);
    while (length > 0 && folder[length - 1] == '/') length--;
    return path_format(err, "%.*s/%s", (int)length, folder, name);
}

const char *path_name(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    while (end > 0 && path[end - 1] != '/') end--;
    return path + end;
}
