/* json_memory.h - detects that jansson ran out of memory while a value was built.
 *
 * A member that could not be set because memory ran out is missing, and a result without it would
 * look complete. Instead of checking dozens of calls, call json_memory_begin, build the value, and
 * check json_memory_failed at the end. */
#ifndef EASYFIRST_DATA_FILES_JSON_MEMORY_H
#define EASYFIRST_DATA_FILES_JSON_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* Installs jansson's allocation hooks; call it once, before jansson is used. Without it
 * json_memory_failed is always false. */
void json_memory_watch(void);

/* For the calling thread, since its last begin. */
void json_memory_begin(void);
bool json_memory_failed(void);

/* json_dumps, complete or NULL: jansson itself omits a key if memory runs out and continues. NULL,
 * too, if an allocation failed since the thread's last begin or dump, while the value was built: a
 * failure that was already reported may so refuse one dump, which is better than a missing
 * number. */
char *json_dumps_whole(const json_t *json, size_t flags);

/* json_loadb, complete or NULL with json_error_out_of_memory: if an allocation fails inside a
 * string, jansson (2.14) itself loses a character and continues. */
json_t *json_loadb_whole(const char *text, size_t size, size_t flags, json_error_t *error);

#endif
