#include "data/files/json_array.h"

#include <stdlib.h>
#include <string.h>

#include "data/files/json_read.h"
#include "data/files/json_memory.h"

/* Bytes of text whose tree takes at most some MiB: not weighed. */
enum { LIGHT = 1 << 16 };

typedef struct Walk {
    FileWindow *window;
    size_t at;          /* index of the next byte in the window */
    int64_t line;       /* of that byte, from 1 */
    int64_t line_begin; /* the offset in the file at which its line begins */
    int64_t number;     /* of the element, from 1 */
    bool object;        /* an object's members, not an array's elements */
    char *key;          /* of the member, on the heap */
} Walk;

static const char *kind_of(const Walk *walk) {
    return walk->object ? "object" : "array";
}

static char closing(const Walk *walk) {
    return walk->object ? '}' : ']';
}

/* State of the search for an element's end. */
typedef struct Scan {
    int64_t depth;        /* open brackets */
    bool text, escaped;   /* inside a string; after a backslash in it */
    char close;           /* of the array or object around the element */
    int64_t line, begins; /* lines and the last line's begin, as in Walk */
} Scan;

static JsonFaultKind fault_kind(const json_error_t *error) {
    switch (json_error_code(error)) {
    case json_error_out_of_memory:
        return JSON_FAULT_MEMORY;
    case json_error_stack_overflow:
        return JSON_FAULT_LARGE;
    case json_error_invalid_utf8:
    case json_error_null_character:
    case json_error_null_byte_in_key:
    case json_error_numeric_overflow:
    case json_error_duplicate_key:
        return JSON_FAULT_CONTENTS;
    default: /* half a surrogate pair has no error code */
        return strncmp(error->text, "invalid Unicode", 15) ? JSON_FAULT_SYNTAX
                                                           : JSON_FAULT_CONTENTS;
    }
}

json_t *json_element(const char *text, size_t size, JsonFault *fault) {
    json_error_t error;
    *fault = (JsonFault){.kind = JSON_FAULT_LARGE};
    /* A short one always has a small tree. */
    if (size > LIGHT &&
        json_too_heavy(text, size, JSON_ELEMENT_MEMORY, fault->why, sizeof fault->why))
        return NULL;
    json_t *value = json_loadb_whole(text, size, JSON_ELEMENT_FLAGS, &error);
    *fault = (JsonFault){.kind = JSON_FAULT_NONE};
    if (value) return value;
    *fault = (JsonFault){.kind = fault_kind(&error),
                         .position = error.position,
                         .cut = json_error_code(&error) == json_error_premature_end_of_input};
    snprintf(fault->why, sizeof fault->why, "%s", error.text);
    return NULL;
}

const char *json_fault_name(const JsonFault *fault) {
    if (fault->kind == JSON_FAULT_LARGE) return "too large";
    if (fault->kind != JSON_FAULT_CONTENTS) return "not JSON";
    return strstr(fault->why, "duplicate") ? "repeated key" : "not text";
}

/* "<file>: line 3, column 7 (byte 95): ", for a byte of the window. */
static int error_at(const Walk *walk, size_t index, int64_t line, int64_t line_begin,
                    const char *what, Error *err) {
    int64_t offset = walk->window->offset + (int64_t)index;
    return error_set(err, "%s: line %lld, column %lld (byte %lld): %s", walk->window->path,
                     (long long)line, (long long)(offset - line_begin + 1), (long long)offset,
                     what);
}

static int error_here(const Walk *walk, const char *what, Error *err) {
    return error_at(walk, walk->at, walk->line, walk->line_begin, what, err);
}

/* The next byte that is not white space, not consumed; -1 at the file's end. */
static int next_byte(Walk *walk, int *byte, Error *err) {
    FileWindow *w = walk->window;
    for (;;) {
        for (; walk->at < w->size; walk->at++) {
            char c = w->bytes[walk->at];
            if (c == '\n') {
                walk->line++;
                walk->line_begin = w->offset + (int64_t)walk->at + 1;
            } else if (c != ' ' && c != '\t' && c != '\r') {
                *byte = (unsigned char)c;
                return 0;
            }
        }
        if (w->end) {
            *byte = -1;
            return 0;
        }
        TRY(window_more(w, walk->at, err));
        walk->at = 0;
    }
}

/* Scans the inside of a string from index i: returns the index after its closing quote, or
 * `size`. */
