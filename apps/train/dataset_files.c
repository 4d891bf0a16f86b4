#include "apps/train/dataset_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "apps/cli/json.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"

enum { HASH_SIZE = 17 };

static json_t *files_json(const Dataset *d) {
    json_t *list = json_array();
    for (int i = 0; i < d->read_count && list; i++) {
        char hash[HASH_SIZE];
        snprintf(hash, sizeof hash, "%016" PRIx64, d->read[i].hash);
        json_t *one = json_pack("{s:o, s:I, s:s}", "path", json_text(d->read[i].path), "bytes",
                                (json_int_t)d->read[i].bytes, "hash", hash);
        if (json_array_append_new(list, one)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *kinds_json(const Skipped *skipped, bool notes) {
    json_t *object = json_object();
    for (int i = 0; i < skipped->kind_count && object; i++) {
        const SkippedKind *p = &skipped->kinds[i];
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

static json_t *dataset_json(const Dataset *d) {
    return json_pack("{s:o, s:I, s:I, s:o, s:o}", "files", files_json(d), "records",
                     (json_int_t)d->samples, "used", (json_int_t)d->count, "skipped",
                     kinds_json(&d->skipped, false), "notes", kinds_json(&d->skipped, true));
}

int dataset_files_write(const Dataset *data, const Dataset *valid, const char *run, Error *err) {
    json_t *object = dataset_json(data);
    if (object && valid && json_object_set_new(object, "valid", dataset_json(valid))) {
        json_decref(object);
        object = NULL;
    }
    char *path = path_join(run, "data.json", err);
    int status = -1;
    if (path) status = object ? json_write(object, path, err) : error_set(err, "out of memory");
    free(path);
    json_decref(object);
    return status;
}
