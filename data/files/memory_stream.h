/* memory_stream.h - a stream that writes into memory, and says when there is none. */
#ifndef EASYFIRST_DATA_FILES_MEMORY_STREAM_H
#define EASYFIRST_DATA_FILES_MEMORY_STREAM_H

#include <stddef.h>
#include <stdio.h>

/* Like open_memstream: once fclose has returned, *text [*size] is what was written, with a 0 after
 * it, to be freed by the caller (NULL where there was no memory at all). But where memory ran out
 * in between, fclose fails; glibc's own stream loses what did not fit, and no function tells. NULL
 * without memory. */
FILE *memory_stream_open(char **text, size_t *size);

#endif
