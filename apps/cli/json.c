#include "apps/cli/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/json_memory.h"
#include "kernels/clean_text.h"

json_t *json_text(const char *text) {
    json_t *json = json_string(text);
    if (json) return json;
    /* Not UTF-8: take it character by character, as far as each is whole. */
    size_t size = strlen(text), used = 0;
    char *clean = malloc(3 * size + 1);
    if (!clean) return NULL;
    while (*text) {
        size_t whole = utf8_next(text, NULL), bytes = whole ? whole : 3;
        memcpy(clean + used, whole ? text : "\xef\xbf\xbd", bytes);
        used += bytes;
        text += whole ? whole : 1;
    }
    json = json_stringn(clean, used);
    free(clean);
    return json;
}

json_t *json_score(double score) {
    return isfinite(score) ? json_real(score) : json_null();
}

/* A character of a string as JSON's escapes; returns how many bytes they are. */
static size_t escape(char *out, unsigned code) {
    if (code < 0x10000) return (size_t)sprintf(out, "\\u%04x", code);
    code -= 0x10000;
    return (size_t)sprintf(out, "\\u%04x\\u%04x", 0xd800 | code >> 10, 0xdc00 | (code & 0x3ff));
}

/* JSON allows controls beyond ASCII's in strings as they are; nowhere else in a line can
 * they be. */
static char *escape_controls(const char *line) {
    size_t size = strlen(line), used = 0, n;
    char *out = malloc(6 * size + 1); /* one byte (DEL) becomes six */
    unsigned code;
    for (const char *in = line; out && (n = utf8_next(in, &code)) > 0; in += n) {
        if (is_control_character(code))
            used += escape(out + used, code);
        else
            memcpy(out + used, in, n), used += n;
    }
    if (out) out[used] = 0;
    return out;
}

static bool has_controls(const char *line) {
    unsigned code;
    for (size_t n; (n = utf8_next(line, &code)) > 0; line += n)
        if (is_control_character(code)) return true;
    return false;
}

char *json_line(json_t *object, int digits) {
    char *line = object ? json_dumps_whole(object, JSON_REAL_PRECISION(digits)) : NULL;
    json_decref(object);
    if (!line || !has_controls(line)) return line;
    char *clean = escape_controls(line);
    free(line);
    return clean;
}

int json_print_line(json_t *object, int digits, Error *err) {
    char *line = json_line(object, digits);
    if (!line) return error_set(err, "out of memory for a line of JSON");
    puts(line);
    free(line);
    return 0;
}
