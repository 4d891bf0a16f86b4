/* unicode.c - see unicode.h. */
#include <stdlib.h>
#include <string.h>

#include <unicase.h>
#include <unictype.h>
#include <unistr.h>

#include "data/metrics/unicode.h"

void codepoints_free(Codepoints *text) {
    free(text->items);
    *text = (Codepoints){0};
}

static int codepoints_reserve(Codepoints *text, size_t count, Error *err) {
    if (count <= text->capacity) return 0;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < count && capacity <= SIZE_MAX / 2) capacity *= 2;
    uint32_t *items = capacity < count || capacity > SIZE_MAX / sizeof *items
                          ? NULL
                          : realloc(text->items, capacity * sizeof *items);
    if (!items) return error_set(err, "out of memory for a text of %zu characters", count);
    text->items = items;
    text->capacity = capacity;
    return 0;
}

int codepoints_append(Codepoints *text, uint32_t c, Error *err) {
    if (text->count == text->capacity) TRY(codepoints_reserve(text, text->count + 1, err));
    text->items[text->count++] = c;
    return 0;
}

/* The character at s, which is not at its end; *size is its bytes. The first byte restricts only
 * the second byte (no overlong forms, no surrogates, nothing above U+10FFFF); an invalid sequence
 * becomes one U+FFFD for its valid beginning. The terminating 0 is never a continuation. */
static uint32_t decode_one(const unsigned char *s, size_t *size) {
    *size = 1;
    unsigned char first = s[0], least = 0x80, most = 0xbf;
    if (first < 0x80) return first;
    if (first < 0xc2 || first > 0xf4) return 0xfffd;
    size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0xe0) least = 0xa0;
    if (first == 0xed) most = 0x9f;
    if (first == 0xf0) least = 0x90;
    if (first == 0xf4) most = 0x8f;
    uint32_t c = first & (0xffu >> (length + 1));
    for (; *size < length; ++*size) {
        if (s[*size] < least || s[*size] > most) return 0xfffd;
        c = c << 6 | (s[*size] & 0x3fu);
        least = 0x80, most = 0xbf;
    }
    return c;
}

int codepoints_decode(Codepoints *text, const char *utf8, Error *err) {
    text->count = 0;
    TRY(codepoints_reserve(text, strlen(utf8), err));
    size_t size;
    for (const unsigned char *s = (const unsigned char *)utf8; *s; s += size)
        text->items[text->count++] = decode_one(s, &size);
    return 0;
}

int codepoints_encode(const Codepoints *text, char **utf8, Error *err) {
    if (text->count > (SIZE_MAX - 1) / 4 || !(*utf8 = malloc(4 * text->count + 1)))
        return error_set(err, "out of memory for a text of %zu characters", text->count);
    uint8_t *out = (uint8_t *)*utf8;
    for (size_t i = 0; i < text->count; i++) out += u8_uctomb(out, text->items[i], 4);
    *out = 0;
    return 0;
}

/* Whether a capital sigma at i ends a word: the last character before it that is not ignored has
 * case, and the next one after it has none. */
static bool is_final_sigma(const Codepoints *text, size_t i) {
    size_t before = i, after = i + 1;
    while (before > 0 && uc_is_property_case_ignorable(text->items[before - 1])) before--;
    if (before == 0 || !uc_is_property_cased(text->items[before - 1])) return false;
    while (after < text->count && uc_is_property_case_ignorable(text->items[after])) after++;
    return after == text->count || !uc_is_property_cased(text->items[after]);
}

int codepoints_lower(Codepoints *text, Error *err) {
    size_t dotted = 0, count = text->count;
    for (size_t i = 0; i < count; i++) {
        uint32_t c = text->items[i];
        if (c < 0x80)
            text->items[i] = c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c;
        else if (c == 0x3a3)
            text->items[i] = is_final_sigma(text, i) ? 0x3c2 : 0x3c3;
        else if (c == 0x130)
            dotted++;
        else
            text->items[i] = uc_tolower(c);
    }
    if (!dotted) return 0;
    /* Only the I with a dot becomes two characters: from the end, in place. */
    TRY(codepoints_reserve(text, count + dotted, err));
    text->count += dotted;
    for (size_t to = text->count; count-- > 0;) {
        uint32_t c = text->items[count];
        if (c == 0x130) text->items[--to] = 0x307;
        text->items[--to] = c == 0x130 ? 'i' : c;
    }
    return 0;
}

bool codepoint_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool codepoint_is_punctuation(uint32_t c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

void codepoints_strip_end(Codepoints *text) {
    while (text->count && codepoint_is_space(text->items[text->count - 1])) text->count--;
}

void codepoints_strip(Codepoints *text) {
    codepoints_strip_end(text);
    size_t begin = 0;
    while (begin < text->count && codepoint_is_space(text->items[begin])) begin++;
    if (begin == 0) return;
    text->count -= begin;
    memmove(text->items, text->items + begin, text->count * sizeof *text->items);
}

bool codepoints_next_word(const Codepoints *text, size_t *begin, size_t *end) {
    size_t i = *end;
    while (i < text->count && codepoint_is_space(text->items[i])) i++;
    *begin = i;
    while (i < text->count && !codepoint_is_space(text->items[i])) i++;
    *end = i;
    return *begin < i;
}
