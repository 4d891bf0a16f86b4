/* file_target.h - what a name leads to when it is written. Private to data/file_*.c. */
#ifndef EASYFIRST_DATA_FILES_FILE_TARGET_H
#define EASYFIRST_DATA_FILES_FILE_TARGET_H

#include <stdbool.h>
#include <sys/stat.h>

typedef struct FileTarget {
    char *path; /* where the links end; NULL: it must be written through */
    int own_fd; /* the name leads to this descriptor of our own (/dev/stdout); -1: it does not */
    bool found; /* something is there: */
    struct stat info;
} FileTarget;

/* 0, or -1 with errno: a loop of links, a folder that cannot be searched, no memory. */
int file_target(FileTarget *target, const char *path);
void file_target_free(FileTarget *target);

/* The folder that holds `path`: "." for a bare name. The caller frees it; NULL without memory. */
char *file_folder(const char *path);

#endif
