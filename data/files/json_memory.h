/* json_memory.h - whether jansson ran out of memory while a value was put together.
 *
 * A member that could not be set for want of memory is missing, and a result without it would be
 * taken for whole. Rather than looking at each of dozens of calls, whoever builds a value begins,
 * builds, and asks at the end. */
#ifndef EASYFIRST_DATA_FILES_JSON_MEMORY_H
#define EASYFIRST_DATA_FILES_JSON_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* Lets jansson allocate where it is seen; once, before it is used. Without it nothing
 * ever fails. */
void json_memory_watch(void);

/* Of the calling thread, since its last begin. */
void json_memory_begin(void);
bool json_memory_failed(void);

/* json_dumps, whole or NULL: jansson leaves out a key that there is no memory for and goes on.
 * NULL, too, if an allocation failed since the thread's last begin or text, while the value was
 * built: a failure that somebody else was told of may so refuse one text, which is better than a
 * number that is missing. */
char *json_dumps_whole(const json_t *json, size_t flags);

/* json_loadb, whole or NULL with json_error_out_of_memory: where an allocation fails inside of a
 * string, jansson (2.14) loses a character and goes on. */
json_t *json_loadb_whole(const char *text, size_t size, size_t flags, json_error_t *error);

#endif
