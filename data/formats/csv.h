/* csv.h - the rows of a table of comma- or tab-separated values, one after another, in bounded
 * memory.
 *
 * Commas as RFC 4180 has them: a field may be in quotes, with separators, line ends and doubled
 * quotes in it. Tabs as everybody has them: no quotes, a row is a line. Line ends may be CRLF; blank
 * lines are skipped.
 */
#ifndef EASYFIRST_DATA_FORMATS_CSV_H
#define EASYFIRST_DATA_FORMATS_CSV_H

#include "data/files/file_window.h"

enum { CSV_FIELDS_MOST = 64, CSV_LINES = -3 };

typedef struct Csv {
    FileWindow *window; /* at the file's start, the caller's */
    size_t at;          /* index of the next byte: at first after a byte order mark */
    int separator;      /* ',' or '\t'; CSV_LINES: none, each line is a field */
    int64_t line;       /* lines that have been read; 0 at first */
    /* The current row: */
    int64_t first; /* its first line, from 1 */
    int count;
    const char *fields[CSV_FIELDS_MOST]; /* each ends with 0 */
    size_t sizes[CSV_FIELDS_MOST];
    const char *fault; /* what is wrong with it; NULL: nothing */
    char *text;
    size_t size, capacity;
    size_t begins[CSV_FIELDS_MOST];
} Csv;

/* The next row; count is 0 at the file's end. A row with a fault (quotes that do not match, too many
 * fields, longer than WINDOW_MOST) has count 1 or more, and no use. */
int csv_next(Csv *csv, Error *err);
void csv_free(Csv *csv);

#endif
