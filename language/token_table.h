/* token_table.h - a vocabulary: strings to ids and back, in one block of memory. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_TABLE_H
#define EASYFIRST_LANGUAGE_TOKEN_TABLE_H

#include <stdint.h>

#include "language/token_text.h"

/* Maximum id: a vocabulary has rows in the model, so that a larger one is a damaged file. */
enum { TOKEN_ID_MOST = (1 << 24) - 1 };

typedef struct TokenTable {
    TokenText text;    /* all strings, each with a terminating 0 */
    size_t *starts;    /* of an id's string, SIZE_MAX: none */
    uint32_t *sizes;   /* of an id's string */
    int32_t limit;     /* the highest id + 1 */
    int32_t capacity;  /* of starts and sizes */
    int32_t *slots;    /* id + 1, 0: free */
    size_t slot_count; /* a power of two */
    size_t count;
} TokenTable;

/* Adds a string with its id. A string that exists gets the new id; the id's older string, if any,
 * stays known. Errors: an id beyond 0..TOKEN_ID_MOST. */
int token_table_add(TokenTable *table, const char *bytes, size_t size, int64_t id, Error *err);
void token_table_free(TokenTable *table);

int32_t token_table_id(const TokenTable *table, const char *bytes, size_t size); /* -1: none */

/* The string of an id, terminated, and its size (may be NULL); NULL if it has none. */
const char *token_table_text(const TokenTable *table, int32_t id, size_t *size);

#endif
