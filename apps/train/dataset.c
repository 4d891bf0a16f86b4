#include "apps/train/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"

enum { RECORDS_AT_ONCE = 1024, NAME_SIZE = 256 };

/* The result of one record, kept until its turn. */
typedef struct Scanned {
    BatchUnit *units;
    int count;
    Skipped *skipped; /* NULL: nothing skipped or noted */
} Scanned;

static int file_of(const Dataset *d, int64_t record) {
    int f = 0;
    while (f + 1 < d->file_count && record >= d->first_record[f + 1]) f++;
    return f;
}

/* "pairs.jsonl: id 17"; without an id, its number among the file's usable records. */
static void record_name(char *name, size_t size, const Records *file, const Record *record,
                        int64_t index) {
    int64_t begin = 0, end;
    double weight;
    const char *path = "";
    for (int s = 0; s < records_sources(file); s++) {
        path = records_source(file, s, &begin, &end, &weight);
        if (index < end) break;
    }
    if (record->id[0])
        snprintf(name, size, "%.120s: id %.80s", path, record->id);
    else
        snprintf(name, size, "%.120s: usable record %lld", path, (long long)(index - begin) + 1);
}

static int scan_record(const Dataset *d, int file, int64_t index, Examples *examples,
                       Skipped *skipped, Scanned *out, Error *err) {
    Record record = {0};
    Error bad = {{0}};
    if (records_read(d->files[file], index, &record, &bad) != 0) {
        skipped_add(skipped, "unreadable record", "%s", bad.text);
        return 0;
    }
    char name[NAME_SIZE];
    record_name(name, sizeof name, d->files[file], &record, index);
    int status = examples_make(examples, &record, &d->options.example, name, skipped, err);
    /* Already counted by the scan of the file. */
    if (records_flawed(d->files[file], index)) skipped->total = 0;
    if (status == 0 && examples->count > 0) {
        out->units = calloc((size_t)examples->count, sizeof *out->units);
        if (!out->units) status = error_set(err, "out of memory for %s", name);
    }
    for (int i = 0; status == 0 && i < examples->count; i++) {
        const Example *e = &examples->items[i];
        out->units[out->count++] = (BatchUnit){.record = d->first_record[file] + index,
                                               .turn = e->turn,
                                               .tokens = e->tokens,
                                               .sequences = e->count,
                                               .image = e->image};
    }
    record_free(&record);
    return status;
}

/* Records [first, first + count) of a file, in parallel, results in order. */
static int scan_some(const Dataset *d, int file, int64_t first, int count, Scanned *scanned,
                     Error *err) {
    int failed = 0;
#pragma omp parallel
    {
        Examples examples = {0};
        Skipped *skipped = calloc(1, sizeof *skipped);
        Error mine = {{0}};
#pragma omp for schedule(dynamic, 16)
        for (int i = 0; i < count; i++) {
            int status =
                skipped ? scan_record(d, file, first + i, &examples, skipped, &scanned[i], &mine)
                        : error_set(&mine, "out of memory for the scan");
            if (status == 0 && skipped->kind_count) {
                scanned[i].skipped = skipped;
                skipped = calloc(1, sizeof *skipped);
            }
            if (status) {
#pragma omp critical(dataset_scan)
                if (!failed) {
                    failed = 1;
                    if (err) *err = mine;
                }
            }
        }
        free(skipped);
        examples_free(&examples);
    }
    return failed ? -1 : 0;
}

static int units_append(Dataset *d, const Scanned *s, int source, Error *err) {
    for (int i = 0; i < s->count; i++) {
        if (d->options.limit && d->count >= d->options.limit) return 0;
        if ((size_t)d->count == d->capacity) {
            BatchUnit *grown = array_grow(d->units, &d->capacity, sizeof *grown);
            if (!grown) return error_set(err, "out of memory for %zu examples", d->capacity);
            d->units = grown;
        }
        BatchUnit *u = &d->units[d->count++];
        *u = s->units[i];
        u->source = (int16_t)source;
        d->tokens += u->tokens;
        d->with_image += u->image;
        if (u->tokens > d->longest) d->longest = u->tokens;
    }
    return 0;
}

