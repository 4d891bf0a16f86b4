/* ngrams.c - see ngrams.h. */
#include <stdlib.h>
#include <string.h>

#include "data/metrics/ngrams.h"

/* The finalizer of splitmix64: every input bit affects every output bit. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- Words. ---- */

void words_free(Words *words) {
    free(words->items);
    free(words->slots);
    free(words->bytes);
    *words = (Words){0};
}

static uint64_t hash_bytes(const unsigned char *bytes, size_t size) {
    uint64_t hash = size;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t part;
        memcpy(&part, bytes, 8);
        hash = mix(hash ^ part) + 0x9e3779b97f4a7c15u;
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes, size);
    return mix(hash ^ rest);
}

/* Room for one more word. */
static int words_grow(Words *words, size_t size, Error *err) {
    if (words->count >= UINT32_MAX)
        return error_set(err, "more than %u different words", UINT32_MAX);
    if (words->bytes_size - words->bytes_used < size) {
        size_t bytes_size = 2 * (words->bytes_size + size) + 4096;
        char *bytes = bytes_size < size ? NULL : realloc(words->bytes, bytes_size);
        if (!bytes) return error_set(err, "out of memory for %zu words", words->count);
        words->bytes = bytes;
        words->bytes_size = bytes_size;
    }
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? 2 * words->capacity : 1024;
        Word *items = realloc(words->items, capacity * sizeof *items);
        if (!items) return error_set(err, "out of memory for %zu words", words->count);
        words->items = items;
        words->capacity = capacity;
    }
    if (2 * (words->count + 1) <= words->slot_count) return 0;
    size_t slot_count = words->slot_count ? 2 * words->slot_count : 4096;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots) return error_set(err, "out of memory for %zu words", words->count);
    for (size_t i = 0; i < words->count; i++) {
        size_t at = words->items[i].hash & (slot_count - 1);
        while (slots[at]) at = (at + 1) & (slot_count - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(words->slots);
    words->slots = slots;
    words->slot_count = slot_count;
    return 0;
}

int words_number(Words *words, const void *bytes, size_t size, uint32_t *number, Error *err) {
    TRY(words_grow(words, size, err));
    uint64_t hash = hash_bytes(bytes, size);
    size_t at = hash & (words->slot_count - 1);
    for (; words->slots[at]; at = (at + 1) & (words->slot_count - 1)) {
        const Word *word = &words->items[words->slots[at] - 1];
        if (word->hash != hash || word->size != size ||
            memcmp(words->bytes + word->offset, bytes, size))
            continue;
        *number = words->slots[at];
        return 0;
    }
    memcpy(words->bytes + words->bytes_used, bytes, size);
    words->items[words->count++] = (Word){hash, words->bytes_used, size};
    words->bytes_used += size;
    *number = words->slots[at] = (uint32_t)words->count;
    return 0;
}

int words_number_all(Words *words, const Codepoints *text, Codepoints *numbers, Error *err) {
    numbers->count = 0;
    for (size_t begin, end = 0; codepoints_next_word(text, &begin, &end);) {
        uint32_t number;
        TRY(words_number(words, text->items + begin, (end - begin) * sizeof *text->items, &number,
                         err));
        TRY(codepoints_append(numbers, number, err));
    }
    return 0;
}

/* ---- N-grams. ---- */

void grams_free(Grams *grams) {
    free(grams->slots);
    *grams = (Grams){0};
}

int grams_begin(Grams *grams, size_t most, Error *err) {
    if (most > SIZE_MAX / sizeof(GramSlot) / 4)
        return error_set(err, "out of memory for %zu n-grams", most);
    if (2 * most > grams->slot_count || grams->generation == UINT32_MAX || !grams->slots) {
        size_t slot_count = 1024;
        while (slot_count < 2 * most) slot_count *= 2;
        grams_free(grams);
        if (!(grams->slots = calloc(slot_count, sizeof *grams->slots)))
            return error_set(err, "out of memory for %zu n-grams", most);
        grams->slot_count = slot_count;
    }
    grams->generation++;
    return 0;
}

static GramSlot *grams_slot(Grams *grams, const uint32_t *items, int n, int bits) {
    uint64_t halves[2] = {0};
    int in_half = 64 / bits;
    for (int i = 0; i < n; i++) {
        uint64_t *half = &halves[i >= in_half];
        *half = *half << bits | items[i];
    }
    size_t at = mix(halves[0] ^ mix(halves[1] + 0x9e3779b97f4a7c15u)) & (grams->slot_count - 1);
    for (;; at = (at + 1) & (grams->slot_count - 1)) {
        GramSlot *slot = &grams->slots[at];
        if (slot->generation != grams->generation) {
            *slot =
                (GramSlot){.high = halves[0], .low = halves[1], .generation = grams->generation};
            return slot;
        }
        if (slot->high == halves[0] && slot->low == halves[1]) return slot;
    }
}

void grams_add_reference(Grams *grams, const Codepoints *items, int n, int bits, int reference) {
    for (int64_t i = 0; i < gram_count(items->count, n); i++) {
        GramSlot *slot = grams_slot(grams, items->items + i, n, bits);
        if (slot->reference != reference) slot->reference = reference, slot->here = 0;
        if (++slot->here > slot->most) slot->most = slot->here;
    }
}

int64_t grams_match(Grams *grams, const Codepoints *items, int n, int bits) {
    int64_t match = 0;
    for (int64_t i = 0; i < gram_count(items->count, n); i++) {
        GramSlot *slot = grams_slot(grams, items->items + i, n, bits);
        match += ++slot->hypothesis <= slot->most;
    }
    return match;
}
