#include "apps/reproduce/expand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/places.h"

int expansion_places(Expansion *e, const char *runs, const char *files, Error *err) {
    e->runs = strdup(runs);
    e->files = strdup(files);
    /* The folder that has `model`: in the tree data/bundled, else share/easyfirst itself. */
    e->bundled = place_find("bundled", "", "model/easyfirst.json");
    e->causal = place_find("causal", "causal", "");
    if (!e->runs || !e->files) return error_set(err, "out of memory for paths");
    return 0;
}

void expansion_free(Expansion *e) {
    free(e->runs), free(e->files), free(e->bundled), free(e->causal);
    *e = (Expansion){0};
}

const char *expand_size(const Expansion *e) {
    return e->size ? e->size : "";
}

static const char *value_of(const Expansion *e, const char *name) {
    if (!strcmp(name, "size")) return expand_size(e);
    if (!strcmp(name, "runs")) return e->runs;
    if (!strcmp(name, "files")) return e->files;
    if (!strcmp(name, "bundled")) return e->bundled;
    if (!strcmp(name, "causal")) return e->causal;
    const json_t *value = json_object_get(e->vars, name);
    if (json_is_object(value)) value = json_object_get(value, expand_size(e));
    return json_string_value(value);
}

/* A brace with a name of small letters and dashes in it: its length, 0 for other text. */
static size_t placeholder(const char *text) {
    if (*text != '{') return 0;
    const size_t size = strspn(text + 1, "abcdefghijklmnopqrstuvwxyz-");
    return size && text[size + 1] == '}' ? size + 2 : 0;
}

char *expand_text(const Expansion *e, const char *text, Error *err) {
    char *out = NULL, name[64];
    size_t size = 0;
    FILE *to = open_memstream(&out, &size);
    int status = to ? 0 : error_set(err, "out of memory for a text");
    for (const char *at = text; to && *at && status == 0;) {
        const size_t length = placeholder(at);
        if (!length) { /* "{{" is one brace */
            fputc(*at, to);
            at += (*at == '{' || *at == '}') && at[1] == *at ? 2 : 1;
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)length - 2, at + 1);
        const char *value = value_of(e, name);
        if (!value)
            status = error_set(err, "{%s} in \"%.200s\" has no value%s%s", name, text,
                               expand_size(e)[0] ? " for the size " : "", expand_size(e));
        else
            fputs(value, to);
        at += length;
    }
    if (to && fclose(to) != 0 && status == 0) status = error_set(err, "out of memory for a text");
    if (status == 0) return out;
    free(out);
    return NULL;
}
