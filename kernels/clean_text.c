#include "kernels/clean_text.h"

#include <stdbool.h>
#include <string.h>

size_t utf8_next(const char *text, unsigned *code) {
    static const unsigned least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    size_t size = p[0] < 0x80       ? p[0] != 0
                  : p[0] >> 5 == 6  ? 2
                  : p[0] >> 4 == 14 ? 3
                  : p[0] >> 3 == 30 ? 4
                                    : 0;
    unsigned c = size < 2 ? p[0] : p[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if (p[i] >> 6 != 2) return 0; /* the terminating 0 is none either */
        c = c << 6 | (p[i] & 0x3f);
    }
    if (!size || c < least[size] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    if (code) *code = c;
    return size;
}

static bool is_control(unsigned c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void clean_text(char *text) {
    char *out = text;
    for (const char *in = text; *in;) {
        unsigned code;
        size_t size = utf8_next(in, &code);
        if (!size || is_control(code)) {
            *out++ = '?';
        } else {
            memmove(out, in, size);
            out += size;
        }
        in += size ? size : 1;
    }
    *out = 0;
}
