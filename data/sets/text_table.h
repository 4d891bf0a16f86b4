/* text_table.h - interned strings, numbered 0, 1, 2, ... in the order of adding.
 *
 * For millions of ids or answers that recur: a text costs its bytes and about 30 more.
 */
#ifndef EASYFIRST_DATA_SETS_TEXT_TABLE_H
#define EASYFIRST_DATA_SETS_TEXT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct TextTable { /* zero-initialize */
    char *bytes;           /* [byte_count], all texts, each terminated */
    size_t byte_count, byte_capacity;
    size_t *begins; /* [count] */
    size_t count, begin_capacity;
    int32_t *slots; /* [slot_count], a power of two: numbers, -1 where free */
    size_t slot_count;
} TextTable;

/* The number of a text, which is added if it is new, with *fresh (may be NULL) true. Errors: out of
 * memory, or more than 2^31 - 1 texts. */
int text_table_add(TextTable *table, const char *text, int32_t *number, bool *fresh, Error *err);

/* The number of a text, or -1. */
int32_t text_table_find(const TextTable *table, const char *text);

/* The text with a number in [0, count); valid until the next text is added. */
static inline const char *text_table_get(const TextTable *table, int32_t number) {
    return table->bytes + table->begins[number];
}

void text_table_free(TextTable *table);

#endif
