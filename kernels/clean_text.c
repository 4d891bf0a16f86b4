#include "kernels/clean_text.h"

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
        if (p[i] >> 6 != 2) return 0; /* also the terminating 0 */
        c = c << 6 | (p[i] & 0x3f);
    }
    if (!size || c < least[size] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    if (code) *code = c;
    return size;
}

bool is_control_character(unsigned c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

static bool is_space(unsigned c) {
    return (c >= '\t' && c <= '\r') || c == 0x85 || c == 0x2028 || c == 0x2029;
}

size_t clean_character(char out[4], const char *text, size_t size, size_t *used) {
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    char one[5] = "";
    unsigned code;
    memcpy(one, text, size < 4 ? size : 4);
    size_t n = utf8_next(one, &code);
    *used = n ? n : 1;
    if (n && is_space(code)) return *out = ' ', 1;
    if (!n || is_control_character(code)) return memcpy(out, replacement, 3), 3;
    return memcpy(out, one, n), n;
}

void clean_text(char *text) {
    char *out = text;
    for (const char *in = text; *in;) {
        unsigned code;
        size_t size = utf8_next(in, &code);
        if (!size || is_control_character(code) || code == 0x200e || code == 0x200f) {
            *out++ = '?';
        } else {
            memmove(out, in, size);
            out += size;
        }
        in += size ? size : 1;
    }
    *out = 0;
}