static size_t scan_text(Scan *scan, const char *bytes, size_t i, size_t size) {
    if (scan->escaped && i < size) i++, scan->escaped = false;
    for (; i < size; i++) {
        if (bytes[i] == '"') {
            scan->text = false;
            return i + 1;
        }
        if (bytes[i] == '\\' && ++i == size) scan->escaped = true;
    }
    return size;
}

/* Continues from index i; returns the index after the element's last byte, or SIZE_MAX if the
 * window ends first. A number or literal ends before a character that cannot belong to it; jansson
 * checks it. */
static size_t scan_element(Scan *scan, const FileWindow *w, size_t i) {
    while (i < w->size) {
        if (scan->text) {
            i = scan_text(scan, w->bytes, i, w->size);
            if (!scan->text && scan->depth == 0) return i;
            continue;
        }
        switch (w->bytes[i]) {
        case '"':
            scan->text = true;
            break;
        case '{':
        case '[':
            scan->depth++;
            break;
        case '}':
        case ']':
            if (scan->depth == 0) return w->bytes[i] == scan->close ? i : i + 1;
            if (--scan->depth == 0) return i + 1;
            break;
        case '\n':
            if (scan->depth == 0) return i;
            scan->line++;
            scan->begins = w->offset + (int64_t)i + 1;
            break;
        case ',':
        case ' ':
        case '\t':
        case '\r':
            if (scan->depth == 0) return i;
            break;
        default:
            break;
        }
        i++;
    }
    return SIZE_MAX;
}

/* Sets the error for a position in the element that begins at walk->at. */
static int malformed(const Walk *walk, const JsonFault *fault, size_t size, Error *err) {
    const char *bytes = walk->window->bytes + walk->at;
    size_t position = fault->position > 0 ? (size_t)fault->position - 1 : 0;
    int64_t line = walk->line, line_begin = walk->line_begin;
    if (position > size) position = size;
    for (size_t i = 0; i < position; i++)
        if (bytes[i] == '\n') {
            line++;
            line_begin = walk->window->offset + (int64_t)(walk->at + i) + 1;
        }
    char what[sizeof fault->why + 80];
    snprintf(what, sizeof what, "malformed JSON in element %lld: %s", (long long)walk->number,
             fault->why);
    return error_at(walk, walk->at + position, line, line_begin, what, err);
}

/* An element has no end in the file or within the window's limit. If something in it is malformed
 * (a missing quote, for example), that is reported instead. */
static int endless(const Walk *walk, bool file_ends, Error *err) {
    const FileWindow *w = walk->window;
    JsonFault fault;
    size_t size = w->size - walk->at;
    json_decref(json_element(w->bytes + walk->at, size, &fault));
    bool sound = fault.kind != JSON_FAULT_SYNTAX && fault.kind != JSON_FAULT_CONTENTS;
    if (!sound && !fault.cut && (size_t)fault.position < size)
        return malformed(walk, &fault, size, err);
    char what[160];
    if (file_ends)
        snprintf(what, sizeof what,
                 "the file ends in element %lld, which begins here: it is truncated; download it "
                 "again",
                 (long long)walk->number);
    else
        snprintf(what, sizeof what,
                 "element %lld begins here and has more than %d MiB: no record is as long",
                 (long long)walk->number, WINDOW_MOST >> 20);
    return error_here(walk, what, err);
}

/* Parses the element [at, end) of the window and visits it. */
static int visit_element(const Walk *walk, size_t end, JsonVisit visit, void *user, Error *err) {
    const FileWindow *w = walk->window;
    JsonFault fault;
    size_t size = end - walk->at;
    json_t *value = json_element(w->bytes + walk->at, size, &fault);
    if (fault.kind == JSON_FAULT_MEMORY)
        return error_set(err, "%s: out of memory for element %lld", w->path,
                         (long long)walk->number);
    if (fault.kind == JSON_FAULT_SYNTAX) return malformed(walk, &fault, size, err);
    JsonElement element = {.key = walk->key,
                           .value = value,
                           .why = value ? NULL : fault.why,
                           .kind = value ? NULL : json_fault_name(&fault),
                           .number = walk->number,
                           .offset = w->offset + (int64_t)walk->at,
                           .size = size};
    int status = visit(user, &element, err);
    json_decref(value);
    return status;
}

/* The end of the element, or of the name, that begins at walk->at. */
static int find_end(Walk *walk, Scan *scan, size_t *end, Error *err) {
    FileWindow *w = walk->window;
    size_t scanned = walk->at;
    *scan = (Scan){.close = closing(walk), .line = walk->line, .begins = walk->line_begin};
    while ((*end = scan_element(scan, w, scanned)) == SIZE_MAX) {
        if (w->end || w->size - walk->at > WINDOW_MOST) return endless(walk, w->end, err);
        scanned = w->size - walk->at;
        TRY(window_more(w, walk->at, err));
        walk->at = 0;
    }
    return 0;
}

