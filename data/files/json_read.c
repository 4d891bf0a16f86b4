#include "data/files/json_read.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/file_window.h"
#include "data/files/json_memory.h"

/* Bytes that jansson allocates for each character of a text, measured on 64-bit glibc and rounded
 * up: an array or object with its first table; a number with its slot in a table; a string, or a
 * member's name, half at each of its quotes. */
enum { ARRAY_COST = 160, OBJECT_COST = 256, VALUE_COST = 48, NAME_COST = 24, QUOTE_COST = 40 };

JsonWeight json_weigh(const char *text, size_t size) {
    JsonWeight weight = {.memory = size + VALUE_COST};
    size_t depth = 0;
    for (size_t i = 0; i < size; i++) {
        switch (text[i]) {
        case '"': /* to its end */
            weight.memory += 2 * QUOTE_COST;
            for (i++; i < size && text[i] != '"'; i++) i += text[i] == '\\';
            break;
        case '[':
        case '{':
            weight.memory += text[i] == '[' ? ARRAY_COST : OBJECT_COST;
            if (++depth > weight.depth) weight.depth = depth;
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            weight.memory += VALUE_COST;
            break;
        case ':':
            weight.memory += NAME_COST;
            break;
        default:
            break;
        }
    }
    return weight;
}

bool json_too_heavy(const char *text, size_t text_size, size_t memory, char *why, size_t size) {
    JsonWeight weight = json_weigh(text, text_size);
    if (!memory) memory = JSON_MEMORY_MOST;
    if (weight.depth > JSON_DEPTH_MOST) {
        snprintf(why, size, "JSON nested %zu levels deep; at most %d are read", weight.depth,
                 JSON_DEPTH_MOST);
        return true;
    }
    if (weight.memory <= memory) return false;
    snprintf(why, size,
             "JSON whose values would take up to %zu MiB of memory; at most %zu MiB are allowed "
             "here",
             (weight.memory >> 20) + 1, memory >> 20);
    return true;
}

int json_read_text(json_t **json, const char *text, size_t size, size_t flags, size_t memory,
                   const char *path, Error *err) {
    char why[160];
    json_error_t where;
    *json = NULL;
    const char *kind = file_kind_hint(text, size);
    size_t mark = size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    text += mark, size -= mark;
    if (json_too_heavy(text, size, memory, why, sizeof why))
        return error_set(err, "%s: %s", path, why);
    *json = json_loadb_whole(text, size, flags, &where);
    if (*json) return 0;
    if (json_error_code(&where) == json_error_out_of_memory)
        return error_set(err, "%s: out of memory for its JSON", path);
    if (kind) return error_set(err, "%s: expected JSON, but this is %s", path, kind);
    return error_set(err, "%s: line %d, column %d: %s", path, where.line, where.column, where.text);
}

int json_read_file(json_t **json, const char *path, size_t most, size_t flags, size_t memory,
                   Error *err) {
    int64_t size;
    *json = NULL;
    if (!most) most = JSON_TEXT_MOST;
    int fd = file_open_input(path, NULL, &size, err);
    if (fd < 0) return -1;
    char *text = NULL;
    int status = 0;
    if ((uint64_t)size > most)
        status =
            error_set(err, "%s: %lld bytes, at most %zu expected", path, (long long)size, most);
    if (status == 0 && !(text = malloc((size_t)size + 1)))
        status = error_set(err, "%s: out of memory for %lld bytes", path, (long long)size);
    if (status == 0) status = file_read_at(fd, path, text, (size_t)size, 0, err);
    if (status == 0) status = json_read_text(json, text, (size_t)size, flags, memory, path, err);
    free(text);
    close(fd);
    return status;
}
