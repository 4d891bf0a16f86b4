/* images.h - image files for tests. */
#ifndef EASYFIRST_TESTS_IMAGES_H
#define EASYFIRST_TESTS_IMAGES_H

#include "tests/test.h"

/* RGB bytes, row by row, as a PNG. */
void image_write(const char *path, const uint8_t *pixels, int width, int height);

#endif
