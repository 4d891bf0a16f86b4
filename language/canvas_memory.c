#include "language/canvas_memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t canvas_hash(int request, const int32_t *tokens, int length) {
    uint64_t hash = (uint64_t)(uint32_t)request << 32 | (uint32_t)length;
    for (int i = 0; i < length; i++) {
        /* An odd multiplier loses nothing; the shift brings the high, well-mixed half down, which
         * is where the slot number is taken from. */
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return hash;
}

int canvas_memory_take(CanvasMemory *memory, size_t canvases, size_t cells, Error *err) {
    *memory = (CanvasMemory){.capacity = canvases, .cells = cells};
    /* At most half of the slots are ever taken, so a search always ends, and soon. */
    size_t slots = 16, bytes, total = 0;
    bool fits = canvases <= SIZE_MAX / 8;
    while (fits && slots < 2 * canvases) slots *= 2;
    memory->slot_mask = slots - 1;
    fits = fits && !__builtin_mul_overflow(slots, sizeof *memory->slots, &total) &&
           !__builtin_mul_overflow(canvases, sizeof *memory->entries, &bytes) &&
           !__builtin_add_overflow(total, bytes, &total) &&
           !__builtin_mul_overflow(cells, sizeof *memory->tokens + sizeof *memory->proposals,
                                   &bytes) &&
           !__builtin_add_overflow(total, bytes, &total) && total <= PTRDIFF_MAX;
    if (!fits)
        return error_set(err,
                         "decoding: remembering %zu canvases needs more memory than can be "
                         "addressed; decode fewer answers at a time",
                         canvases);
    memory->entries = malloc((canvases + 1) * sizeof *memory->entries);
    memory->tokens = malloc((cells + 1) * sizeof *memory->tokens);
    memory->proposals = malloc((cells + 1) * sizeof *memory->proposals);
    memory->slots = calloc(slots, sizeof *memory->slots);
    if (memory->entries && memory->tokens && memory->proposals && memory->slots) return 0;
    canvas_memory_free(memory);
    return error_set(err,
                     "decoding: no memory for the canvases (%zu MiB); decode fewer answers at a "
                     "time",
                     total >> 20);
}

void canvas_memory_free(CanvasMemory *memory) {
    free(memory->entries);
    free(memory->tokens);
    free(memory->proposals);
    free(memory->slots);
    *memory = (CanvasMemory){0};
}

size_t canvas_memory_add(CanvasMemory *memory, int request, const int32_t *tokens, int length) {
    assert(memory->count < memory->capacity && memory->cells - memory->used >= (size_t)length);
    memory->entries[memory->count] =
        (CanvasEntry){.start = memory->used, .request = request, .length = length};
    memcpy(memory->tokens + memory->used, tokens, (size_t)length * sizeof *tokens);
    memory->used += (size_t)length;
    return memory->count++;
}

size_t canvas_memory_find(CanvasMemory *memory, int request, const int32_t *tokens, int length,
                          bool *fresh) {
    uint64_t hash = canvas_hash(request, tokens, length);
    size_t slot = hash & memory->slot_mask;
    for (; memory->slots[slot]; slot = (slot + 1) & memory->slot_mask) {
        const CanvasEntry *entry = &memory->entries[memory->slots[slot] - 1];
        if (entry->hash == hash && entry->request == request && entry->length == length &&
            memcmp(memory->tokens + entry->start, tokens, (size_t)length * sizeof *tokens) == 0) {
            *fresh = false;
            return memory->slots[slot] - 1;
        }
    }
    size_t index = canvas_memory_add(memory, request, tokens, length);
    memory->entries[index].hash = hash;
    memory->slots[slot] = index + 1;
    *fresh = true;
    return index;
}

void canvas_memory_rewind(CanvasMemory *memory) {
    memory->count = memory->used = 0;
}
