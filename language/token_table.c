/* token_table.c - see token_table.h. */
#include "language/token_table.h"

#include <stdlib.h>
#include <string.h>

#include "language/token_words.h"

/* The slot of a string, or the free one where it belongs. */
static size_t slot_of(const TokenTable *table, const char *bytes, size_t size) {
    size_t slot = token_hash(bytes, size) & (table->slot_count - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->slot_count - 1)) {
        int32_t id = table->slots[slot] - 1;
        if (table->sizes[id] == size &&
            memcmp(table->text.bytes + table->starts[id], bytes, size) == 0)
            break;
    }
    return slot;
}

static int table_rehash(TokenTable *table, Error *err) {
    size_t old_count = table->slot_count, count = old_count ? 2 * old_count : 1024;
    int32_t *old = table->slots, *slots = calloc(count, sizeof *slots);
    if (!slots) return error_set(err, "out of memory for a vocabulary of %zu tokens", table->count);
    table->slots = slots;
    table->slot_count = count;
    for (size_t i = 0; i < old_count; i++) {
        if (!old[i]) continue;
        int32_t id = old[i] - 1;
        table->slots[slot_of(table, table->text.bytes + table->starts[id], table->sizes[id])] =
            old[i];
    }
    free(old);
    return 0;
}

static int table_reach(TokenTable *table, int32_t id, Error *err) {
    if (id >= table->capacity) {
        int32_t capacity = table->capacity ? table->capacity : 1024;
        while (capacity <= id) capacity *= 2;
        size_t *starts = realloc(table->starts, (size_t)capacity * sizeof *starts);
        if (starts) table->starts = starts;
        uint32_t *sizes = realloc(table->sizes, (size_t)capacity * sizeof *sizes);
        if (sizes) table->sizes = sizes;
        if (!starts || !sizes) return error_set(err, "out of memory for %d tokens", capacity);
        table->capacity = capacity;
    }
    while (table->limit <= id) {
        table->starts[table->limit] = SIZE_MAX;
        table->sizes[table->limit++] = 0;
    }
    return 0;
}

int token_table_add(TokenTable *table, const char *bytes, size_t size, int64_t id, Error *err) {
    if (id < 0 || id > TOKEN_ID_MOST)
        return error_set(err, "token \"%.60s\" has the id %lld, expected 0 to %d", bytes,
                         (long long)id, TOKEN_ID_MOST);
    if (size > 1 << 20) return error_set(err, "a token of %zu bytes, expected at most 1 MiB", size);
    TRY(table_reach(table, (int32_t)id, err));
    if (2 * (table->count + 1) > table->slot_count) TRY(table_rehash(table, err));
    size_t start = table->text.size;
    TRY(token_text_append(&table->text, bytes, size, err));
    TRY(token_text_append(&table->text, "", 1, err));
    size_t slot = slot_of(table, bytes, size);
    if (!table->slots[slot]) table->count++;
    if (table->starts[id] !=
        SIZE_MAX) { /* the older string keeps its slot only if it is the same */
        size_t old = slot_of(table, table->text.bytes + table->starts[id], table->sizes[id]);
        if (table->slots[old] == (int32_t)id + 1 && old != slot)
            return error_set(err, "two tokens, \"%.60s\" and \"%.60s\", have the id %lld",
                             table->text.bytes + table->starts[id], bytes, (long long)id);
    }
    table->slots[slot] = (int32_t)id + 1;
    table->starts[id] = start;
    table->sizes[id] = (uint32_t)size;
    return 0;
}

void token_table_free(TokenTable *table) {
    token_text_free(&table->text);
    free(table->starts);
    free(table->sizes);
    free(table->slots);
    *table = (TokenTable){0};
}

int32_t token_table_id(const TokenTable *table, const char *bytes, size_t size) {
    if (table->slot_count == 0) return -1;
    return table->slots[slot_of(table, bytes, size)] - 1;
}

const char *token_table_text(const TokenTable *table, int32_t id, size_t *size) {
    if (id < 0 || id >= table->limit || table->starts[id] == SIZE_MAX) return NULL;
    if (size) *size = table->sizes[id];
    return table->text.bytes + table->starts[id];
}
