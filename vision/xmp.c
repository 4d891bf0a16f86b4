/* xmp.c - reads one property of an XMP packet. It is searched in the text, as in Pillow, so that
 * the packet need not be well-formed XML; unlike Pillow's pattern, this supports single quotes,
 * white space, comments and other prefixes of the TIFF namespace. */
#include <string.h>

#include "vision/formats.h"

/* The position of a scan. Reads at or beyond the end give 0. */
typedef struct Text {
    const char *at, *end;
} Text;

static char text_peek(const Text *t) {
    return t->at < t->end ? *t->at : 0;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || (unsigned char)c >= 0x80;
}

static void skip_space(Text *t) {
    while (is_space(text_peek(t))) t->at++;
}

static bool take(Text *t, char c) {
    if (t->at >= t->end || *t->at != c) return false;
    t->at++;
    return true;
}

/* `="6"` or `>6<` after the property's name; 0 if it is neither, 1 if the value is not 1 to 8. */
static int property_value(Text t) {
    skip_space(&t);
    char close = '<';
    if (take(&t, '=')) {
        skip_space(&t);
        close = text_peek(&t);
        if (close != '"' && close != '\'') return 0;
        t.at++;
    } else if (!take(&t, '>')) {
        return 0;
    }
    skip_space(&t);
    int value = text_peek(&t) - '0';
    if (t.at < t.end) t.at++;
    skip_space(&t);
    return value >= 1 && value <= 8 && text_peek(&t) == close ? value : 1;
}

/* Whether the packet binds the prefix to the TIFF namespace. "tiff" needs no binding: other readers
 * accept packets without it, too. */
static bool is_tiff_prefix(const char *prefix, size_t length, const char *text, size_t size) {
    static const char namespace[] = "http://ns.adobe.com/tiff/1.0/";
    if (length == 4 && memcmp(prefix, "tiff", 4) == 0) return true;
    const char *end = text + size;
    for (const char *p = text; (p = memmem(p, (size_t)(end - p), "xmlns:", 6));) {
        p += 6;
        if ((size_t)(end - p) <= length || memcmp(p, prefix, length) != 0) continue;
        Text t = {p + length, end};
        skip_space(&t);
        if (!take(&t, '=')) continue;
        skip_space(&t);
        if (!take(&t, '"') && !take(&t, '\'')) continue;
        if ((size_t)(t.end - t.at) >= sizeof namespace - 1 &&
            memcmp(t.at, namespace, sizeof namespace - 1) == 0)
            return true;
    }
    return false;
}

/* The next occurrence of `word` after *from outside of comments; *from moves past it. */
static const char *next_word(const char **from, const char *end, const char *word) {
    size_t length = strlen(word);
    for (const char *found = NULL;;) {
        if (!found || found < *from) found = memmem(*from, (size_t)(end - *from), word, length);
        if (!found) return NULL;
        const char *comment = memmem(*from, (size_t)(found - *from), "<!--", 4);
        if (!comment) {
            *from = found + length;
            return found;
        }
        const char *close = memmem(comment + 4, (size_t)(end - comment - 4), "-->", 3);
        if (!close) return NULL;
        *from = close + 3;
    }
}

int xmp_orientation(const uint8_t *text, size_t size) {
    enum { MOST_PLACES = 100 }; /* with other prefixes: each searches the packet for its binding */
    static const char name[] = ":Orientation";
    const char *begin = (const char *)text, *end = begin + size, *from = begin;
    for (int places = 0; places < MOST_PLACES; places++) {
        const char *found = next_word(&from, end, name);
        if (!found) return 0;
        const char *prefix = found;
        while (prefix > begin && is_name(prefix[-1])) prefix--;
        if (prefix == found) continue;
        int value = property_value((Text){from, end});
        if (value && is_tiff_prefix(prefix, (size_t)(found - prefix), begin, size)) return value;
    }
    return 0;
}
