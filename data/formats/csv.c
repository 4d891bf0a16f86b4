#include "data/formats/csv.h"

#include <stdlib.h>

enum { END = -1, FAILED = -2 };

static int next_byte(Csv *csv, Error *err) {
    FileWindow *w = csv->window;
    if (csv->at >= w->size) {
        if (w->end) return END;
        if (window_more(w, w->size, err)) return FAILED;
        csv->at = 0;
        if (!w->size) return END;
    }
    return (unsigned char)w->bytes[csv->at++];
}

static int peek_byte(Csv *csv, Error *err) {
    int c = next_byte(csv, err);
    if (c >= 0) csv->at--;
    return c;
}

/* Appends a byte; a row that is too long loses its end. */
static int put(Csv *csv, char c, Error *err) {
    if (csv->size > WINDOW_MOST) {
        csv->fault = "longer than 16 MiB";
        return 0;
    }
    if (csv->size == csv->capacity) {
        size_t capacity = csv->capacity ? 2 * csv->capacity : 1024;
        char *grown = realloc(csv->text, capacity);
        if (!grown) return error_set(err, "%s: out of memory for a row", csv->window->path);
        csv->text = grown, csv->capacity = capacity;
    }
    csv->text[csv->size++] = c;
    return 0;
}

static void begin_field(Csv *csv) {
    if (csv->count == CSV_FIELDS_MOST)
        csv->fault = "more than 64 fields";
    else
        csv->begins[csv->count++] = csv->size;
}

/* The text after an opening quote, up to its closing one. */
static int quoted(Csv *csv, Error *err) {
    for (;;) {
        int c = next_byte(csv, err);
        if (c == FAILED) return -1;
        if (c == END) {
            csv->fault = "a quote that is not closed";
            return 0;
        }
        if (c == '\n') csv->line++;
        if (c == '"') {
            int after = peek_byte(csv, err);
            if (after == FAILED) return -1;
            if (after != '"') {
                if (after != csv->separator && after != '\r' && after != '\n' && after != END)
                    csv->fault = "text after a closing quote";
                return 0;
            }
            csv->at++;
        }
        TRY(put(csv, (char)c, err));
    }
}

/* A field and what ends it: the separator, '\n' or END in *end. */
static int field(Csv *csv, int *end, Error *err) {
    int c = peek_byte(csv, err);
    begin_field(csv);
    size_t plain = csv->size; /* where text out of quotes begins */
    if (csv->separator == ',' && c == '"') {
        csv->at++;
        TRY(quoted(csv, err));
        plain = csv->size;
    }
    for (;;) {
        c = next_byte(csv, err);
        if (c == FAILED) return -1;
        if (c == csv->separator || c == '\n' || c == END) break;
        TRY(put(csv, (char)c, err));
    }
    if (c == '\n') csv->line++;
    if (c != csv->separator && csv->size > plain && csv->text[csv->size - 1] == '\r') csv->size--;
    *end = c;
    return put(csv, 0, err);
}

static void point_fields(Csv *csv) {
    for (int i = 0; i < csv->count; i++) {
        size_t end = i + 1 < csv->count ? csv->begins[i + 1] : csv->size;
        csv->fields[i] = csv->text + csv->begins[i];
        csv->sizes[i] = end - csv->begins[i] - 1;
    }
}

int csv_next(Csv *csv, Error *err) {
    int end = 0;
    do {
        int c = peek_byte(csv, err);
        csv->count = 0, csv->size = 0, csv->fault = NULL;
        csv->first = csv->line + 1;
        if (c == FAILED) return -1;
        if (c == END) return 0;
        do {
            TRY(field(csv, &end, err));
        } while (end == csv->separator);
    } while (csv->count == 1 && csv->size == 1 && !csv->fault && end != END);
    if (csv->count == 1 && csv->size == 1 && !csv->fault) csv->count = 0; /* blank, at the end */
    if (csv->size && csv->size <= WINDOW_MOST) point_fields(csv);
    return 0;
}

void csv_free(Csv *csv) {
    free(csv->text);
    csv->text = NULL;
    csv->size = csv->capacity = 0;
    csv->count = 0;
}
