/* path.h - builds paths of any length. */
#ifndef EASYFIRST_DATA_FILES_PATH_H
#define EASYFIRST_DATA_FILES_PATH_H

#include "kernels/error.h"

/* "<folder>/<name>", with one slash between them; `name` alone if folder is NULL or empty. The
 * caller frees it. NULL: out of memory, with a message. */
char *path_join(const char *folder, const char *name, Error *err);

/* Any text as printf makes it; the caller frees it. NULL: out of memory, with a message. */
char *path_format(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The name after the last slash (slashes at the end count as none); it points into `path`. */
const char *path_name(const char *path);

#endif