/* One source of a file: all of it, or one file of a mixture. */
static int scan_source(Dataset *d, int file, int64_t begin, int64_t end, const char *path,
                       Error *err) {
    Scanned *scanned = calloc(RECORDS_AT_ONCE, sizeof *scanned);
    if (!scanned) return error_set(err, "out of memory for the scan");
    int status = 0;
    for (int64_t at = begin; at < end && status == 0;) {
        if (d->options.limit && d->count >= d->options.limit) break;
        int count = end - at < RECORDS_AT_ONCE ? (int)(end - at) : RECORDS_AT_ONCE;
        status = scan_some(d, file, at, count, scanned, err);
        for (int i = 0; i < count; i++) {
            if (status == 0) status = units_append(d, &scanned[i], d->sources, err);
            if (scanned[i].skipped) {
                skipped_merge(&d->skipped, scanned[i].skipped);
                if (scanned[i].skipped->total)
                    d->counted[d->first_record[file] + at + i] |= RECORD_BAD;
            }
            free(scanned[i].skipped), free(scanned[i].units);
            scanned[i] = (Scanned){0};
        }
        at += count;
        if (d->options.progress)
            d->options.progress(d->options.user, path, at - begin, end - begin);
    }
    free(scanned);
    d->sources++;
    return status;
}

static int add_file(Dataset *d, const char *path, int64_t bytes, uint64_t hash, Error *err) {
    if ((size_t)d->read_count == d->read_capacity) {
        DatasetFile *grown = array_grow(d->read, &d->read_capacity, sizeof *grown);
        if (!grown) return error_set(err, "out of memory for the names of %d files", d->read_count);
        d->read = grown;
    }
    char *copy = strdup(path);
    if (!copy) return error_set(err, "out of memory for the name of a file");
    d->read[d->read_count++] = (DatasetFile){copy, bytes, hash};
    return 0;
}

/* Marks the records of a file that were counted as bad when it was opened. */
static int mark_flawed(Dataset *d, int file, Error *err) {
    const Records *records = d->files[file];
    int64_t first = d->first_record[file], count = records_count(records);
    unsigned char *grown = realloc(d->counted, (size_t)(first + count) + 1);
    if (!grown) return error_set(err, "out of memory for %lld records", (long long)count);
    d->counted = grown;
    for (int64_t i = 0; i < count; i++)
        grown[first + i] = records_flawed(records, i) ? RECORD_BAD : 0;
    return 0;
}

static int scan_file(Dataset *d, int file, const char *path, bool *mixture, Error *err) {
    Records *records = d->files[file];
    d->first_record[file + 1] = d->first_record[file] + records_count(records);
    TRY(mark_flawed(d, file, err));
    int sources = records_sources(records);
    double *weights = realloc(d->weights, (size_t)(d->sources + sources) * sizeof *weights);
    if (!weights) return error_set(err, "out of memory for %d sources", sources);
    d->weights = weights;
    *mixture |= sources > 1;
    for (int s = 0; s < sources; s++) {
        int64_t begin, end;
        const char *name = records_source(records, s, &begin, &end, &weights[d->sources]);
        int64_t bytes;
        uint64_t hash;
        const char *read = records_source_file(records, s, &bytes, &hash);
        TRY(add_file(d, read, bytes, hash, err));
        if (d->sources >= INT16_MAX) return error_set(err, "%s: over %d sources", path, INT16_MAX);
        TRY(scan_source(d, file, begin, end, name, err));
    }
    d->fingerprint = d->fingerprint * 1099511628211u ^ records_fingerprint(records);
    return 0;
}

static int open_files(Dataset *d, const char *const *paths, int count, Error *err) {
    bool mixture = false;
    for (int i = 0;; i++) {
        Skipped found = {0};
        RecordsOptions options = d->options.records;
        const char *path =
            i < count ? paths[i] : parallel_entry(&d->options.parallel, i - count, &options.prompt);
        if (!path) break;
        TRY(records_open(&d->files[i], path, &options, &found, err));
        d->file_count = i + 1;
        skipped_merge(&d->skipped, &found);
        d->samples += records_scanned(d->files[i]);
        TRY(scan_file(d, i, path, &mixture, err));
    }
    if (!mixture) {
        free(d->weights);
        d->weights = NULL;
    }
    TRY(skipped_check(&d->skipped, d->samples, d->options.max_bad_fraction, err));
    if (d->count > 0) return 0;
    return error_set(err, "%s: nothing in it to train on%s%s", d->read[0].path,
                     d->skipped.kind_count ? "; the first skipped: " : "",
                     d->skipped.kind_count ? d->skipped.kinds[0].first : "");
}

