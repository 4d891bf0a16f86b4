/* lines.c - files of answers and references for `easyfirst score text`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistr.h>

#include "apps/score/bytes.h"
#include "apps/score/lines.h"
#include "data/files/file_kind.h"
#include "data/files/json_read.h"
#include "data/files/json_memory.h"

void score_lines_free(ScoreLines *lines) {
    for (int64_t i = 0; i < lines->value_count; i++) json_decref(lines->values[i]);
    references_free(&lines->texts);
    free(lines->values);
    free(lines->bytes);
    *lines = (ScoreLines){0};
}

/* ---- Lines. ---- */

/* What reading a file works with. */
typedef struct Reading {
    ScoreLines *lines;
    const char *path;
    bool references;
    const char **texts; /* [count] the lines, cut; lines->texts owns them */
    int64_t count;
    int64_t plain, object, bad; /* the first line, from 1, that is no JSON object, that is one
                                   without the member, that is malformed; 0: none */
    char why[200];              /* what is wrong with the latter */
    const char *member;         /* in which records have their text; NULL: there are none (yet) */
    int64_t member_line;        /* the first one's */
} Reading;

/* That the bytes are text, before they are cut. */
static int check_text(const Reading *r, size_t size, Error *err) {
    const char *bytes = r->lines->bytes, *nul = memchr(bytes, 0, size), *at;
    at = (const char *)u8_check((const uint8_t *)bytes, size);
    if (nul && (!at || nul < at)) at = nul;
    if (!at) return 0;
    const char *kind = file_kind_hint(bytes, size);
    if (kind) return error_set(err, "%s: expected lines of text, but this is %s", r->path, kind);
    int64_t line = 1;
    const char *begin = bytes;
    for (const char *s; (s = memchr(begin, '\n', (size_t)(at - begin))); begin = s + 1) line++;
    return error_set(err, "%s: line %lld: byte %zu %s; expected lines of text in UTF-8", r->path,
                     (long long)line, (size_t)(at - begin) + 1,
                     at == nul ? "is NUL" : "is not valid UTF-8");
}

/* Cuts the bytes into lines. */
static int cut_lines(Reading *r, size_t size, Error *err) {
    char *at = r->lines->bytes, *end = at + size;
    if (size >= 3 && !memcmp(at, "\xef\xbb\xbf", 3)) at += 3;
    size_t count = at < end && end[-1] != '\n';
    for (char *s = at; (s = memchr(s, '\n', (size_t)(end - s))); s++) count++;
    References *t = &r->lines->texts;
    t->texts = calloc(count + 1, sizeof *t->texts);
    t->begins = calloc(count + 1, sizeof *t->begins);
    if (!t->texts || !t->begins)
        return error_set(err, "%s: out of memory for %zu lines", r->path, count);
    r->texts = t->texts;
    while (at < end) {
        char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (stop > at && stop[-1] == '\r') stop--;
        *stop = 0;
        r->texts[r->count++] = at;
        t->begins[r->count] = (size_t)r->count;
        at = next;
    }
    t->count = r->count;
    return 0;
}

static bool is_blank(const char *line) {
    return line[strspn(line, " \t\r")] == 0;
}

static int text_too_long(const Reading *r, int64_t line, size_t size, Error *err) {
    return error_set(err, "%s: line %lld has a text of %zu bytes; at most %d are compared", r->path,
                     (long long)line, size, SCORE_TEXT_MOST);
}

static int check_lengths(const Reading *r, Error *err) {
    for (int64_t i = 0; i < r->count; i++) {
        size_t size = strlen(r->texts[i]);
        if (size > SCORE_TEXT_MOST) return text_too_long(r, i + 1, size, err);
    }
    return 0;
}

/* ---- Records. ---- */

static void note_first(int64_t *first, int64_t line) {
    if (!*first) *first = line;
}

/* The member in which a record has its text: the first of the names that it has. */
static const char *member_of(const json_t *record, bool references) {
    static const char *const names[2][3] = {{"answer", "prediction", "text"},
                                            {"targets", "target", "answer"}};
    for (int i = 0; i < 3; i++)
        if (json_object_get(record, names[references][i])) return names[references][i];
    return NULL;
}

/* A text, or an array of texts, at least one. */
static int check_value(const Reading *r, const json_t *value, const char *member, int64_t line,
                       Error *err) {
    bool good = json_is_string(value) || json_array_size(value) > 0;
    size_t index, size = json_string_length(value);
    json_t *item;
    json_array_foreach((json_t *)value, index, item) {
        good = good && json_is_string(item);
        if (json_string_length(item) > size) size = json_string_length(item);
    }
    if (!good)
        return error_set(err, "%s: line %lld: \"%s\" is neither a text nor an array of texts",
                         r->path, (long long)line, member);
    return size > SCORE_TEXT_MOST ? text_too_long(r, line, size, err) : 0;
}

