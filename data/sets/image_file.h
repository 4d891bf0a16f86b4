/* image_file.h - checks the image files of records before they are opened. */
#ifndef EASYFIRST_DATA_SETS_IMAGE_FILE_H
#define EASYFIRST_DATA_SETS_IMAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a path is absolute or has a component "..". */
bool image_leaves_folder(const char *path);

/* Why the file `image` in the folder `images` cannot be used, as a kind of skipped.h, with the
 * details in `text`: it does not exist, is a URL, not a regular file, or empty. NULL if it can be
 * used. A name that is too long for `text` loses its middle. */
const char *image_file_check(char *text, size_t size, const char *images, const char *image);

#endif
