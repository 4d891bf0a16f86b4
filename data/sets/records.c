/* records.c - the index of the files: scanning, mixtures, reading one record again. */
#include "data/sets/records.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/archive.h"
#include "data/files/array_grow.h"
#include "data/checkpoints/config.h"
#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/json_array.h"
#include "data/files/path.h"
#include "data/files/spool.h"
#include "data/sets/pieces.h"
#include "data/sets/records_parse.h"
#include "data/files/text_space.h"
#include "data/formats/format.h"
#include "data/formats/languages.h"

typedef enum FileKind { FILE_ARRAY, FILE_LINES, FILE_TEXT } FileKind;

/* A record's position in its file: 16 bytes. */
typedef struct Entry {
    int64_t offset;
    uint32_t size : 31;
    uint32_t flawed : 1;
    uint32_t number; /* element, line, or (of paragraphs) first line, from 1 */
} Entry;

typedef struct Source {
    char *path, *name; /* name: as in ratio.json, or the file's own */
    double weight;
    FileKind kind;
    bool built;     /* lines of finished prompts */
    bool temporary; /* fd is of a temporary file */
    int fd;         /* -1: opened for every read, since a process may not have so many open */
    int64_t base;   /* of a copy in the common temporary file; -1: none */
    int64_t bytes;
    ContentHash hash;   /* of everything the scan read */
    int64_t begin, end; /* its entries */
} Source;

/* Maximum files of a mixture that are kept open. */
enum { FILES_OPEN = 128 };

struct Records {
    Source *sources;
    int source_count;
    Entry *entries;
    size_t count, capacity;
    int64_t scanned;
    RecordsOptions options;
    char *images; /* memory of options.images */
    Prompting prompting;
    Languages *languages; /* that are kept; NULL: all */
    int spool;            /* temporary file of sources that are not open; -1: none */
};

/* The scan of one file. */
typedef struct Scan {
    Records *records;
    const Source *source;
    Skipped *skipped;
    int64_t seen; /* records of this file, usable or not */
} Scan;

/* ---- Scanning. ---- */

static const char *unit_of(const Records *records, const Source *source) {
    if (source->kind == FILE_ARRAY) return "record";
    return source->kind == FILE_LINES || records->options.text_lines ? "line" : "text in line";
}

static RecordContext context_of(const Records *records, const Source *source, int64_t number,
                                Skipped *skipped, bool *flawed) {
    return (RecordContext){.options = &records->options,
                           .prompting = source->built ? NULL : &records->prompting,
                           .path = source->path,
                           .unit = unit_of(records, source),
                           .number = number,
                           .skipped = skipped,
                           .flawed = flawed};
}

static int add_entry(Scan *scan, int64_t offset, size_t size, int64_t number, bool flawed,
                     Error *err) {
    Records *r = scan->records;
    if (r->count == r->capacity) {
        Entry *grown = array_grow(r->entries, &r->capacity, sizeof *grown);
        if (!grown)
            return error_set(err, "%s: out of memory for an index of %zu records",
                             scan->source->path, r->count);
        r->entries = grown;
    }
    r->entries[r->count++] = (Entry){offset, (uint32_t)size & INT32_MAX, flawed, (uint32_t)number};
    return 0;
}

static bool limit_reached(const Scan *scan) {
    const Records *r = scan->records;
    return r->options.limit > 0 && (int64_t)r->count - scan->source->begin >= r->options.limit;
}

/* Whether a record is in other languages than those that are kept; it is noted. */
static bool other_language(const Scan *scan, const Record *record, int64_t number) {
    const Records *r = scan->records;
    LanguageShares shares = {0};
    if (!r->languages) return false;
    for (int i = 0; i < record->count; i++) {
        languages_add(&shares, r->languages, record->turns[i].prompt);
        languages_add(&shares, r->languages, record->turns[i].response);
    }
    if (!languages_exclude(&shares)) return false;
    skipped_note(scan->skipped, "in another language", "%.120s: %s %lld: %s", scan->source->path,
                 unit_of(r, scan->source), (long long)number, shares.code);
    return true;
}

