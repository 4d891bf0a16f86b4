#include "data/sets/gqa_answers.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistr.h>

#include "data/sets/gqa_file.h"
#include "data/files/json_memory.h"

/* ---- Predictions. ---- */

typedef struct Walk {
    const char *path;
    GqaPredictionVisit visit;
    GqaAttentionVisit look;
    void *user;
    Skipped *skipped;
    bool lines;
} Walk;

static void add_bad(const Walk *w, const char *kind, const JsonElement *element, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));
static void add_bad(const Walk *w, const char *kind, const JsonElement *element, const char *format,
                    ...) {
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    skipped_add(w->skipped, kind, "%.150s: %s %lld: %s", w->path, w->lines ? "line" : "entry",
                (long long)element->number, what);
}

static int visit_prediction(void *user, const JsonElement *element, Error *err) {
    Walk *w = user;
    const char *id_key = w->lines ? "question_id" : "questionId";
    const char *text_key = w->lines ? "text" : "prediction";
    char digits[24];
    const char *id = gqa_id_of(json_object_get(element->value, id_key), digits);
    const char *text = gqa_member(element->value, text_key);
    if (!json_is_object(element->value)) {
        add_bad(w, "prediction that is not a JSON object", element, "%.120s",
                element->why ? element->why : "something else");
        return 0;
    }
    if (!id || !text) {
        add_bad(w, id ? "prediction without a text" : "prediction without an id", element,
                "\"%s\" is missing or not a string", id ? text_key : id_key);
        return 0;
    }
    return w->visit(w->user, id, text, w->lines, err);
}

int gqa_predictions_walk(const char *path, GqaPredictionVisit visit, void *user, Skipped *skipped,
                         Error *err) {
    GqaFile file;
    Walk walk = {.path = path, .visit = visit, .user = user, .skipped = skipped};
    TRY(gqa_file_open(&file, path, err));
    walk.lines = file.kind != GQA_FILE_ARRAY;
    gqa_file_close(&file);
    return gqa_file_walk(
        path, 1u << GQA_FILE_ARRAY | 1u << GQA_FILE_LINES | 1u << GQA_FILE_EMPTY,
        "[{\"questionId\": ..., \"prediction\": ...}] or lines of {\"question_id\": ..., "
        "\"text\": ...}",
        visit_prediction, &walk, err);
}

/* The text with invalid UTF-8 replaced by U+FFFD; NULL: out of memory. */
static char *clean_text(const char *text) {
    size_t size = strlen(text);
    uint8_t *clean = size < SIZE_MAX / 3 ? malloc(3 * size + 1) : NULL, *out = clean;
    const uint8_t *at = (const uint8_t *)text, *end = at + size;
    while (clean && at < end) {
        ucs4_t c; /* U+FFFD, 3 bytes, for one byte or more */
        at += u8_mbtouc(&c, at, (size_t)(end - at));
        out += u8_uctomb(out, c, 4);
    }
    if (clean) *out = 0;
    return (char *)clean;
}

/* Adds a member with invalid UTF-8 replaced; not 0: out of memory. */
static int set_text(json_t *object, const char *key, const char *text) {
    char *clean = clean_text(text);
    int failed = !clean || json_object_set_new(object, key, json_string(clean));
    free(clean);
    return failed;
}

char *gqa_answer_line(const char *id, const char *prompt, const char *text, const char *model) {
    json_t *object = json_object();
    int failed = !object || set_text(object, "question_id", id);
    if (!failed && prompt) failed = set_text(object, "prompt", prompt);
    if (!failed && text) failed = set_text(object, "text", text);
    if (!failed && model) failed = set_text(object, "model_id", model);
    char *line = failed ? NULL : json_dumps_whole(object, 0);
    json_decref(object);
    return line;
}

/* ---- Attention maps. ---- */

/* False if it is not 7 x 7 finite numbers. */
static bool take_map(const json_t *attention, double *map) {
    if (json_array_size(attention) != GQA_MAP_SIDE) return false;
    for (size_t x = 0; x < GQA_MAP_SIDE; x++) {
        const json_t *column = json_array_get(attention, x);
        if (json_array_size(column) != GQA_MAP_SIDE) return false;
        for (size_t y = 0; y < GQA_MAP_SIDE; y++) {
            const json_t *value = json_array_get(column, y);
            double *cell = &map[GQA_MAP_SIDE * x + y];
            *cell = json_number_value(value);
            if (!json_is_number(value) || !isfinite(*cell)) return false;
        }
    }
    return true;
}

