/* images.h - image files for tests. */
#ifndef EASYFIRST_TESTS_IMAGES_H
#define EASYFIRST_TESTS_IMAGES_H

#include "tests/test.h"

/* RGB bytes, row by row, as a PNG. */
void image_write(const char *path, const uint8_t *pixels, int width, int height);

/* A file's bytes, of exactly its size, so that a sanitizer detects reads past them; for free. */
typedef struct Bytes {
    uint8_t *at;
    size_t size;
} Bytes;

Bytes bytes_of(const void *from, size_t size);
/* Of `folder` and `name` together, "tests/golden/images/" and "a.png"; fails the test if it is missing. */
Bytes bytes_golden(const char *folder, const char *name);

#endif