static int take_value(Reading *r, const json_t *record, int64_t line, Error *err) {
    const char *member = member_of(record, r->references);
    if (!member && (r->references || !json_object_get(record, "error"))) {
        note_first(&r->object, line);
        return 0;
    }
    json_t *value = member ? json_incref(json_object_get(record, member)) : json_string("");
    if (!value) return error_set(err, "%s: out of memory for line %lld", r->path, (long long)line);
    r->lines->values[r->lines->value_count++] = value;
    r->lines->errors += !member;
    if (!member) return 0;
    if (!r->member) r->member = member, r->member_line = line;
    if (strcmp(member, r->member))
        return error_set(err, "%s: line %lld has its text in \"%s\", but line %lld in \"%s\"",
                         r->path, (long long)line, member, (long long)r->member_line, r->member);
    return check_value(r, value, member, line, err);
}

/* A line that begins as a JSON object does. */
static int parse_line(Reading *r, const char *text, int64_t line, Error *err) {
    json_error_t where;
    char why[160];
    size_t size = strlen(text);
    if (json_too_heavy(text, size, 0, why, sizeof why))
        return error_set(err, "%s: line %lld: %s", r->path, (long long)line, why);
    json_t *record = json_loadb_whole(text, size, JSON_REJECT_DUPLICATES, &where);
    if (record) {
        int status = take_value(r, record, line, err);
        json_decref(record);
        return status;
    }
    if (json_error_code(&where) == json_error_out_of_memory || !where.text[0])
        return error_set(err, "%s: out of memory for line %lld", r->path, (long long)line);
    if (!r->bad) snprintf(r->why, sizeof r->why, "%s", where.text);
    note_first(&r->bad, line);
    return 0;
}

static int parse_lines(Reading *r, Error *err) {
    r->lines->values = calloc((size_t)r->count + 1, sizeof *r->lines->values);
    if (!r->lines->values)
        return error_set(err, "%s: out of memory for %lld lines", r->path, (long long)r->count);
    for (int64_t i = 0; i < r->count; i++) {
        const char *text = r->texts[i] + strspn(r->texts[i], " \t");
        if (is_blank(text)) continue;
        if (text[0] == '{' && text[1 + strspn(text + 1, " \t")] == '"')
            TRY(parse_line(r, text, i + 1, err));
        else
            note_first(&r->plain, i + 1);
    }
    return 0;
}

/* ---- What the file is. ---- */

static const char *wanted(const Reading *r) {
    return r->references ? "\"targets\", \"target\" or \"answer\""
                         : "\"answer\", \"prediction\" or \"text\"";
}

/* Some lines are records: none may be anything else. */
static int check_mixed(const Reading *r, Error *err) {
    const int64_t firsts[] = {r->plain, r->object, r->bad};
    int64_t first = 0;
    for (int i = 0; i < 3; i++)
        if (firsts[i] && (!first || firsts[i] < first)) first = firsts[i];
    if (!first) return 0;
    if (first == r->object)
        return error_set(err, "%s: line %lld has no text in %s, as other lines have", r->path,
                         (long long)first, wanted(r));
    return error_set(err, "%s: line %lld is no JSON object, as other lines are%s%s", r->path,
                     (long long)first, first == r->bad ? ": " : "", first == r->bad ? r->why : "");
}

/* No line is a record: lines of JSON objects alone are no plain text either. */
static int check_plain(const Reading *r, Error *err) {
    if (r->plain || (!r->object && !r->bad)) return check_lengths(r, err);
    if (r->bad)
        return error_set(err, "%s: line %lld begins like a JSON object, but is none: %s", r->path,
                         (long long)r->bad, r->why);
    return error_set(err, "%s: line %lld is a JSON object without a text in %s", r->path,
                     (long long)r->object, wanted(r));
}

/* The records' texts in place of the lines. */
static int take_records(Reading *r, Error *err) {
    ScoreLines *lines = r->lines;
    References *t = &lines->texts;
    size_t count = 0;
    for (int64_t i = 0; i < lines->value_count; i++)
        count += json_is_array(lines->values[i]) ? json_array_size(lines->values[i]) : 1;
    const char **texts = realloc(t->texts, (count + 1) * sizeof *texts);
    if (!texts) return error_set(err, "%s: out of memory for %zu texts", r->path, count);
    t->texts = texts;
    t->count = lines->value_count;
    count = 0;
    for (int64_t i = 0; i < lines->value_count; i++) {
        const json_t *value = lines->values[i];
        if (json_is_string(value)) texts[count++] = json_string_value(value);
        for (size_t c = 0; c < json_array_size(value); c++)
            texts[count++] = json_string_value(json_array_get(value, c));
        t->begins[i + 1] = count;
    }
    return 0;
}

int score_lines_read(ScoreLines *lines, const char *path, bool references, Error *err) {
    size_t size;
    *lines = (ScoreLines){0};
    Reading r = {.lines = lines, .path = path, .references = references};
    TRY(score_bytes_read(path, SCORE_LINE_MOST, &lines->bytes, &size, err));
    TRY(check_text(&r, size, err));
    TRY(cut_lines(&r, size, err));
    TRY(parse_lines(&r, err));
    if (!lines->value_count) return check_plain(&r, err);
    TRY(check_mixed(&r, err));
    return take_records(&r, err);
}
