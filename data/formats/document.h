/* document.h - formats that are one JSON object: found by a member that is an array, read whole.
 * Private to data/formats. */
#ifndef EASYFIRST_DATA_FORMATS_DOCUMENT_H
#define EASYFIRST_DATA_FORMATS_DOCUMENT_H

#include <jansson.h>

#include "data/formats/format.h"

enum { DOCUMENT_MOST = 256 << 20, DOCUMENT_MEMORY = 1 << 30 };

/* Whether the object that begins the file has a member of this name that is an array, of the first 64
 * KiB, and begins its first element with `inside` as a name somewhere. */
bool document_has(const FormatInput *input, const char *member, const char *inside);

/* The file's tree, of at most DOCUMENT_MOST bytes of text; NULL with a message. */
json_t *document_read(const FormatInput *input, Error *err);

#endif
