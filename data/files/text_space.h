/* text_space.h - white space at the ends of a text. */
#ifndef EASYFIRST_DATA_FILES_TEXT_SPACE_H
#define EASYFIRST_DATA_FILES_TEXT_SPACE_H

#include <stddef.h>

/* The length of the white space that text begins with or ends in (UTF-8; invalid bytes are not
 * white space). */
size_t text_space_begin(const char *text, size_t size);
size_t text_space_end(const char *text, size_t size);

#endif
