#include "data/sets/text_table.h"

#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"

/* FNV-1a, its high bits folded down: slots are chosen by the low ones. */
static size_t hash_text(const char *text) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
    return (size_t)(hash ^ hash >> 32);
}

/* The slot of the text, or the free one for it. There is always a free one. */
static size_t find_slot(const TextTable *t, const char *text) {
    size_t slot = hash_text(text) & (t->slot_count - 1);
    while (t->slots[slot] >= 0 && strcmp(text_table_get(t, t->slots[slot]), text))
        slot = (slot + 1) & (t->slot_count - 1);
    return slot;
}

/* At most three of four slots are used. */
static int grow_slots(TextTable *t, Error *err) {
    size_t count = t->slot_count ? 2 * t->slot_count : 64;
    int32_t *slots = malloc(count * sizeof *slots), *old = t->slots;
    if (!slots) return error_set(err, "out of memory for a table of %zu texts", t->count);
    memset(slots, 0xFF, count * sizeof *slots);
    t->slots = slots, t->slot_count = count;
    for (size_t i = 0; i < t->count; i++)
        slots[find_slot(t, text_table_get(t, (int32_t)i))] = (int32_t)i;
    free(old);
    return 0;
}

static int append(TextTable *t, const char *text, Error *err) {
    size_t size = strlen(text) + 1;
    if (t->count == INT32_MAX) return error_set(err, "more than %d different texts", INT32_MAX);
    if (t->count == t->begin_capacity) {
        size_t *grown = array_grow(t->begins, &t->begin_capacity, sizeof *grown);
        if (!grown) return error_set(err, "out of memory for a table of %zu texts", t->count);
        t->begins = grown;
    }
    while (t->byte_capacity - t->byte_count < size) {
        char *grown = array_grow(t->bytes, &t->byte_capacity, 1);
        if (!grown) return error_set(err, "out of memory for a table of %zu texts", t->count);
        t->bytes = grown;
    }
    memcpy(t->bytes + t->byte_count, text, size);
    t->begins[t->count++] = t->byte_count;
    t->byte_count += size;
    return 0;
}

int text_table_add(TextTable *table, const char *text, int32_t *number, bool *fresh, Error *err) {
    if (fresh) *fresh = false;
    if (4 * (table->count + 1) > 3 * table->slot_count) TRY(grow_slots(table, err));
    size_t slot = find_slot(table, text);
    *number = table->slots[slot];
    if (*number >= 0) return 0;
    TRY(append(table, text, err));
    *number = table->slots[slot] = (int32_t)(table->count - 1);
    if (fresh) *fresh = true;
    return 0;
}

int32_t text_table_find(const TextTable *table, const char *text) {
    return table->slot_count ? table->slots[find_slot(table, text)] : -1;
}

void text_table_free(TextTable *table) {
    free(table->bytes), free(table->begins), free(table->slots);
    *table = (TextTable){0};
}
