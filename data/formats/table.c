#include "data/formats/table.h"

#include <string.h>

enum { ROWS_LOOKED_AT = 1000 };

int table_begin(Table *table, const FormatInput *input, int separator, Error *err) {
    *table = (Table){.window = {.path = input->path, .fd = input->fd}};
    table->csv = (Csv){.window = &table->window, .separator = separator};
    TRY(window_more(&table->window, 0, err));
    bool mark = table->window.size >= 3 && !memcmp(table->window.bytes, "\xEF\xBB\xBF", 3);
    table->csv.at = mark ? 3 : 0;
    return 0;
}

void table_end(Table *table) {
    csv_free(&table->csv);
    window_free(&table->window);
}

bool table_is(const FormatInput *input, int separator, bool (*fits)(const Csv *row), bool all) {
    Table t;
    int64_t rows = 0, fitting = 0;
    bool ok = table_begin(&t, input, separator, NULL) == 0;
    while (ok && rows < ROWS_LOOKED_AT) {
        ok = csv_next(&t.csv, NULL) == 0;
        if (!ok || !t.csv.count) break;
        rows++;
        fitting += !t.csv.fault && fits(&t.csv);
        if (all && fitting < rows) break;
    }
    table_end(&t);
    return ok && rows > 0 && (all ? fitting == rows : 2 * fitting > rows);
}

int table_walk(FormatInput *input, int separator, RowVisit visit, void *user, Error *err) {
    Table t;
    int status = table_begin(&t, input, separator, err);
    while (status == 0) {
        status = csv_next(&t.csv, err);
        if (status || !t.csv.count) break;
        if (t.csv.fault)
            sample_reject(input, t.csv.first, "malformed row", "%s", t.csv.fault);
        else
            status = visit(user, input, &t.csv, err);
    }
    table_end(&t);
    return status < 0 ? -1 : 0;
}