static int visit_attention(void *user, const JsonElement *element, Error *err) {
    Walk *w = user;
    double map[GQA_MAP_CELLS];
    char digits[24];
    const char *id = gqa_id_of(json_object_get(element->value, "questionId"), digits);
    if (!json_is_object(element->value)) {
        add_bad(w, "attention that is not a JSON object", element, "%.120s",
                element->why ? element->why : "something else");
    } else if (!id) {
        add_bad(w, "attention without an id", element, "\"questionId\" is missing or not a string");
    } else if (!take_map(json_object_get(element->value, "attention"), map)) {
        add_bad(w, "attention of another form", element,
                "question %.80s: expected %d lists of %d numbers", id, GQA_MAP_SIDE, GQA_MAP_SIDE);
    } else {
        return w->look(w->user, id, map, err);
    }
    return 0;
}

int gqa_attentions_walk(const char *path, GqaAttentionVisit visit, void *user, Skipped *skipped,
                        Error *err) {
    Walk walk = {.path = path, .look = visit, .user = user, .skipped = skipped};
    return gqa_file_walk(path, 1u << GQA_FILE_ARRAY,
                         "[{\"questionId\": ..., \"attention\": [[...], ...]}]", visit_attention,
                         &walk, err);
}

/* ---- Official files, written. ---- */

enum { BUFFER = 1 << 16, DIGITS = 9 /* restore every float */ };

static int flush(GqaArrayWriter *w, Error *err) {
    size_t size = w->used;
    w->used = 0;
    return file_write_bytes(&w->file, w->buffer, size, err);
}

static int put(GqaArrayWriter *w, const char *text, Error *err) {
    for (size_t size = strlen(text); size > 0;) {
        size_t part = size < BUFFER - w->used ? size : BUFFER - w->used;
        memcpy(w->buffer + w->used, text, part);
        w->used += part, text += part, size -= part;
        if (w->used == BUFFER) TRY(flush(w, err));
    }
    return 0;
}

int gqa_array_begin(GqaArrayWriter *writer, const char *path, Error *err) {
    *writer = (GqaArrayWriter){.buffer = malloc(BUFFER)};
    if (!writer->buffer) return error_set(err, "%s: out of memory", path);
    int status = file_write_begin(&writer->file, path, 0, err);
    if (status) {
        free(writer->buffer);
        writer->buffer = NULL;
    }
    return status;
}

/* Writes one entry, which it owns (NULL: out of memory). */
static int put_entry(GqaArrayWriter *w, json_t *entry, Error *err) {
    char *text = entry ? json_dumps_whole(entry, JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(entry);
    if (!text) return error_set(err, "%s: out of memory for an entry", w->file.path);
    int status = put(w, w->count++ ? ",\n" : "[\n", err);
    if (status == 0) status = put(w, text, err);
    free(text);
    return status;
}

int gqa_array_prediction(GqaArrayWriter *writer, const char *id, const char *prediction,
                         Error *err) {
    json_t *entry = json_object();
    if (!entry || set_text(entry, "questionId", id) || set_text(entry, "prediction", prediction)) {
        json_decref(entry);
        entry = NULL;
    }
    return put_entry(writer, entry, err);
}

int gqa_array_attention(GqaArrayWriter *writer, const char *id, const float *map, Error *err) {
    for (int i = 0; i < GQA_MAP_CELLS; i++)
        if (!isfinite(map[i]))
            return error_set(err, "%s: question %s: the attention has a number that is not finite",
                             writer->file.path, id);
    json_t *entry = json_object(), *columns = json_array();
    int failed = !entry || !columns || set_text(entry, "questionId", id);
    for (int x = 0; x < GQA_MAP_SIDE && !failed; x++) {
        json_t *column = json_array();
        for (int y = 0; y < GQA_MAP_SIDE && !failed; y++)
            failed = json_array_append_new(column, json_real((double)map[GQA_MAP_SIDE * x + y]));
        if (json_array_append_new(columns, column)) failed = -1;
    }
    if (json_object_set_new(entry, "attention", columns)) failed = -1;
    if (failed) {
        json_decref(entry);
        entry = NULL;
    }
    return put_entry(writer, entry, err);
}

int gqa_array_end(GqaArrayWriter *writer, int failed, Error *err) {
    if (!writer->buffer) return -1;
    if (!failed) failed = put(writer, writer->count ? "\n]\n" : "[]\n", err);
    if (!failed) failed = flush(writer, err);
    free(writer->buffer);
    writer->buffer = NULL;
    return file_write_end(&writer->file, failed, err);
}
