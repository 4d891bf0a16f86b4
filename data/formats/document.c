#include "data/formats/document.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/file_window.h"
#include "data/files/json_read.h"

enum { HEAD = 1 << 16 };

/* The string at text[0] == '"': its end, after the closing quote; NULL: it does not end. */
static const char *string_end(const char *text) {
    for (text++; *text && *text != '"'; text++)
        if (*text == '\\' && !*++text) return NULL;
    return *text ? text + 1 : NULL;
}

/* Whether a name of the outermost object has an array as its value. */
static bool has_array(const char *text, const char *name) {
    size_t size = strlen(name);
    int depth = 0;
    while (*text) {
        if (*text == '{' || *text == '[') depth++;
        if (*text == '}' || *text == ']') depth--;
        if (depth <= 0) return false;
        if (*text != '"') {
            text++;
            continue;
        }
        const char *end = string_end(text);
        if (!end) return false;
        if (depth == 1 && (size_t)(end - text - 2) == size && !strncmp(text + 1, name, size)) {
            const char *after = end + strspn(end, " \t\r\n");
            if (*after == ':' && after[1 + strspn(after + 1, " \t\r\n")] == '[') return true;
        }
        text = end;
    }
    return false;
}

bool document_has(const FormatInput *input, const char *member, const char *inside) {
    char *head = malloc(HEAD + 1);
    ssize_t got = head ? pread(input->fd, head, HEAD, 0) : -1;
    bool found = got > 0;
    if (found) {
        head[got] = 0;
        const char *text = strchr(head, '{');
        found = text && has_array(text, member) && strstr(text, inside);
    }
    free(head);
    return found;
}

json_t *document_read(const FormatInput *input, Error *err) {
    struct stat info;
    json_t *json = NULL;
    if (fstat(input->fd, &info) || info.st_size > DOCUMENT_MOST) {
        error_set(err, "%s: more than %d MiB in one JSON object; split it", input->path,
                  DOCUMENT_MOST >> 20);
        return NULL;
    }
    size_t size = (size_t)info.st_size;
    char *text = malloc(size + 1);
    if (!text)
        error_set(err, "%s: out of memory", input->path);
    else if (file_read_at(input->fd, input->path, text, size, 0, err) == 0)
        (void)json_read_text(&json, text, size, JSON_REJECT_DUPLICATES, DOCUMENT_MEMORY,
                             input->path, err);
    free(text);
    return json;
}