/* After each record: 0 to continue, 1 when the limit is reached. */
static int take_record(Scan *scan, Record *record, int64_t offset, size_t size, int64_t number,
                       bool flawed, Error *err) {
    bool usable = record->count > 0 && !other_language(scan, record, number);
    record_free(record);
    scan->seen++;
    if (usable) TRY(add_entry(scan, offset, size, number, flawed, err));
    return limit_reached(scan);
}

static int visit_element(void *user, const JsonElement *element, Error *err) {
    Scan *scan = user;
    bool flawed = false;
    RecordContext context =
        context_of(scan->records, scan->source, element->number, scan->skipped, &flawed);
    Record record = {0};
    if (element->value)
        TRY(record_from_json(&record, element->value, &context, err));
    else
        record_reject(&context, "", element->kind, "%s", element->why);
    return take_record(scan, &record, element->offset, element->size, element->number, flawed, err);
}

static int line_record(Record *record, const RecordContext *context, const char *text, size_t size,
                       Error *err) {
    JsonFault fault;
    json_t *value = json_element(text, size, &fault);
    if (!value) {
        if (fault.kind == JSON_FAULT_MEMORY)
            return error_set(err, "%s: out of memory for a record", context->path);
        if (fault.kind == JSON_FAULT_LARGE)
            record_reject(context, "", json_fault_name(&fault), "%s", fault.why);
        else
            record_reject(context, "", json_fault_name(&fault), "column %d: %s", fault.position,
                          fault.why);
        *record = (Record){0};
        return 0;
    }
    int status = record_from_json(record, value, context, err);
    json_decref(value);
    return status;
}

static int scan_pieces(Scan *scan, FileWindow *window, size_t begin, Error *err) {
    const Source *source = scan->source;
    bool lines = source->kind == FILE_LINES || scan->records->options.text_lines;
    Pieces pieces = {.window = window, .at = begin, .paragraphs = !lines};
    Piece piece;
    for (int status = 0; status == 0;) {
        Record record = {0};
        TRY(pieces_next(&pieces, &piece, err));
        if (!piece.text) return 0;
        bool flawed = false;
        RecordContext context =
            context_of(scan->records, source, piece.line, scan->skipped, &flawed);
        if (piece.too_long)
            record_reject(&context, "", "too long", "more than %d MiB%s", WINDOW_MOST >> 20,
                          lines ? "" : " without an empty line: is every line its own text?");
        else if (source->kind == FILE_LINES)
            TRY(line_record(&record, &context, piece.text, piece.size, err));
        else
            TRY(record_from_text(&record, piece.text, piece.size, &context, err));
        status = take_record(scan, &record, piece.offset, piece.size, piece.line, flawed, err);
        if (status < 0) return -1;
    }
    return 0;
}

/* ---- Which kind of file. ---- */

static bool has_ending(const char *path, const char *ending) {
    size_t size = strlen(path), length = strlen(ending);
    return size >= length && !strcasecmp(path + size - length, ending);
}

