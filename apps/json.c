#include "apps/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text) {
    json_t *json = json_string(text);
    if (json) return json;
    /* Not UTF-8: take it character by character, as far as each is whole. */
    size_t size = strlen(text), used = 0;
    char *clean = malloc(3 * size + 1);
    if (!clean) return NULL;
    while (*text) {
        int whole = 0;
        for (int n = 1; n <= 4 && !whole && (n == 1 || text[n - 1]); n++) {
            json_t *one = json_stringn(text, (size_t)n);
            if (one) whole = n;
            json_decref(one);
        }
        memcpy(clean + used, whole ? text : "\xef\xbf\xbd", whole ? (size_t)whole : 3);
        used += whole ? (size_t)whole : 3;
        text += whole ? whole : 1;
    }
    json = json_stringn(clean, used);
    free(clean);
    return json;
}

json_t *json_score(double score) {
    return isfinite(score) ? json_real(score) : json_null();
}

int json_print_line(json_t *object, int digits, Error *err) {
    char *line = object ? json_dumps(object, JSON_REAL_PRECISION(digits)) : NULL;
    json_decref(object);
    if (!line) return error_set(err, "out of memory for a line of JSON");
    puts(line);
    free(line);
    return 0;
}
