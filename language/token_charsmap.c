/* token_charsmap.c - see token_charsmap.h. */
#include "language/token_charsmap.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unigbrk.h>

static uint32_t unit_at(const TokenCharsmap *map, uint32_t index) {
    const unsigned char *u = map->units + 4 * (size_t)index;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

static bool unit_has_leaf(uint32_t unit) {
    return unit >> 8 & 1;
}

/* Whether every transition of a unit stays in the array, whose blocks of 256 are complete, and every
 * leaf points into the strings. */
static bool charsmap_sound(const TokenCharsmap *map) {
    for (uint32_t i = 0; i < map->unit_count; i++) {
        uint32_t unit = unit_at(map, i);
        if (unit >> 31) continue; /* a leaf */
        uint32_t base = i ^ unit_offset(unit);
        if (base >= map->unit_count) return false;
        if (unit_has_leaf(unit) && (unit_at(map, base) & 0x7FFFFFFF) >= map->strings_size)
            return false;
    }
    return true;
}

static bool charsmap_split(TokenCharsmap *map, size_t size) {
    if (size <= 4 || map->bytes[size - 1] != 0) return false;
    map->units = map->bytes;
    uint32_t array = unit_at(map, 0);
    if (!array || array % 1024 != 0 || array >= size - 4) return false;
    map->units = map->bytes + 4;
    map->unit_count = array / 4;
    map->strings = (const char *)map->units + array;
    map->strings_size = size - 4 - array;
    return charsmap_sound(map);
}

int token_charsmap_open(TokenCharsmap *map, const char *base64, Error *err) {
    size_t size = strlen(base64);
    *map = (TokenCharsmap){0};
    if (size == 0) return 0;
    if (size % 4 != 0 || size > 1 << 28)
        return error_set(err, "precompiled_charsmap: %zu characters are not base64", size);
    map->bytes = malloc(size / 4 * 3);
    if (!map->bytes) return error_set(err, "out of memory for a normalizer of %zu bytes", size);
    int decoded = EVP_DecodeBlock(map->bytes, (const unsigned char *)base64, (int)size);
    size_t padding = base64[size - 1] != '=' ? 0 : base64[size - 2] != '=' ? 1 : 2;
    if (decoded < (int)padding || !charsmap_split(map, (size_t)decoded - padding)) {
        token_charsmap_close(map);
        return error_set(err, "precompiled_charsmap: the table is damaged; fetch the file again");
    }
    return 0;
}

void token_charsmap_close(TokenCharsmap *map) {
    free(map->bytes);
    *map = (TokenCharsmap){0};
}

/* The replacement of the shortest rule that the text begins with, NULL if there is none. */
static const char *charsmap_find(const TokenCharsmap *map, const char *text, size_t size) {
    uint32_t unit = unit_at(map, 0), node = unit_offset(unit);
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte == 0 || node >= map->unit_count) return NULL;
        node ^= byte;
        unit = unit_at(map, node);
        if ((unit & 0x800000FF) != byte) return NULL;
        node ^= unit_offset(unit);
        if (unit_has_leaf(unit)) return map->strings + (unit_at(map, node) & 0x7FFFFFFF);
    }
    return NULL;
}

static int replace(const char *with, const char *text, size_t size, TokenText *out, Error *err) {
    return with ? token_text_append(out, with, strlen(with), err)
                : token_text_append(out, text, size, err);
}

static int grapheme_apply(const TokenCharsmap *map, const char *text, size_t size, TokenText *out,
                          Error *err) {
    const char *whole = size < 6 ? charsmap_find(map, text, size) : NULL;
    if (whole) return token_text_append(out, whole, strlen(whole), err);
    for (size_t length; size; text += length, size -= length) {
        token_character(text, &length);
        TRY(replace(charsmap_find(map, text, length), text, length, out, err));
    }
    return 0;
}

/* The grapheme at the start of a text. Most are a character before another ASCII one. */
static size_t grapheme_size(const char *text, size_t size) {
    size_t length;
    token_character(text, &length);
    if (length == 1 && (size == 1 || ((text[1] & 0x80) == 0 && text[0] != '\r'))) return 1;
    const uint8_t *start = (const uint8_t *)text, *end = start + size;
    const uint8_t *next = u8_grapheme_next(start, end);
    return next ? (size_t)(next - start) : size;
}

int token_charsmap_apply(const TokenCharsmap *map, const char *text, size_t size, TokenText *out,
                         Error *err) {
    if (!map->bytes) return token_text_append(out, text, size, err);
    while (size) {
        size_t length = grapheme_size(text, size);
        TRY(grapheme_apply(map, text, length, out, err));
        text += length, size -= length;
    }
    return 0;
}
