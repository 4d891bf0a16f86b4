/* memory_stream.h - a stream that writes into memory and reports when memory runs out. */
#ifndef EASYFIRST_DATA_FILES_MEMORY_STREAM_H
#define EASYFIRST_DATA_FILES_MEMORY_STREAM_H

#include <stddef.h>
#include <stdio.h>

/* Like open_memstream: once fclose has returned, *text [*size] is what was written, with a 0 after
 * it, to be freed by the caller (NULL if nothing could be allocated). But if memory ran out in
 * between, fclose fails; glibc's own stream loses data without an error. NULL: out of memory. */
FILE *memory_stream_open(char **text, size_t *size);

#endif
