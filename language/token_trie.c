/* token_trie.c - see token_trie.h. */
#include "language/token_trie.h"

#include <stdlib.h>

static size_t slot_of(const TokenTrie *trie, uint64_t key) {
    size_t slot = (size_t)((key * 0x9E3779B97F4A7C15u) >> 24) & (trie->slot_count - 1);
    while (trie->slots[slot] && trie->slots[slot] != key)
        slot = (slot + 1) & (trie->slot_count - 1);
    return slot;
}

/* Room for one more node: the table is at most half full. */
static int trie_grow(TokenTrie *trie, Error *err) {
    if (trie->node_count == trie->node_capacity) {
        uint32_t capacity = trie->node_capacity ? 2 * trie->node_capacity : 256;
        int32_t *values =
            capacity > 1u << 30 ? NULL : realloc(trie->values, capacity * sizeof *values);
        if (!values) return error_set(err, "out of memory for a vocabulary of %u nodes", capacity);
        trie->values = values;
        trie->node_capacity = capacity;
    }
    if (2 * ((size_t)trie->node_count + 1) <= trie->slot_count) return 0;
    TokenTrie grown = {.slot_count = trie->slot_count ? 2 * trie->slot_count : 512};
    grown.slots = calloc(grown.slot_count, sizeof *grown.slots);
    grown.children = malloc(grown.slot_count * sizeof *grown.children);
    if (!grown.slots || !grown.children) {
        free(grown.slots), free(grown.children);
        return error_set(err, "out of memory for a vocabulary of %u nodes", trie->node_count);
    }
    for (size_t i = 0; i < trie->slot_count; i++) {
        if (!trie->slots[i]) continue;
        size_t slot = slot_of(&grown, trie->slots[i]);
        grown.slots[slot] = trie->slots[i];
        grown.children[slot] = trie->children[i];
    }
    free(trie->slots), free(trie->children);
    trie->slots = grown.slots;
    trie->children = grown.children;
    trie->slot_count = grown.slot_count;
    return 0;
}

static uint64_t trie_key(uint32_t node, unsigned char byte) {
    return ((uint64_t)node << 8 | byte) + 1;
}

int token_trie_add(TokenTrie *trie, const char *bytes, size_t size, int32_t value, Error *err) {
    if (trie->node_count == 0) {
        TRY(trie_grow(trie, err));
        trie->values[trie->node_count++] = TRIE_NONE;
    }
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t child = token_trie_step(trie, node, (unsigned char)bytes[i]);
        if (!child) {
            TRY(trie_grow(trie, err));
            child = trie->node_count++;
            trie->values[child] = TRIE_NONE;
            size_t slot = slot_of(trie, trie_key(node, (unsigned char)bytes[i]));
            trie->slots[slot] = trie_key(node, (unsigned char)bytes[i]);
            trie->children[slot] = child;
        }
        node = child;
    }
    if (size) trie->values[node] = value;
    return 0;
}

void token_trie_free(TokenTrie *trie) {
    free(trie->slots);
    free(trie->children);
    free(trie->values);
    *trie = (TokenTrie){0};
}

uint32_t token_trie_step(const TokenTrie *trie, uint32_t node, unsigned char byte) {
    if (trie->slot_count == 0) return 0;
    size_t slot = slot_of(trie, trie_key(node, byte));
    return trie->slots[slot] ? trie->children[slot] : 0;
}

int32_t token_trie_longest(const TokenTrie *trie, const char *bytes, size_t size, size_t *length) {
    int32_t best = TRIE_NONE;
    uint32_t node = 0;
    *length = 0;
    for (size_t i = 0; i < size; i++) {
        node = token_trie_step(trie, node, (unsigned char)bytes[i]);
        if (!node) break;
        if (trie->values[node] == TRIE_NONE) continue;
        best = trie->values[node];
        *length = i + 1;
    }
    return best;
}
