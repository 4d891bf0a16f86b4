/* image_file.h - whether an image that data name can be used, before it is opened. */
#ifndef EASYFIRST_DATA_SETS_IMAGE_FILE_H
#define EASYFIRST_DATA_SETS_IMAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a path is absolute or has a part "..". */
bool image_leaves_folder(const char *path);

/* The kind of problem (skipped.h) with the file `image` below the folder `images`, with the case
 * in `text`: there is none, it is a URL, it is no file, it is empty. NULL if there is nothing
 * wrong. Of a name that is too long for `text` the middle is left out. */
const char *image_file_problem(char *text, size_t size, const char *images, const char *image);

#endif
