/* table.h - opens an input as a table, and counts the rows of one shape: for the formats that are
 * tables.
 */
#ifndef EASYFIRST_DATA_FORMATS_TABLE_H
#define EASYFIRST_DATA_FORMATS_TABLE_H

#include "data/formats/csv.h"
#include "data/formats/format.h"

typedef struct Table {
    FileWindow window;
    Csv csv;
} Table;

/* At the input's first row; table_end also after a failure. */
int table_begin(Table *table, const FormatInput *input, int separator, Error *err);
void table_end(Table *table);

/* Whether most of the first 1,000 rows have a shape, or (all) each of them. */
bool table_is(const FormatInput *input, int separator, bool (*fits)(const Csv *row), bool all);

/* Gives each row to `visit`, until it returns other than 0; rows with a fault are counted. Returns
 * what it returned, but 0 for 1. */
typedef int (*RowVisit)(void *user, FormatInput *input, const Csv *row, Error *err);
int table_walk(FormatInput *input, int separator, RowVisit visit, void *user, Error *err);

#endif
