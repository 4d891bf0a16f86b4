/* Writing safetensors (checkpoint_write): a header made with jansson, then the values as they are.
 */
#include "data/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Indexed by Dtype. */
static const char *const type_names[DTYPE_COUNT] = {
    [DTYPE_F32] = "F32", [DTYPE_BF16] = "BF16", [DTYPE_F16] = "F16", [DTYPE_F64] = "F64",
    [DTYPE_I64] = "I64", [DTYPE_I32] = "I32",   [DTYPE_I16] = "I16", [DTYPE_I8] = "I8",
    [DTYPE_U8] = "U8",   [DTYPE_BOOL] = "BOOL",
};

enum { DATA_ALIGN = 64, LARGEST_ELEMENT = 8 };

static int check_entry(const char *path, const CheckpointEntry *entry, const json_t *header,
                       Error *err) {
    const Tensor *t = &entry->value;
    if (!dtype_size(t->dtype))
        return error_set(err, "%s: tensor \"%.200s\" has no type that can be written", path,
                         entry->name);
    if (t->ndim > 1 && t->ld != t->shape[t->ndim - 1])
        return error_set(err,
                         "%s: tensor \"%.200s\" is a column slice, only whole matrices can be "
                         "written",
                         path, entry->name);
    if (!t->data && tensor_count(*t) > 0)
        return error_set(err, "%s: tensor \"%.200s\" has no values on the host", path, entry->name);
    if (json_object_get(header, entry->name))
        return error_set(err, "%s: the name \"%.200s\" is used twice or reserved", path,
                         entry->name);
    return 0;
}

static int add_entry(const char *path, const CheckpointEntry *entry, json_t *header, size_t *offset,
                     Error *err) {
    TRY(check_entry(path, entry, header, err));
    size_t begin = *offset, end = begin + tensor_bytes(entry->value);
    json_t *shape = json_array();
    for (int i = 0; shape && i < entry->value.ndim; i++)
        json_array_append_new(shape, json_integer(entry->value.shape[i]));
    json_t *fields = json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_names[entry->value.dtype],
                               "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
    if (json_object_set_new(header, entry->name, fields) != 0) /* takes `fields` in any case */
        return error_set(err, "%s: the tensor name \"%.200s\" is not valid UTF-8", path,
                         entry->name);
    *offset = end;
    return 0;
}

/* The header's text, padded with spaces; *ordered gets the entries in the order of their data. */
static char *make_header(const char *path, const CheckpointEntry *entries, size_t count,
                         const CheckpointEntry **ordered, size_t *length, Error *err) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t offset = 0, used = 0;
    int failed = header ? 0 : error_set(err, "%s: out of memory", path);
    /* Sizes 8, 4, 2, 1, then what add_entry refuses. */
    for (size_t size = LARGEST_ELEMENT; !failed; size /= 2) {
        for (size_t i = 0; i < count && !failed; i++) {
            if (dtype_size(entries[i].value.dtype) != size) continue;
            ordered[used++] = &entries[i];
            failed = add_entry(path, &entries[i], header, &offset, err);
        }
        if (size == 0) break;
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
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

static int write_all(int fd, const void *bytes, size_t size) {
    for (const char *at = bytes; size > 0;) {
        /* One call moves at most 2 GiB; a short write is not an error, the next one tells. */
        ssize_t done = write(fd, at, size < (1u << 30) ? size : (1u << 30));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return -1;
        at += done;
        size -= (size_t)done;
    }
    return 0;
}

static int write_file(int fd, const char *header, size_t length, const CheckpointEntry **ordered,
                      size_t count) {
    uint64_t prefix = length;
    TRY(write_all(fd, &prefix, sizeof prefix));
    TRY(write_all(fd, header, length));
    for (size_t i = 0; i < count; i++)
        TRY(write_all(fd, ordered[i]->value.data, tensor_bytes(ordered[i]->value)));
    return fsync(fd);
}

/* A new file beside `path`, in the same folder so that rename stays on one file system. open's own
 * mode, not mkstemp's 0600: the result gets the permissions of any file the user makes. */
static int open_beside(const char *path, char *name, size_t size) {
    for (int i = 0; i < 1000; i++) {
        snprintf(name, size, "%s.part-%ld-%d", path, (long)getpid(), i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

/* A rename is on the disk once its folder is. Some file systems cannot sync a folder (EINVAL). */
static int sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash == path ? strdup("/")
                   : slash       ? strndup(path, (size_t)(slash - path))
                                 : strdup(".");
    if (!folder) return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0) return -1;
    int failed = fsync(fd) != 0 && errno != EINVAL;
    int problem = errno;
    close(fd);
    errno = problem;
    return failed ? -1 : 0;
}

static int replace_file(const char *path, char *beside, size_t size, const char *header,
                        size_t length, const CheckpointEntry **ordered, size_t count, Error *err) {
    int fd = open_beside(path, beside, size);
    if (fd < 0) return error_set(err, "%s: cannot be written: %s", path, strerror(errno));
    int failed = write_file(fd, header, length, ordered, count);
    int problem = errno;
    if (close(fd) != 0 && !failed) failed = -1, problem = errno;
    if (!failed && rename(beside, path) != 0) failed = -1, problem = errno;
    if (failed) {
        unlink(beside);
        return error_set(err, "%s: writing failed: %s; what was there before is unchanged", path,
                         strerror(problem));
    }
    if (sync_folder(path) != 0)
        return error_set(err, "%s: written, but its folder cannot be synced: %s", path,
                         strerror(errno));
    return 0;
}

int checkpoint_write(const char *path, const CheckpointEntry *entries, size_t count, Error *err) {
    size_t size = strlen(path) + 64, length;
    char *beside = malloc(size);
    const CheckpointEntry **ordered = malloc((count + 1) * sizeof *ordered);
    if (!beside || !ordered) {
        free(beside);
        free(ordered);
        return error_set(err, "%s: out of memory", path);
    }
    char *header = make_header(path, entries, count, ordered, &length, err);
    int failed =
        header ? replace_file(path, beside, size, header, length, ordered, count, err) : -1;
    free(header);
    free(ordered);
    free(beside);
    return failed;
}