/* A member's name, which begins at walk->at, and the colon: walk->at is then its value's begin. */
static int walk_key(Walk *walk, int byte, Error *err) {
    Scan scan;
    size_t end;
    json_error_t error;
    if (byte != '"')
        return error_here(walk, "malformed JSON: expected a member's name in quotes", err);
    TRY(find_end(walk, &scan, &end, err));
    json_t *name =
        json_loadb_whole(walk->window->bytes + walk->at, end - walk->at, JSON_DECODE_ANY, &error);
    if (!name && json_error_code(&error) != json_error_out_of_memory) {
        JsonFault fault = {.position = error.position};
        snprintf(fault.why, sizeof fault.why, "%s", error.text);
        return malformed(walk, &fault, end - walk->at, err);
    }
    free(walk->key);
    walk->key = name ? strdup(json_string_value(name)) : NULL;
    json_decref(name);
    if (!walk->key) return error_set(err, "%s: out of memory", walk->window->path);
    walk->at = end;
    TRY(next_byte(walk, &byte, err));
    if (byte >= 0 && byte != ':')
        return error_here(walk, "malformed JSON: expected a colon after a member's name", err);
    walk->at += byte == ':';
    TRY(next_byte(walk, &byte, err));
    if (byte < 0)
        return error_here(walk, "the file ends inside the JSON object: it is truncated", err);
    if (byte == ',' || byte == '}')
        return error_here(walk, "malformed JSON: expected a value after the colon", err);
    return 0;
}

/* The element that begins at walk->at with this byte. */
static int walk_element(Walk *walk, int byte, JsonVisit visit, void *user, Error *err) {
    Scan scan;
    size_t end;
    walk->number++;
    if (walk->object) TRY(walk_key(walk, byte, err));
    TRY(find_end(walk, &scan, &end, err));
    int status = visit_element(walk, end, visit, user, err);
    walk->at = end;
    walk->line = scan.line;
    walk->line_begin = scan.begins;
    return status;
}

static int expect_end(Walk *walk, Error *err) {
    int byte;
    char what[80];
    walk->at++;
    TRY(next_byte(walk, &byte, err));
    if (byte < 0) return 0;
    snprintf(what, sizeof what, "text after the end of the JSON %s", kind_of(walk));
    return error_here(walk, what, err);
}

/* Error for anything but a comma or the closing bracket after an element. */
static int error_behind(const Walk *walk, int byte, Error *err) {
    char what[120];
    if (byte < 0)
        snprintf(what, sizeof what,
                 "the file ends after element %lld of a JSON %s, without its closing %c: it is "
                 "truncated",
                 (long long)walk->number, kind_of(walk), closing(walk));
    else
        snprintf(what, sizeof what, "malformed JSON: expected a comma or %c after element %lld",
                 closing(walk), (long long)walk->number);
    return error_here(walk, what, err);
}

static int walk_all(Walk *walk, JsonVisit visit, void *user, Error *err) {
    int byte;
    char what[80], close = closing(walk), open = walk->object ? '{' : '[';
    TRY(next_byte(walk, &byte, err));
    snprintf(what, sizeof what, "not a JSON %s, which begins with %c", kind_of(walk), open);
    if (byte != open) return error_here(walk, what, err);
    walk->at++;
    TRY(next_byte(walk, &byte, err));
    if (byte == close) return expect_end(walk, err);
    for (;;) {
        snprintf(what, sizeof what, "the file ends inside the JSON %s: it is truncated",
                 kind_of(walk));
        if (byte < 0) return error_here(walk, what, err);
        int status = walk_element(walk, byte, visit, user, err);
        if (status) return status < 0 ? -1 : 0;
        TRY(next_byte(walk, &byte, err));
        if (byte == close) return expect_end(walk, err);
        if (byte != ',') return error_behind(walk, byte, err);
        walk->at++;
        TRY(next_byte(walk, &byte, err));
        if (byte == ',' || byte == close)
            return error_here(walk, "malformed JSON: expected an element after the comma", err);
    }
}

int json_array_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err) {
    Walk walk = {.window = window, .at = begin, .line = 1};
    return walk_all(&walk, visit, user, err);
}

int json_object_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err) {
    Walk walk = {.window = window, .at = begin, .line = 1, .object = true};
    int status = walk_all(&walk, visit, user, err);
    free(walk.key);
    return status;
}
