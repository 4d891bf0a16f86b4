/* open.h - opens a data file, unpacked if it is compressed. Private to data/formats. */
#ifndef EASYFIRST_DATA_FORMATS_OPEN_H
#define EASYFIRST_DATA_FORMATS_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

/* A descriptor of the file, or (*temporary) of a temporary one with its text; *bytes is the size of
 * the file itself. -1 with a message. */
int format_fd_open(const char *path, int64_t *bytes, bool *temporary, Error *err);

#endif