/* A text file whose name shows another format: what to do. NULL: it is text. */
static const char *table_kind(const char *path) {
    static const struct {
        const char *ending, *kind;
    } known[] = {
        {".csv", "a table (CSV) without known columns; expected a header with one for the prompt "
                 "(such as question or source) and one for the answer (such as answer or target), "
                 "or a template"},
        {".tsv", "a table (TSV) without known columns; expected a header with one for the prompt "
                 "(such as question or source) and one for the answer (such as answer or target), "
                 "or two fields in each line"},
        {".jsonl", "named as lines of JSON, but it begins with neither { nor ["},
        {".json", "named as JSON, but it begins with neither { nor ["},
        {".xml", "an XML document, which is not read; convert it to JSON lines or plain text"},
        {".yaml", "a YAML document, which is not read; convert it to JSON lines"},
        {".yml", "a YAML document, which is not read; convert it to JSON lines"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (has_ending(path, known[i].ending)) return known[i].kind;
    return NULL;
}

static int check_text(const Records *records, const Source *source, Error *err) {
    const char *table = table_kind(source->path), *needs = records->options.prompts_for;
    if (table) return error_set(err, "%s: %s", source->path, table);
    if (!needs) return 0;
    return error_set(
        err,
        "%s: plain text, which has no prompts; %s needs pairs. Read are %s. Plain text is "
        "for `easyfirst train pretrain`",
        source->path, needs, formats_list());
}

/* The member of an object, other than a record, that is an array of objects; NULL: none. */
static const char *wrapped_array(json_t *object) {
    const char *key;
    json_t *value;
    if (format_object_known(object)) return NULL;
    json_object_foreach(object, key, value) {
        if (json_is_object(json_array_get(value, 0))) return key;
    }
    return NULL;
}

/* The first member's name, if it is an array: the object spans several lines. */
static bool array_begins(const char *text, size_t size, char key[64]) {
    char begin[200], bracket = 0;
    size_t kept = size < sizeof begin - 1 ? size : sizeof begin - 1;
    memcpy(begin, text, kept);
    begin[kept] = 0;
    return sscanf(begin, "{ \"%63[^\"\\\n]\" : %c", key, &bracket) == 2 && bracket == '[';
}

static int refuse_wrapped(const Source *source, const char *key, Error *err) {
    return error_set(err,
                     "%s: a JSON object whose \"%s\" is the array of records; expected the array "
                     "alone, or one record a line: take it out (jq '.[\"%s\"]' FILE > NEW)",
                     source->path, key, key);
}

/* Checks that lines can be records: not one object over several lines, perhaps around their array.
 * `text` begins at the first {. */
static int check_lines(const Source *source, const char *text, size_t size, Error *err) {
    const char *end = memchr(text, '\n', size);
    size_t line = end ? (size_t)(end - text) : size;
    char key[64];
    JsonFault fault;
    json_t *value = json_element(text, line, &fault);
    const char *wrapped = value ? wrapped_array(value) : NULL;
    int status = wrapped ? refuse_wrapped(source, wrapped, err) : 0;
    json_decref(value);
    if (status || value || !fault.cut || !end) return status;
    line += text_space_begin(text + line, size - line);
    if (line < size && text[line] == '{') return 0; /* a truncated line, or others */
    if (array_begins(text, size, key)) return refuse_wrapped(source, key, err);
    return error_set(
        err,
        "%s: a JSON object over several lines; expected one object a line, or an array "
        "of objects",
        source->path);
}

/* A file's format is recognized by its first byte other than white space, *first; *begin is where
 * its text begins, after a byte order mark. */
static int find_kind(FileWindow *window, FileKind *kind, size_t *begin, size_t *first, Error *err) {
    static const char mark[3] = "\xEF\xBB\xBF";
    do {
        TRY(window_more(window, 0, err));
        const char *other = window->size ? file_kind_hint(window->bytes, window->size) : NULL;
        if (other) return error_set(err, "%s: this is %s", window->path, other);
        *begin = window->size >= 3 && !memcmp(window->bytes, mark, 3) ? 3 : 0;
        for (size_t i = *begin; i < window->size; i++) {
            char c = window->bytes[i];
            if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
            *kind = c == '[' ? FILE_ARRAY : c == '{' ? FILE_LINES : FILE_TEXT;
            *first = i;
            return 0;
        }
    } while (!window->end);
    return error_set(err, "%s: empty: expected a JSON array, lines of JSON, or text", window->path);
}

static int source_open(const Source *source, int64_t *bytes, Error *err) {
    return file_open_input(source->path, "data are read more than once: save them to a file", bytes,
                           err);
}

/* The format of a file that was just opened; *begin is where its text begins. */
static int check_kind(const Records *records, Source *source, FileWindow *window, size_t *begin,
                      Error *err) {
    size_t first = 0;
    TRY(find_kind(window, &source->kind, begin, &first, err));
    if (source->kind == FILE_TEXT) return check_text(records, source, err);
    if (source->kind == FILE_ARRAY) return 0;
    return check_lines(source, window->bytes + first, window->size - first, err);
}

static int scan_window(Scan *scan, Source *source, FileWindow *window, Error *err) {
    size_t begin = 0;
    TRY(check_kind(scan->records, source, window, &begin, err));
    if (source->kind == FILE_ARRAY) return json_array_walk(window, begin, visit_element, scan, err);
    return scan_pieces(scan, window, begin, err);
}

static void count_rejected(void *user, const char *kind, const char *why) {
    skipped_add(user, kind, "%s", why);
}

static FormatOptions format_options(const Records *records, Skipped *skipped) {
    return (FormatOptions){.prompting = &records->prompting,
                           .text = !records->options.prompts_for,
                           .limit = records->options.limit,
                           .reject = skipped ? count_rejected : NULL,
                           .user = skipped};
}

/* Scans one file; its records are appended to the index. */
static int source_scan(Records *records, Source *source, Skipped *skipped, Error *err) {
    Skipped own = {.total = 0};
    Scan scan = {.records = records, .source = source, .skipped = &own};
    FormatFile file;
    const FormatOptions format = format_options(records, &own);
    TRY(format_file_open(&file, source->path, &format, err));
    source->fd = file.fd, source->bytes = file.bytes, source->built = file.built;
    source->temporary = file.temporary;
    scan.seen = file.rejected;
    source->begin = (int64_t)records->count;
    FileWindow window = {.path = source->path, .fd = source->fd, .hash = &source->hash};
    int status = scan_window(&scan, source, &window, err);
    window_free(&window);
    source->end = (int64_t)records->count;
    records->scanned += scan.seen;
    skipped_merge(skipped, &own);
    TRY(status);
    if (source->end > source->begin) return 0;
    if (own.kind_count)
        return error_set_code(err, records->options.images ? ERROR_OTHER : ERROR_NO_IMAGES,
                              "%s: none of its %lld records can be used: %s (%s)", source->path,
                              (long long)scan.seen, own.kinds[0].kind, own.kinds[0].first);
    return error_set(err, "%s: it has no records", source->path);
}

/* ---- Sources. ---- */

static int source_make(Source *source, const char *folder, const char *name, double weight,
                       Error *err) {
    *source = (Source){.weight = weight, .fd = -1, .base = -1};
    source->name = strdup(folder ? name : path_name(name));
    source->path = path_join(folder, name, err);
    return source->name && source->path ? 0 : error_set(err, "%s: out of memory", name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const Source *)a)->name, ((const Source *)b)->name);
}

