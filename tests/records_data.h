/* records_data.h - writes files of records in a temporary folder, scans them and checks the
 * result. */
#ifndef EASYFIRST_TESTS_RECORDS_DATA_H
#define EASYFIRST_TESTS_RECORDS_DATA_H

#include "data/files/file_window.h"
#include "data/sets/records.h"
#include "tests/test.h"

typedef struct Data {
    char folder[512], file[600];
    RecordsOptions options;
    Skipped skipped;
    Records *records;
    Error err;
} Data;

static inline void data_begin(Data *d) {
    *d = (Data){.records = NULL};
    temporary_folder(d->folder, sizeof d->folder);
    d->options.images = d->folder;
}

static inline void data_end(Data *d) {
    records_close(d->records);
    temporary_remove(d->folder);
}

static inline void write_bytes(Data *d, const char *name, const char *bytes, size_t size) {
    snprintf(d->file, sizeof d->file, "%s/%s", d->folder, name);
    FILE *f = fopen(d->file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(Data *d, const char *name, const char *text) {
    write_bytes(d, name, text, strlen(text));
}

static inline int scan(Data *d) {
    records_close(d->records);
    d->skipped = (Skipped){.total = 0};
    return records_open(&d->records, d->file, &d->options, &d->skipped, &d->err);
}

/* Writes and scans; expects `count` usable records of `scanned`. */
static inline void accept(Data *d, const char *text, int64_t count, int64_t scanned) {
    write_text(d, "data", text);
    assert_ok(scan(d), &d->err);
    assert_int_equal(records_count(d->records), count);
    assert_int_equal(records_scanned(d->records), scanned);
}

#define refuse(d, text, ...)                             \
    do {                                                 \
        write_bytes((d), "data", text, sizeof text - 1); \
        assert_refused(scan(d), &(d)->err, __VA_ARGS__); \
        assert_null((d)->records);                       \
    } while (0)

static inline const SkippedKind *problem(const Data *d, const char *kind) {
    for (int i = 0; i < d->skipped.kind_count; i++)
        if (!strcmp(d->skipped.kinds[i].kind, kind)) return &d->skipped.kinds[i];
    fail_msg("no problem of the kind \"%s\" was counted", kind);
    return NULL;
}

static inline void expect_problem(const Data *d, const char *kind, int64_t count,
                                  const char *words) {
    const SkippedKind *p = problem(d, kind);
    assert_int_equal(p->count, count);
    if (!strstr(p->first, words)) fail_msg("\"%s\" lacks \"%s\"", p->first, words);
}

static inline void expect_turn(const Data *d, int64_t index, int turn, const char *prompt,
                               const char *response) {
    Record record;
    Error err;
    assert_ok(records_read(d->records, index, &record, &err), &err);
    assert_true(turn < record.count);
    assert_string_equal(record.turns[turn].prompt, prompt);
    assert_string_equal(record.turns[turn].response, response);
    record_free(&record);
}

static inline void expect_record(const Data *d, int64_t index, const char *id, const char *image,
                                 int turns) {
    Record record;
    Error err;
    assert_ok(records_read(d->records, index, &record, &err), &err);
    assert_string_equal(record.id, id);
    assert_int_equal(record.count, turns);
    if (image)
        assert_string_equal(record.image, image);
    else
        assert_null(record.image);
    record_free(&record);
}

/* A conversation of one turn. */
#define TALK                                                                                       \
    "\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": " \
    "\"a\"}]"

#endif
