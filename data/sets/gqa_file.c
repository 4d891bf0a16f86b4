#include "data/sets/gqa_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/json_read.h"
#include "data/sets/pieces.h"
#include "data/files/json_memory.h"

/* The index of the next byte that is not white space, or `size`. */
static size_t skip_space(const char *bytes, size_t at, size_t size) {
    while (at < size && strchr(" \t\r\n", bytes[at]) && bytes[at]) at++;
    return at;
}

/* The kind, if the window shows it, and whether its first member is a list; false: more of the file
 * is needed. */
static bool find_kind(const FileWindow *w, size_t begin, GqaFileKind *kind, bool *wrapped) {
    size_t at = skip_space(w->bytes, begin, w->size);
    *kind = GQA_FILE_EMPTY;
    if (at == w->size) return false;
    *kind = w->bytes[at] == '[' ? GQA_FILE_ARRAY : GQA_FILE_OTHER;
    if (w->bytes[at] != '{') return true;
    *kind = GQA_FILE_OBJECT; /* a truncated file: the walk will report where */
    at = skip_space(w->bytes, at + 1, w->size);
    if (at == w->size) return false;
    if (w->bytes[at++] != '"') return true;
    while (at < w->size && w->bytes[at] != '"') at += w->bytes[at] == '\\' ? 2 : 1;
    at = skip_space(w->bytes, at + 1, w->size);
    if (at >= w->size) return false;
    if (w->bytes[at] != ':') return true;
    at = skip_space(w->bytes, at + 1, w->size);
    if (at == w->size) return false;
    if (w->bytes[at] != '{') *kind = GQA_FILE_LINES;
    *wrapped = w->bytes[at] == '[';
    return true;
}

int gqa_file_open(GqaFile *file, const char *path, Error *err) {
    int status = 0;
    *file = (GqaFile){.window = {.path = path}};
    file->window.fd = file_open_input(
        path, "GQA's files are read more than once: save them to a file", NULL, err);
    if (file->window.fd < 0) return -1;
    for (bool known = false; status == 0 && !known && !file->window.end;) {
        status = window_more(&file->window, 0, err);
        if (status) break;
        bool mark = file->window.size >= 3 && !memcmp(file->window.bytes, "\xEF\xBB\xBF", 3);
        file->begin = mark ? 3 : 0;
        known = find_kind(&file->window, file->begin, &file->kind, &file->wrapped);
    }
    if (status) gqa_file_close(file);
    return status;
}

void gqa_file_close(GqaFile *file) {
    window_free(&file->window);
    if (file->window.fd >= 0) close(file->window.fd);
    file->window.fd = -1;
}

const char *gqa_file_hint(const GqaFile *file) {
    if (file->kind == GQA_FILE_EMPTY) return NULL;
    const char *kind = file_kind_of(file->window.fd);
    if (kind || !file->wrapped) return kind;
    return "a JSON object with the list in it, as {\"data\": [...]}; take the list out (jq "
           "'.data')";
}

static int walk_lines(GqaFile *file, JsonVisit visit, void *user, Error *err) {
    Pieces pieces = {.window = &file->window, .at = file->begin};
    Piece piece;
    char why[160];
    for (;;) {
        TRY(pieces_next(&pieces, &piece, err));
        if (!piece.text) return 0;
        json_error_t error = {.text = ""};
        bool heavy = piece.too_long || json_too_heavy(piece.text, piece.size, 0, why, sizeof why);
        json_t *value =
            heavy ? NULL : json_loadb_whole(piece.text, piece.size, JSON_ELEMENT_FLAGS, &error);
        if (!value && !heavy &&
            (json_error_code(&error) == json_error_out_of_memory || !error.text[0]))
            return error_set(err, "%s: out of memory for line %lld", file->window.path,
                             (long long)piece.line);
        if (piece.too_long) snprintf(why, sizeof why, "more than %d MiB", WINDOW_MOST >> 20);
        JsonElement element = {.value = value,
                               .why = value   ? NULL
                                      : heavy ? why
                                              : error.text,
                               .number = piece.line,
                               .offset = piece.offset,
                               .size = piece.size};
        int status = visit(user, &element, err);
        json_decref(value);
        if (status) return status < 0 ? -1 : 0;
    }
}

int gqa_file_walk(const char *path, unsigned kinds, const char *what, JsonVisit visit, void *user,
                  Error *err) {
    static const char *const names[] = {"empty", "a JSON array", "a JSON object of objects",
                                        "an object a line", "no JSON"};
    GqaFile file;
    int status = 0;
    TRY(gqa_file_open(&file, path, err));
    const char *hint = gqa_file_hint(&file);
    if (!(kinds & 1u << file.kind) && hint)
        status = error_set(err, "%s: expected %s, but this is %s", path, what, hint);
    else if (!(kinds & 1u << file.kind))
        status = error_set(err, "%s: it is %s; expected %s", path, names[file.kind], what);
    else if (file.kind == GQA_FILE_ARRAY)
        status = json_array_walk(&file.window, file.begin, visit, user, err);
    else if (file.kind == GQA_FILE_OBJECT)
        status = json_object_walk(&file.window, file.begin, visit, user, err);
    else
        status = walk_lines(&file, visit, user, err);
    gqa_file_close(&file);
    return status;
}

const char *gqa_member(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

const char *gqa_id_of(const json_t *value, char digits[24]) {
    const char *text = json_string_value(value);
    if (text) return *text && strlen(text) == json_string_length(value) ? text : NULL;
    if (!json_is_integer(value)) return NULL;
    snprintf(digits, 24, "%lld", (long long)json_integer_value(value));
    return digits;
}
