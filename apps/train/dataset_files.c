#include "apps/train/dataset_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/json.h"
#include "data/model_files.h"
#include "data/json_read.h"
#include "data/path.h"

enum { HASH_SIZE = 17 };

static void hash_text(char text[HASH_SIZE], uint64_t hash) {
    snprintf(text, HASH_SIZE, "%016" PRIx64, hash);
}

static json_t *files_json(const Dataset *d) {
    json_t *list = json_array();
    for (int i = 0; i < d->read_count && list; i++) {
        char hash[HASH_SIZE];
        hash_text(hash, d->read[i].hash);
        json_t *one = json_pack("{s:o, s:I, s:s}", "path", json_text(d->read[i].path), "bytes",
                                (json_int_t)d->read[i].bytes, "hash", hash);
        if (json_array_append_new(list, one)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *kinds_json(const Problems *problems, bool notes) {
    json_t *object = json_object();
    for (int i = 0; i < problems->kind_count && object; i++) {
        const Problem *p = &problems->kinds[i];
        if (p->note != notes) continue;
        json_t *one =
            json_pack("{s:I, s:o}", "count", (json_int_t)p->count, "first", json_text(p->first));
        if (json_object_set_new(object, p->kind, one)) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

int dataset_files_write(const Dataset *d, const char *run, Error *err) {
    json_t *object =
        json_pack("{s:o, s:I, s:I, s:o, s:o}", "files", files_json(d), "records",
                  (json_int_t)d->samples, "used", (json_int_t)d->count, "skipped",
                  kinds_json(&d->problems, false), "notes", kinds_json(&d->problems, true));
    char *path = path_join(run, "data.json", err);
    int status = -1;
    if (path) status = object ? json_write(object, path, err) : error_set(err, "out of memory");
    free(path);
    json_decref(object);
    return status;
}

/* What is different about one file; 0 if nothing is. */
static int file_differs(const DatasetFile *now, const json_t *then, Error *err) {
    char hash[HASH_SIZE];
    const char *path = json_string_value(json_object_get(then, "path"));
    const char *print = json_string_value(json_object_get(then, "hash"));
    json_int_t bytes = json_integer_value(json_object_get(then, "bytes"));
    hash_text(hash, now->hash);
    if (print && !strcmp(print, hash) && bytes == now->bytes) return 0;
    return error_set(err,
                     "%s: its contents are not those that the run was begun with (%" PRId64
                     " bytes now; %lld bytes of %s then)",
                     now->path, now->bytes, (long long)bytes, path ? path : "a file");
}

int dataset_files_differ(const Dataset *d, const char *run, Error *err) {
    char *path = path_join(run, "data.json", err);
    json_t *then = NULL;
    int status = path ? json_read_file(&then, path, 0, 0, 0, err) : -1;
    free(path);
    if (status)
        return error_context(err, "the data are not those of this run, and which of them "
                                  "changed is not known");
    const json_t *files = json_object_get(then, "files");
    size_t count = json_array_size(files);
    for (size_t i = 0; i < count && i < (size_t)d->read_count && status == 0; i++)
        status = file_differs(&d->read[i], json_array_get(files, i), err);
    if (status == 0 && count != (size_t)d->read_count)
        status = error_set(err, "the run was begun with %zu files of data, now there are %d", count,
                           d->read_count);
    if (status == 0)
        status = error_set(err, "the files of data are the same, but other records of them can be "
                                "used (images were added or removed), or ratio.json has other "
                                "weights");
    json_decref(then);
    return status;
}
