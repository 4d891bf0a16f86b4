/* Writing safetensors (checkpoint_write, checkpoint_write_stream): a header made with jansson, then
 * the raw values. */
#include "data/checkpoints/checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_write.h"
#include "data/files/json_memory.h"

/* Indexed by Dtype. */
static const char *const type_names[DTYPE_COUNT] = {
    [DTYPE_F32] = "F32", [DTYPE_BF16] = "BF16", [DTYPE_F16] = "F16", [DTYPE_F64] = "F64",
    [DTYPE_I64] = "I64", [DTYPE_I32] = "I32",   [DTYPE_I16] = "I16", [DTYPE_I8] = "I8",
    [DTYPE_U8] = "U8",   [DTYPE_BOOL] = "BOOL",
};

enum { DATA_ALIGN = 64, LARGEST_ELEMENT = 8 };

static int check_entry(const char *path, const CheckpointEntry *entry, bool fetched,
                       const json_t *header, Error *err) {
    const Tensor *t = &entry->value;
    if (!dtype_size(t->dtype))
        return error_set(err, "%s: tensor \"%.200s\" has no type that can be written", path,
                         entry->name);
    if (t->ndim > 1 && t->ld != t->shape[t->ndim - 1])
        return error_set(err,
                         "%s: tensor \"%.200s\" is a column slice, only whole matrices can be "
                         "written",
                         path, entry->name);
    if (!t->data && !fetched && tensor_count(*t) > 0)
        return error_set(err, "%s: tensor \"%.200s\" has no values on the host", path, entry->name);
    if (json_object_get(header, entry->name))
        return error_set(err, "%s: the name \"%.200s\" is used twice or reserved", path,
                         entry->name);
    return 0;
}

static int add_entry(const char *path, const CheckpointEntry *entry, bool fetched, json_t *header,
                     size_t *offset, Error *err) {
    TRY(check_entry(path, entry, fetched, header, err));
    size_t begin = *offset, end = begin + tensor_bytes(entry->value);
    json_t *shape = json_array();
    int failed = shape ? 0 : -1;
    for (int i = 0; shape && i < entry->value.ndim; i++)
        failed |= json_array_append_new(shape, json_integer(entry->value.shape[i]));
    json_t *fields = json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_names[entry->value.dtype],
                               "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
    if (json_object_set_new(header, entry->name, fields) != 0) /* owns `fields` even on failure */
        return error_set(err, "%s: the tensor name \"%.200s\" is not valid UTF-8, or out of memory",
                         path, entry->name);
    if (failed) return error_set(err, "%s: out of memory", path);
    *offset = end;
    return 0;
}

/* The header's text, padded with spaces; *ordered gets the entries in the order of their data. */
static char *make_header(const char *path, const CheckpointEntry *entries, size_t count,
                         bool fetched, const CheckpointEntry **ordered, size_t *length,
                         Error *err) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t offset = 0, used = 0;
    int failed = header ? 0 : error_set(err, "%s: out of memory", path);
    /* Sizes 8, 4, 2, 1, then those that add_entry refuses. */
    for (size_t size = LARGEST_ELEMENT; !failed; size /= 2) {
        for (size_t i = 0; i < count && !failed; i++) {
            if (dtype_size(entries[i].value.dtype) != size) continue;
            ordered[used++] = &entries[i];
            failed = add_entry(path, &entries[i], fetched, header, &offset, err);
        }
        if (size == 0) break;
    }
    char *text = failed ? NULL : json_dumps_whole(header, JSON_COMPACT);
    json_decref(header);
    if (!text) {
        if (!failed) error_set(err, "%s: out of memory", path);
        return NULL;
    }
    size_t size = strlen(text);
    *length = (8 + size + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN - 8;
    char *padded = realloc(text, *length + 1);
    if (!padded) {
        free(text);
        error_set(err, "%s: out of memory", path);
        return NULL;
    }
    memset(padded + size, ' ', *length - size);
    padded[*length] = 0;
    return padded;
}

/* ---- The values. ---- */

/* Bytes fetched at a time. */
enum { PIECE = 4 << 20 };

