/* records_parse.h - parses one record from its JSON object or text; for records.c.
 *
 * The same code parses a record while the file is scanned, counting what is wrong, and when it is
 * read again, without counting: so both agree on what is left out.
 */
#ifndef EASYFIRST_DATA_SETS_RECORDS_PARSE_H
#define EASYFIRST_DATA_SETS_RECORDS_PARSE_H

#include <stddef.h>

#include <jansson.h>

#include "data/formats/format.h"
#include "data/sets/records.h"

typedef struct RecordContext {
    const RecordsOptions *options;
    const Prompting *prompting; /* for prompts of objects; NULL: they are finished */
    const char *path;           /* of the file, for messages */
    const char *unit;           /* what the number counts: "record", "line" */
    int64_t number;             /* of it in the file, from 1 */
    Skipped *skipped;           /* NULL: not counted, and image files are not checked */
    bool *flawed; /* set, and the record counted, at the first thing wrong with it; NULL if
                         `skipped` is */
} RecordContext;

/* Counts what is wrong with a record: "<path>: line 7, id x: ...". `id` may be "". */
void record_reject(const RecordContext *context, const char *id, const char *kind,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));

/* *record is empty (count 0) if the record must be skipped. Errors: out of memory. */
int record_from_json(Record *record, json_t *value, const RecordContext *context, Error *err);
int record_from_text(Record *record, const char *text, size_t size, const RecordContext *context,
                     Error *err);

#endif
