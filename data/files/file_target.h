/* file_target.h - resolves an output path. Private to data/files/file_*.c. */
#ifndef EASYFIRST_DATA_FILES_FILE_TARGET_H
#define EASYFIRST_DATA_FILES_FILE_TARGET_H

#include <stdbool.h>
#include <sys/stat.h>

typedef struct FileTarget {
    char *path; /* the target of all links; NULL: not a regular file, to be written through */
    int own_fd; /* the path is this open descriptor of the process (/dev/stdout); -1: it is not */
    bool found; /* the target exists: */
    struct stat info;
} FileTarget;

/* 0, or -1 with errno: a loop of links, a folder that cannot be searched, out of memory. */
int file_target(FileTarget *target, const char *path);
void file_target_free(FileTarget *target);

/* The folder that holds `path`: "." for a bare name. The caller frees it; NULL: out of memory. */
char *file_folder(const char *path);

#endif
