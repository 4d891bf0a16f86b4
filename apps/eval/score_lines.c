/* score_lines.c - files of answers and references for `easyfirst score text`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/score_lines.h"

void score_lines_free(ScoreLines *lines) {
    for (int64_t i = 0; i < lines->count && lines->values; i++) json_decref(lines->values[i]);
    for (int c = 0; c < lines->column_count && lines->columns; c++) free(lines->columns[c]);
    free(lines->columns);
    free(lines->values);
    free(lines->bytes);
    *lines = (ScoreLines){0};
}

/* The whole file, a 0 after it. */
static int read_bytes(const char *path, char **bytes, size_t *size, Error *err) {
    FILE *file = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!file) return error_set(err, "%s: %s", path, strerror(errno));
    size_t capacity = 0;
    int status = 0;
    *size = 0;
    for (size_t n = 1; n > 0 && status == 0;) {
        if (capacity - *size < 2) {
            capacity = 2 * capacity + 65536;
            char *more = realloc(*bytes, capacity);
            if (!more) {
                status = error_set(err, "%s: out of memory for %zu bytes", path, capacity);
                break;
            }
            *bytes = more;
        }
        errno = 0;
        n = fread(*bytes + *size, 1, capacity - *size - 1, file);
        *size += n;
        if (n == 0 && ferror(file))
            status = error_set(err, "%s: %s", path, errno ? strerror(errno) : "it cannot be read");
    }
    if (status == 0) (*bytes)[*size] = 0;
    if (file != stdin) fclose(file);
    return status;
}

/* Cuts the bytes into lines, which lines->columns[0] then has. */
static int cut_lines(ScoreLines *lines, const char *path, size_t size, Error *err) {
    char *at = lines->bytes, *end = at + size;
    if (size >= 3 && !memcmp(at, "\xef\xbb\xbf", 3)) at += 3;
    int64_t count = at < end && end[-1] != '\n';
    for (char *s = at; (s = memchr(s, '\n', (size_t)(end - s))); s++) count++;
    lines->columns = calloc(1, sizeof *lines->columns);
    const char **texts = calloc((size_t)count + 1, sizeof *texts);
    if (!lines->columns || !texts) {
        free(texts);
        return error_set(err, "%s: out of memory for %lld lines", path, (long long)count);
    }
    lines->columns[0] = texts;
    lines->column_count = 1;
    for (lines->count = 0; at < end; lines->count++) {
        char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (memchr(at, 0, (size_t)(stop - at)))
            return error_set(err, "%s: line %lld has a NUL byte: this is no text", path,
                             (long long)lines->count + 1);
        if (stop > at && stop[-1] == '\r') stop--;
        *stop = 0;
        texts[lines->count] = at;
        at = next;
    }
    return 0;
}

/* The texts of a record: a text, or an array of texts, at least one; NULL if it has none. */
static json_t *record_texts(const json_t *record, bool references) {
    static const char *const names[2][3] = {{"answer", "prediction", "text"},
                                            {"targets", "target", "answer"}};
    for (int i = 0; i < 3; i++) {
        json_t *value = json_object_get(record, names[references][i]);
        bool good = json_is_string(value) || json_array_size(value) > 0;
        size_t index;
        json_t *item;
        json_array_foreach(value, index, item) good = good && json_is_string(item);
        if (good) return value;
    }
    return NULL;
}

static bool is_blank(const char *line) {
    return line[strspn(line, " \t\r")] == 0;
}

static bool is_json(const ScoreLines *lines, bool references) {
    int64_t first = 0;
    while (first < lines->count && is_blank(lines->columns[0][first])) first++;
    if (first == lines->count) return false;
    json_t *record = json_loads(lines->columns[0][first], 0, NULL);
    bool found = record_texts(record, references) != NULL;
    json_decref(record);
    return found;
}

/* Parses every line; lines->count is then that of the records. */
static int parse_lines(ScoreLines *lines, const char *path, bool references, Error *err) {
    int64_t count = lines->count;
    const char **texts = lines->columns[0];
    lines->count = 0;
    if (!(lines->values = calloc((size_t)count, sizeof *lines->values)))
        return error_set(err, "%s: out of memory for %lld lines", path, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        json_error_t problem;
        if (is_blank(texts[i])) continue;
        json_t *record = json_loads(texts[i], 0, &problem);
        if (!record)
            return error_set(err, "%s: line %lld is no JSON object, as the first line is: %s", path,
                             (long long)i + 1, problem.text);
        json_t *value = json_incref(record_texts(record, references));
        if (!value && !references && json_object_get(record, "error")) value = json_string("");
        json_decref(record);
        if (!value)
            return error_set(err, "%s: line %lld has no text in %s", path, (long long)i + 1,
                             references ? "\"targets\", \"target\" or \"answer\""
                                        : "\"answer\", \"prediction\" or \"text\"");
        lines->values[lines->count++] = value;
    }
    return 0;
}

/* The records' texts in place of the lines. */
static int make_columns(ScoreLines *lines, const char *path, Error *err) {
    size_t columns = 1;
    for (int64_t i = 0; i < lines->count; i++)
        if (json_array_size(lines->values[i]) > columns)
            columns = json_array_size(lines->values[i]);
    const char ***grown =
        columns > INT32_MAX ? NULL : realloc(lines->columns, columns * sizeof *lines->columns);
    if (!grown) return error_set(err, "%s: out of memory for %zu columns", path, columns);
    lines->columns = grown;
    for (; lines->column_count < (int)columns; lines->column_count++) {
        const char **column = calloc((size_t)lines->count, sizeof *column);
        if (!column) return error_set(err, "%s: out of memory for %zu columns", path, columns);
        lines->columns[lines->column_count] = column;
    }
    for (int64_t i = 0; i < lines->count; i++) {
        const json_t *value = lines->values[i];
        bool array = json_is_array(value);
        lines->columns[0][i] = json_string_value(array ? json_array_get(value, 0) : value);
        for (size_t c = 1; c < json_array_size(value); c++)
            lines->columns[c][i] = json_string_value(json_array_get(value, c));
    }
    return 0;
}

int score_lines_read(ScoreLines *lines, const char *path, bool references, Error *err) {
    size_t size;
    *lines = (ScoreLines){0};
    TRY(read_bytes(path, &lines->bytes, &size, err));
    TRY(cut_lines(lines, path, size, err));
    if (!is_json(lines, references)) return 0;
    TRY(parse_lines(lines, path, references, err));
    return make_columns(lines, path, err);
}
