/* file_kind.h - recognizes a file of another format than expected.
 *
 * For the error messages of all readers (models, tokenizers, training data, settings): they name a
 * wrong download or a format that needs converting, instead of "line 1, column 1: '[' expected".
 */
#ifndef EASYFIRST_DATA_FILES_FILE_KIND_H
#define EASYFIRST_DATA_FILES_FILE_KIND_H

#include <stddef.h>

enum { FILE_KIND_BYTES = 512 }; /* at a file's beginning that are enough */

/* The format that the first `size` bytes of a file show, and what to do, as the end of a message
 * after "<path>: ": "a Parquet file; export it as ...". NULL if not recognized: UTF-8 text, JSON, a
 * SentencePiece model. Static storage. */
const char *file_kind_hint(const void *bytes, size_t size);

/* The same for an open file; NULL, too, if it cannot be read. */
const char *file_kind_of(int fd);

#endif
