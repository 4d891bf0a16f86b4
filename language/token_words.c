/* token_words.c - see token_words.h. */
#include "language/token_words.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 15, WORDS_MOST = SLOTS / 2 };

struct TokenWord {
    uint32_t hash, start, first; /* of the word, where its text and its ids begin */
    uint16_t size, count;        /* size 0: a free slot */
};

/* Eight bytes at a time: words are short, and most of the time goes into the multiplications. */
size_t token_hash(const char *bytes, size_t size) {
    uint64_t hash = size * 0x9E3779B97F4A7C15u, part;
    for (; size >= 8; bytes += 8, size -= 8) {
        memcpy(&part, bytes, 8);
        hash = (hash ^ part) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    part = 0;
    for (size_t i = 0; i < size; i++) part |= (uint64_t)(unsigned char)bytes[i] << 8 * i;
    hash = (hash ^ part) * 0xD6E8FEB86659FD93u;
    return (size_t)(hash ^ hash >> 32);
}

static TokenWord *slot_of(const TokenWords *words, const char *bytes, size_t size, size_t hash) {
    TokenWord *slot = &words->slots[hash & (SLOTS - 1)];
    while (slot->size) {
        if (slot->hash == (uint32_t)hash && slot->size == size &&
            memcmp(words->text.bytes + slot->start, bytes, size) == 0)
            break;
        if (++slot == words->slots + SLOTS) slot = words->slots;
    }
    return slot;
}

int token_words_find(const TokenWords *words, const char *bytes, size_t size, Ids *out, bool *found,
                     Error *err) {
    *found = false;
    if (!words->slots || size > TOKEN_WORD_LONGEST) return 0;
    const TokenWord *word = slot_of(words, bytes, size, token_hash(bytes, size));
    if (!word->size) return 0;
    *found = true;
    return ids_append(out, words->ids.ids + word->first, word->count, err);
}

int token_words_keep(TokenWords *words, const char *bytes, size_t size, const int32_t *ids,
                     size_t count, Error *err) {
    if (size == 0 || size > TOKEN_WORD_LONGEST) return 0;
    if (!words->slots) words->slots = calloc(SLOTS, sizeof *words->slots);
    if (!words->slots) return error_set(err, "out of memory for a cache of words");
    if (words->count == WORDS_MOST) {
        memset(words->slots, 0, SLOTS * sizeof *words->slots);
        words->count = words->text.size = words->ids.count = 0;
    }
    size_t hash = token_hash(bytes, size);
    TokenWord *word = slot_of(words, bytes, size, hash);
    if (word->size) return 0;
    size_t start = words->text.size, first = words->ids.count;
    TRY(token_text_append(&words->text, bytes, size, err));
    TRY(ids_append(&words->ids, ids, count, err));
    *word = (TokenWord){(uint32_t)hash, (uint32_t)start, (uint32_t)first, (uint16_t)size,
                        (uint16_t)count};
    words->count++;
    return 0;
}

void token_words_free(TokenWords *words) {
    free(words->slots);
    token_text_free(&words->text);
    ids_free(&words->ids);
    *words = (TokenWords){0};
}
