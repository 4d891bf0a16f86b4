#include "data/files/text_space.h"

#include <stdbool.h>

/* Bytes of the white space character at text[0]; 0 if it is not one. Besides ASCII's: U+0085,
 * U+00A0, U+1680, U+2000..200B, U+2028, U+2029, U+202F, U+205F, U+3000, U+FEFF. */
static size_t space_at(const char *text, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    if (size == 0) return 0;
    if (s[0] == ' ' || (s[0] >= 0x09 && s[0] <= 0x0D) || (s[0] >= 0x1C && s[0] <= 0x1F)) return 1;
    if (size < 2 || s[0] < 0xC2) return 0;
    if (s[0] == 0xC2) return s[1] == 0x85 || s[1] == 0xA0 ? 2 : 0;
    if (size < 3 || s[0] < 0xE1) return 0;
    unsigned c = (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
    bool space = c == 0x1680 || (c >= 0x2000 && c <= 0x200B) || c == 0x2028 || c == 0x2029 ||
                 c == 0x202F || c == 0x205F || c == 0x3000 || c == 0xFEFF;
    return space && s[0] <= 0xEF ? 3 : 0;
}

size_t text_space_begin(const char *text, size_t size) {
    size_t begin = 0;
    while (begin < size) { /* an empty text may be NULL */
        size_t length = space_at(text + begin, size - begin);
        if (!length) break;
        begin += length;
    }
    return begin;
}

size_t text_space_end(const char *text, size_t size) {
    size_t end = size;
    for (;;) {
        size_t length = 0;
        for (size_t back = 1; back <= 3 && back <= end && !length; back++)
            if (space_at(text + end - back, back) == back) length = back;
        if (!length) return size - end;
        end -= length;
    }
}