int dataset_open(Dataset *dataset, const char *const *paths, int count,
                 const DatasetOptions *options, Error *err) {
    *dataset = (Dataset){.options = *options, .fingerprint = 14695981039346656037u};
    enum { PARALLEL = 2 }; /* --source and --target, --pairs */
    dataset->files = calloc((size_t)count + PARALLEL + 1, sizeof(Records *));
    dataset->first_record = calloc((size_t)count + PARALLEL + 1, sizeof *dataset->first_record);
    int status = dataset->files && dataset->first_record
                     ? open_files(dataset, paths, count, err)
                     : error_set(err, "out of memory for %d files", count);
    if (status) dataset_close(dataset);
    return status;
}

static int scene_units(Dataset *d, int patches, Error *err) {
    const SceneGraphs *g = d->scenes;
    d->units = calloc((size_t)g->count, sizeof *d->units);
    d->counted = calloc((size_t)g->count, 1);
    if (!d->units || !d->counted)
        return error_set(err, "out of memory for %lld images", (long long)g->count);
    d->capacity = (size_t)g->count;
    for (int64_t i = 0; i < g->count; i++)
        d->units[d->count++] =
            (BatchUnit){.record = i, .tokens = patches, .sequences = 1, .image = true};
    d->longest = patches, d->tokens = g->count * patches, d->with_image = g->count;
    d->samples = g->samples, d->fingerprint = g->fingerprint;
    return 0;
}

static int scene_file(void *user, const char *path, int64_t bytes, uint64_t hash, Error *err) {
    return add_file(user, path, bytes, hash, err);
}

int dataset_open_scenes(Dataset *d, const char *const *paths, int count,
                        const SceneGraphsOptions *options, int patches, double max_bad_fraction,
                        Error *err) {
    *d = (Dataset){.scenes = calloc(1, sizeof *d->scenes)};
    int status = d->scenes ? 0 : error_set(err, "out of memory");
    SceneGraphsOptions with = *options;
    with.file = scene_file, with.user = d;
    if (status == 0) status = scene_graphs_open(d->scenes, paths, count, &with, &d->skipped, err);
    if (status == 0) status = skipped_check(&d->skipped, d->scenes->samples, max_bad_fraction, err);
    if (status == 0) status = scene_units(d, patches, err);
    if (status) dataset_close(d);
    return status;
}

void dataset_close(Dataset *d) {
    if (d->scenes) scene_graphs_close(d->scenes);
    free(d->scenes);
    for (int i = 0; d->files && i < d->file_count; i++) records_close(d->files[i]);
    for (int i = 0; i < d->read_count; i++) free(d->read[i].path);
    free(d->files), free(d->first_record), free(d->units), free(d->weights);
    free(d->read), free(d->counted);
    *d = (Dataset){0};
}

const Records *dataset_file(const Dataset *d, int64_t unit) {
    return d->files[file_of(d, d->units[unit].record)];
}

int dataset_unit(const Dataset *d, int64_t unit, Record *record, Examples *examples,
                 const Example **example, Error *err) {
    const BatchUnit *u = &d->units[unit];
    int file = file_of(d, u->record);
    Skipped ignored = {0}; /* already counted by the scan */
    char name[NAME_SIZE];
    int64_t index = u->record - d->first_record[file];
    TRY(records_read(d->files[file], index, record, err));
    record_name(name, sizeof name, d->files[file], record, index);
    TRY(examples_make(examples, record, &d->options.example, name, &ignored, err));
    for (int i = 0; i < examples->count; i++)
        if (examples->items[i].turn == u->turn) {
            *example = &examples->items[i];
            return 0;
        }
    return error_set(err, "%s has changed: the data must not change during training", name);
}
