/* array_grow.h - growing an array by doubling. */
#ifndef EASYFIRST_DATA_FILES_ARRAY_GROW_H
#define EASYFIRST_DATA_FILES_ARRAY_GROW_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The array with at least twice the capacity (in elements of `size` bytes), moved if need be; NULL:
 * out of memory, array and capacity unchanged. */
static inline void *array_grow(void *array, size_t *capacity, size_t size) {
    size_t wanted = *capacity ? 2 * *capacity : 16;
    if (wanted > SIZE_MAX / size) return NULL;
    void *grown = realloc(array, wanted * size);
    if (grown) *capacity = wanted;
    return grown;
}

#endif
