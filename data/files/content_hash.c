#include "data/files/content_hash.h"

#include <string.h>

/* Odd, so that multiplying by it is a bijection: 2^64 over the golden ratio, and a prime. */
#define MULTIPLIER 0x9E3779B97F4A7C15u
#define INCREMENT  0xD6E8FEB86659FD93u

static uint64_t mix(uint64_t state, uint64_t word) {
    state = (state ^ word) * MULTIPLIER;
    return (state << 29 | state >> 35) + INCREMENT;
}

static uint64_t word_of(const unsigned char *bytes, size_t size) {
    uint64_t word = 0;
    memcpy(&word, bytes, size);
    return word;
}

void content_hash_add(ContentHash *hash, const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    size_t had = hash->size % 8;
    hash->size += size;
    if (had) {
        size_t taken = 8 - had < size ? 8 - had : size;
        memcpy(hash->tail + had, at, taken);
        at += taken, size -= taken;
        if (had + taken < 8) return;
        hash->state = mix(hash->state, word_of(hash->tail, 8));
    }
    for (; size >= 8; at += 8, size -= 8) hash->state = mix(hash->state, word_of(at, 8));
    if (size) memcpy(hash->tail, at, size);
}

uint64_t content_hash_value(const ContentHash *hash) {
    uint64_t value = mix(hash->state, word_of(hash->tail, hash->size % 8));
    value = mix(value, hash->size);
    value ^= value >> 32;
    value *= MULTIPLIER;
    return value ^ value >> 29;
}
