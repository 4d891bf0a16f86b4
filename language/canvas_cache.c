#include "language/canvas_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t canvas_hash(int request, const int32_t *tokens, int length) {
    uint64_t hash = (uint64_t)(uint32_t)request << 32 | (uint32_t)length;
    for (int i = 0; i < length; i++) {
        /* An odd multiplier is a bijection; the shift moves the well-mixed high half down, from
         * which the slot is taken. */
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return hash;
}

int canvas_cache_take(CanvasCache *cache, size_t canvases, size_t cells, Error *err) {
    *cache = (CanvasCache){.capacity = canvases, .cells = cells};
    /* At most half of the slots are ever used, so a probe always ends, and soon. */
    size_t slots = 16, bytes, total = 0;
    bool fits = canvases <= SIZE_MAX / 8;
    while (fits && slots < 2 * canvases) slots *= 2;
    cache->slot_mask = slots - 1;
    fits =
        fits && !__builtin_mul_overflow(slots, sizeof *cache->slots, &total) &&
        !__builtin_mul_overflow(canvases, sizeof *cache->entries, &bytes) &&
        !__builtin_add_overflow(total, bytes, &total) &&
        !__builtin_mul_overflow(cells, sizeof *cache->tokens + sizeof *cache->proposals, &bytes) &&
        !__builtin_add_overflow(total, bytes, &total) && total <= PTRDIFF_MAX;
    if (!fits)
        return error_set(err,
                         "decoding: caching %zu canvases needs more memory than can be "
                         "addressed; decode fewer answers at a time",
                         canvases);
    cache->entries = malloc((canvases + 1) * sizeof *cache->entries);
    cache->tokens = malloc((cells + 1) * sizeof *cache->tokens);
    cache->proposals = malloc((cells + 1) * sizeof *cache->proposals);
    cache->slots = calloc(slots, sizeof *cache->slots);
    if (cache->entries && cache->tokens && cache->proposals && cache->slots) return 0;
    canvas_cache_free(cache);
    return error_set(
        err,
        "decoding: out of memory for the canvases (%zu MiB); decode fewer answers at a "
        "time",
        total >> 20);
}

void canvas_cache_free(CanvasCache *cache) {
    free(cache->entries);
    free(cache->tokens);
    free(cache->proposals);
    free(cache->slots);
    *cache = (CanvasCache){0};
}

size_t canvas_cache_add(CanvasCache *cache, int request, const int32_t *tokens, int length) {
    assert(cache->count < cache->capacity && cache->cells - cache->used >= (size_t)length);
    cache->entries[cache->count] =
        (CanvasEntry){.start = cache->used, .request = request, .length = length};
    memcpy(cache->tokens + cache->used, tokens, (size_t)length * sizeof *tokens);
    cache->used += (size_t)length;
    return cache->count++;
}

size_t canvas_cache_find(CanvasCache *cache, int request, const int32_t *tokens, int length,
                         bool *fresh) {
    uint64_t hash = canvas_hash(request, tokens, length);
    size_t slot = hash & cache->slot_mask;
    for (; cache->slots[slot]; slot = (slot + 1) & cache->slot_mask) {
        const CanvasEntry *entry = &cache->entries[cache->slots[slot] - 1];
        if (entry->hash == hash && entry->request == request && entry->length == length &&
            memcmp(cache->tokens + entry->start, tokens, (size_t)length * sizeof *tokens) == 0) {
            *fresh = false;
            return cache->slots[slot] - 1;
        }
    }
    size_t index = canvas_cache_add(cache, request, tokens, length);
    cache->entries[index].hash = hash;
    cache->slots[slot] = index + 1;
    *fresh = true;
    return index;
}

void canvas_cache_rewind(CanvasCache *cache) {
    cache->count = cache->used = 0;
}