static int mixture_sources(Records *records, const char *folder, const char *path, json_t *ratios,
                           Error *err) {
    size_t count = json_object_size(ratios);
    if (count == 0 || count > INT_MAX)
        return error_set(err, "%s: names no file; expected {\"file\": weight, ...}", path);
    records->sources = calloc(count, sizeof *records->sources);
    if (!records->sources) return error_set(err, "%s: out of memory for %zu files", path, count);
    for (void *i = json_object_iter(ratios); i; i = json_object_iter_next(ratios, i)) {
        const char *name = json_object_iter_key(i);
        const json_t *weight = json_object_iter_value(i);
        double value = json_number_value(weight); /* 0 if it is not a number */
        if (!(value > 0) || !isfinite(value))
            return error_set(err, "%s: the weight of \"%.200s\" must be a number above 0", path,
                             name);
        TRY(source_make(&records->sources[records->source_count++], folder, name, value, err));
    }
    qsort(records->sources, count, sizeof *records->sources, by_name);
    return 0;
}

static int find_sources(Records *records, const char *path, Error *err) {
    struct stat info;
    int found = stat(path, &info);
    bool member = found && errno == ENOTDIR && archive_path(path);
    if (found && !member) return error_set(err, "%s: %s", path, strerror(errno));
    if (member || !S_ISDIR(info.st_mode)) {
        records->sources = calloc(1, sizeof *records->sources);
        if (!records->sources) return error_set(err, "%s: out of memory", path);
        records->source_count = 1;
        return source_make(&records->sources[0], NULL, path, 1, err);
    }
    char *ratio = path_join(path, "ratio.json", err);
    if (!ratio) return -1;
    json_t *ratios = NULL;
    int status = 0;
    if (stat(ratio, &info) != 0)
        status = error_set(err,
                           "%s: a folder without ratio.json; name a file, or a folder whose "
                           "ratio.json gives each file's weight",
                           path);
    if (status == 0) status = config_read(&ratios, ratio, err);
    if (status == 0) status = mixture_sources(records, path, ratio, ratios, err);
    json_decref(ratios);
    free(ratio);
    return status;
}

