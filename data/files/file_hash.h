/* file_hash.h - a file's SHA-256, as `sha256sum` and Hugging Face show it. */
#ifndef EASYFIRST_DATA_FILES_FILE_HASH_H
#define EASYFIRST_DATA_FILES_FILE_HASH_H

#include <stddef.h>

#include "kernels/error.h"

enum { FILE_HASH_SIZE = 65 };

/* Writes 64 hexadecimal digits and a terminating 0. Errors: a file that cannot be opened
 * or read. */
int file_hash(char hex[FILE_HASH_SIZE], const char *path, Error *err);

/* The same of bytes in memory. */
int bytes_hash(char hex[FILE_HASH_SIZE], const void *bytes, size_t size, Error *err);

#endif
