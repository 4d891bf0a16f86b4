/* token_text.c - see token_text.h. */
#include "language/token_text.h"

#include <stdlib.h>
#include <string.h>

static int text_reserve(TokenText *text, size_t more, Error *err) {
    size_t needed;
    if (__builtin_add_overflow(text->size, more, &needed) || needed > SIZE_MAX / 4)
        return error_set(err, "text: %zu bytes more than %zu are more than memory can hold", more,
                         text->size);
    if (needed <= text->capacity) return 0;
    size_t capacity = 2 * text->capacity > needed ? 2 * text->capacity : needed;
    if (capacity < 64) capacity = 64;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) return error_set(err, "text: out of memory for %zu bytes", capacity);
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}

int token_text_append(TokenText *text, const char *bytes, size_t size, Error *err) {
    if (size == 0) return 0;
    TRY(text_reserve(text, size, err));
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    return 0;
}

int token_text_append_character(TokenText *text, uint32_t character, Error *err) {
    char bytes[4];
    return token_text_append(text, bytes, token_character_write(bytes, character), err);
}

int token_text_set(TokenText *text, const char *bytes, size_t size, Error *err) {
    text->size = 0;
    return token_text_append(text, bytes, size, err);
}

void token_text_free(TokenText *text) {
    free(text->bytes);
    *text = (TokenText){0};
}

uint32_t token_character(const char *bytes, size_t *length) {
    const unsigned char *s = (const unsigned char *)bytes;
    *length = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (*length == 1) return s[0];
    uint32_t c = s[0] & (0xFFu >> (*length + 1));
    for (size_t i = 1; i < *length; i++) c = c << 6 | (s[i] & 0x3F);
    return c;
}

size_t token_character_write(char out[4], uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> length & 0xF0) | c);
    return length;
}

bool token_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* ---- Pieces. ---- */

static int pieces_push(TokenPieces *pieces, TokenPiece piece, Error *err) {
    if (!pieces->text.bytes) TRY(text_reserve(&pieces->text, 1, err)); /* pieces point into it */
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity ? 2 * pieces->capacity : 64;
        TokenPiece *list = realloc(pieces->list, capacity * sizeof *list);
        if (!list) return error_set(err, "text: out of memory for %zu pieces", capacity);
        pieces->list = list;
        pieces->capacity = capacity;
    }
    pieces->list[pieces->count++] = piece;
    return 0;
}

int token_pieces_close(TokenPieces *pieces, size_t start, bool first, Error *err) {
    size_t size = pieces->text.size - start;
    if (size == 0) return 0;
    return pieces_push(pieces, (TokenPiece){start, size, -1, first}, err);
}

int token_pieces_end(TokenPieces *pieces, size_t start, Error *err) {
    return pieces_push(pieces, (TokenPiece){start, pieces->text.size - start, -1, false}, err);
}

int token_pieces_add(TokenPieces *pieces, const char *bytes, size_t size, bool first, Error *err) {
    size_t start = pieces->text.size;
    TRY(token_text_append(&pieces->text, bytes, size, err));
    return token_pieces_close(pieces, start, first, err);
}

int token_pieces_add_id(TokenPieces *pieces, int32_t id, Error *err) {
    return pieces_push(pieces, (TokenPiece){pieces->text.size, 0, id, false}, err);
}

void token_pieces_clear(TokenPieces *pieces) {
    pieces->text.size = 0;
    pieces->count = 0;
}

void token_pieces_free(TokenPieces *pieces) {
    token_text_free(&pieces->text);
    free(pieces->list);
    *pieces = (TokenPieces){0};
}

void token_pieces_swap(TokenPieces *a, TokenPieces *b) {
    TokenPieces c = *a;
    *a = *b;
    *b = c;
}

/* ---- Bytes as characters. ---- */

static bool byte_is_itself(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

/* The others, 0..0x20, 0x7F..0xA0 and 0xAD, are U+0100 and the following in this order. */
uint32_t token_byte_character(unsigned char byte) {
    if (byte_is_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + byte - 0x7F;
    return 0x143;
}

int token_byte_of(uint32_t c) {
    if (c < 0x100) return byte_is_itself(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

int token_text_append_mapped(TokenText *text, const char *bytes, size_t size, Error *err) {
    TRY(text_reserve(text, 2 * size, err));
    char *to = text->bytes + text->size;
    for (size_t i = 0; i < size; i++)
        to += token_character_write(to, token_byte_character((unsigned char)bytes[i]));
    text->size = (size_t)(to - text->bytes);
    return 0;
}

bool token_step(const char *bytes, size_t size, size_t *step) {
    const unsigned char *s = (const unsigned char *)bytes;
    *step = 1;
    if (s[0] < 0x80) return true;
    size_t length = s[0] < 0xC2 || s[0] > 0xF4 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    for (size_t i = 1; i < length; i++) {
        unsigned low = 0x80, high = 0xBF;
        if (i == 1) {
            if (s[0] == 0xE0) low = 0xA0;
            if (s[0] == 0xED) high = 0x9F;
            if (s[0] == 0xF0) low = 0x90;
            if (s[0] == 0xF4) high = 0x8F;
        }
        *step = i;
        if (i >= size || s[i] < low || s[i] > high) return false;
    }
    *step = length ? length : 1;
    return length > 0;
}

int token_text_append_lossy(TokenText *text, const char *bytes, size_t size, Error *err) {
    for (size_t i = 0, length; i < size; i += length) {
        if (token_step(bytes + i, size - i, &length))
            TRY(token_text_append(text, bytes + i, length, err));
        else
            TRY(token_text_append_character(text, 0xFFFD, err));
    }
    return 0;
}