/* Keeps a temporary file's contents in the common one. */
static int source_store(Records *records, Source *source, Error *err) {
    if (records->spool < 0) records->spool = spool_open(err);
    if (records->spool < 0) return -1;
    source->base = spool_end(records->spool, err);
    return source->base < 0 ? -1 : spool_copy(records->spool, source->fd, source->path, err);
}

static int scan_all(Records *records, const char *path, Skipped *skipped, Error *err) {
    TRY(find_sources(records, path, err));
    for (int s = 0; s < records->source_count; s++) {
        Source *source = &records->sources[s];
        TRY(source_scan(records, source, skipped, err));
        if (s < FILES_OPEN) continue;
        TRY(source->temporary ? source_store(records, source, err) : 0);
        close(source->fd);
        source->fd = -1;
    }
    Entry *fitted = realloc(records->entries, records->count * sizeof *fitted);
    if (fitted) records->entries = fitted;
    return 0;
}

int records_open(Records **records, const char *path, const RecordsOptions *options,
                 Skipped *skipped, Error *err) {
    *records = NULL;
    Records *opened = calloc(1, sizeof *opened);
    if (!opened) return error_set(err, "%s: out of memory", path);
    opened->options = *options;
    opened->spool = -1;
    int status = prompting_open(&opened->prompting, &options->prompt, err);
    if (status == 0 && options->languages)
        status = languages_open(&opened->languages, options->languages, err);
    if (status == 0 && options->images) {
        opened->options.images = opened->images = strdup(options->images);
        if (!opened->images) status = error_set(err, "%s: out of memory", path);
    }
    if (status == 0) status = scan_all(opened, path, skipped, err);
    if (status) {
        records_close(opened);
        return -1;
    }
    *records = opened;
    return 0;
}

static void sources_free(Records *records) {
    for (int s = 0; records->sources && s < records->source_count; s++) {
        Source *source = &records->sources[s];
        if (source->fd >= 0) close(source->fd);
        free(source->path);
        free(source->name);
    }
    free(records->sources);
}

static int check_source(const Records *records, Source *source, Error *err) {
    size_t begin;
    const FormatOptions format = format_options(records, NULL);
    int known = format_file_check(source->path, &format, err);
    if (known) return known < 0 ? -1 : 0;
    int fd = source_open(source, NULL, err);
    if (fd < 0) return -1;
    FileWindow window = {.path = source->path, .fd = fd};
    int status = check_kind(records, source, &window, &begin, err);
    window_free(&window);
    close(fd);
    return status;
}

int records_check(const char *path, const RecordsOptions *options, Error *err) {
    Records records = {.options = *options, .spool = -1};
    int status = prompting_open(&records.prompting, &options->prompt, err);
    if (status == 0 && options->languages)
        status = languages_open(&records.languages, options->languages, err);
    if (status == 0) status = find_sources(&records, path, err);
    for (int s = 0; s < records.source_count && status == 0; s++)
        status = check_source(&records, &records.sources[s], err);
    sources_free(&records);
    prompting_close(&records.prompting);
    languages_close(records.languages);
    return status;
}

