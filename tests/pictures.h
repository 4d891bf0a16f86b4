/* pictures.h - picture files for tests. */
#ifndef EASYFIRST_TESTS_PICTURES_H
#define EASYFIRST_TESTS_PICTURES_H

#include "tests/test.h"

/* RGB bytes, row by row, as a PNG. */
void picture_write(const char *path, const uint8_t *pixels, int width, int height);

#endif