typedef struct Writing {
    FileWriter file;
    const CheckpointEntry *entries;
    CheckpointFetch fetch;
    void *user;
    void *piece; /* [PIECE] bytes */
} Writing;

static int write_fetched(Writing *w, const CheckpointEntry *entry, Error *err) {
    int64_t n = tensor_count(entry->value), size = (int64_t)dtype_size(entry->value.dtype);
    int64_t most = PIECE / size;
    for (int64_t first = 0; first < n; first += most) {
        int64_t count = n - first < most ? n - first : most;
        TRY(w->fetch(w->user, (size_t)(entry - w->entries), first, count, w->piece, err));
        TRY(file_write_bytes(&w->file, w->piece, (size_t)(count * size), err));
    }
    return 0;
}

static int write_file(Writing *w, const char *header, size_t length,
                      const CheckpointEntry **ordered, size_t count, Error *err) {
    uint64_t prefix = length;
    TRY(file_write_bytes(&w->file, &prefix, sizeof prefix, err));
    TRY(file_write_bytes(&w->file, header, length, err));
    for (size_t i = 0; i < count; i++)
        if (ordered[i]->value.data)
            TRY(file_write_bytes(&w->file, ordered[i]->value.data, tensor_bytes(ordered[i]->value),
                                 err));
        else
            TRY(write_fetched(w, ordered[i], err));
    return 0;
}

static int write_values(Writing *w, const char *path, const char *header, size_t length,
                        const CheckpointEntry **ordered, size_t count, Error *err) {
    uint64_t size = sizeof(uint64_t) + length;
    for (size_t i = 0; i < count; i++) size += tensor_bytes(ordered[i]->value);
    if (w->fetch && !(w->piece = malloc(PIECE))) return error_set(err, "%s: out of memory", path);
    int failed = file_write_begin(&w->file, path, size, err);
    if (!failed)
        failed = file_write_end(&w->file, write_file(w, header, length, ordered, count, err), err);
    free(w->piece);
    return failed;
}

int checkpoint_write_stream(const char *path, const CheckpointEntry *entries, size_t count,
                            CheckpointFetch fetch, void *user, Error *err) {
    size_t length;
    const CheckpointEntry **ordered = malloc((count + 1) * sizeof *ordered);
    if (!ordered) return error_set(err, "%s: out of memory", path);
    Writing writing = {.entries = entries, .fetch = fetch, .user = user};
    char *header = make_header(path, entries, count, fetch != NULL, ordered, &length, err);
    int failed = header ? write_values(&writing, path, header, length, ordered, count, err) : -1;
    free(header);
    free(ordered);
    return failed;
}

/* The header, and up to the file's end nothing. */
static int write_hole(FileWriter *file, const char *header, size_t length, uint64_t size,
                      Error *err) {
    uint64_t prefix = length;
    TRY(file_write_bytes(file, &prefix, sizeof prefix, err));
    TRY(file_write_bytes(file, header, length, err));
    if (ftruncate(file->fd, (off_t)size) != 0)
        return error_set(err, "%s: cannot be %llu bytes long: %s", file->path,
                         (unsigned long long)size, strerror(errno));
    return 0;
}

int checkpoint_write_empty(const char *path, const CheckpointEntry *entries, size_t count,
                           Error *err) {
    size_t length;
    const CheckpointEntry **ordered = malloc((count + 1) * sizeof *ordered);
    if (!ordered) return error_set(err, "%s: out of memory", path);
    char *header = make_header(path, entries, count, true, ordered, &length, err);
    uint64_t size = header ? sizeof(uint64_t) + length : 0;
    for (size_t i = 0; header && i < count; i++) size += tensor_bytes(entries[i].value);
    FileWriter file;
    int failed = header ? file_write_begin(&file, path, 0, err) : -1;
    if (!failed) failed = file_write_end(&file, write_hole(&file, header, length, size, err), err);
    free(header);
    free(ordered);
    return failed;
}

int checkpoint_write(const char *path, const CheckpointEntry *entries, size_t count, Error *err) {
    return checkpoint_write_stream(path, entries, count, NULL, NULL, err);
}