void records_close(Records *records) {
    if (!records) return;
    sources_free(records);
    prompting_close(&records->prompting);
    languages_close(records->languages);
    if (records->spool >= 0) close(records->spool);
    free(records->entries);
    free(records->images);
    free(records);
}

/* ---- Queries. ---- */

int64_t records_count(const Records *records) {
    return (int64_t)records->count;
}

int64_t records_scanned(const Records *records) {
    return records->scanned;
}

int records_sources(const Records *records) {
    return records->source_count;
}

const char *records_source(const Records *records, int source, int64_t *begin, int64_t *end,
                           double *weight) {
    const Source *s = &records->sources[source];
    *begin = s->begin;
    *end = s->end;
    *weight = s->weight;
    return s->name;
}

bool records_flawed(const Records *records, int64_t index) {
    return index >= 0 && index < (int64_t)records->count && records->entries[index].flawed;
}

const char *records_source_file(const Records *records, int source, int64_t *bytes,
                                uint64_t *hash) {
    const Source *s = &records->sources[source];
    *bytes = s->bytes;
    *hash = content_hash_value(&s->hash);
    return s->path;
}

uint64_t records_fingerprint(const Records *records) {
    ContentHash all = {0};
    for (int s = 0; s < records->source_count; s++) {
        const Source *source = &records->sources[s];
        uint64_t contents = content_hash_value(&source->hash);
        content_hash_add(&all, &contents, sizeof contents);
        content_hash_add(&all, &source->bytes, sizeof source->bytes);
        content_hash_add(&all, &source->weight, sizeof source->weight);
    }
    content_hash_add(&all, records->entries, records->count * sizeof *records->entries);
    return content_hash_value(&all);
}

/* ---- Reading. ---- */

static const Source *source_of(const Records *records, int64_t index) {
    int first = 0, last = records->source_count - 1;
    while (first < last) {
        int middle = first + (last - first) / 2;
        if (index < records->sources[middle].end)
            last = middle;
        else
            first = middle + 1;
    }
    return &records->sources[first];
}

static int read_bytes(const Records *records, const Source *source, const Entry *entry, char *bytes,
                      Error *err) {
    if (source->base >= 0)
        return file_read_at(records->spool, source->path, bytes, entry->size,
                            source->base + entry->offset, err);
    int fd = source->fd >= 0 ? source->fd : source_open(source, NULL, err);
    if (fd < 0) return -1;
    int status = file_read_at(fd, source->path, bytes, entry->size, entry->offset, err);
    if (source->fd < 0) close(fd);
    return status;
}

int records_read(const Records *records, int64_t index, Record *record, Error *err) {
    *record = (Record){0};
    if (index < 0 || index >= (int64_t)records->count)
        return error_set(err, "no record %lld of %zu", (long long)index, records->count);
    const Source *source = source_of(records, index);
    const Entry *entry = &records->entries[index];
    RecordContext context = context_of(records, source, entry->number, NULL, NULL);
    char *bytes = malloc(entry->size);
    if (!bytes) return error_set(err, "%s: out of memory for a record", source->path);
    int status = read_bytes(records, source, entry, bytes, err);
    if (status == 0)
        status = source->kind == FILE_TEXT
                     ? record_from_text(record, bytes, entry->size, &context, err)
                     : line_record(record, &context, bytes, entry->size, err);
    free(bytes);
    TRY(status);
    if (record->count > 0) return 0;
    return error_set(err, "%s: %s %u has changed since the file was scanned; start again",
                     source->path, context.unit, entry->number);
}

int records_image_path(const Records *records, const Record *record, char *path, int size,
                       Error *err) {
    if (!record->image || !records->images)
        return error_set(err, "record \"%.60s\" has no image, or no folder of images is given",
                         record->id);
    int length = snprintf(path, (size_t)size, "%s/%s", records->images, record->image);
    if (length < 0 || length >= size)
        return error_set(err, "%.200s: its path has more than %d characters", record->image, size);
    return 0;
}
