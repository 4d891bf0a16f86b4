/* file_kind.h - what a file is that is not what it was given as.
 *
 * For the messages of all readers (models, tokenizers, training data, settings): a wrong download
 * or a format that needs converting is named, instead of "line 1, column 1: '[' expected".
 */
#ifndef EASYFIRST_DATA_FILES_FILE_KIND_H
#define EASYFIRST_DATA_FILES_FILE_KIND_H

#include <stddef.h>

enum { FILE_KIND_BYTES = 512 }; /* of a file's beginning that are enough to tell */

/* What the first `size` bytes of a file show, with what to do, as the end of a message after
 * "<path>: ": "a Parquet file; export it as ...". NULL where nothing is recognised: a text in
 * UTF-8, JSON, a SentencePiece model. Static storage. */
const char *file_kind_hint(const void *bytes, size_t size);

/* The same from the file itself, read at its beginning; NULL too where it cannot be read. */
const char *file_kind_of(int fd);

#endif
