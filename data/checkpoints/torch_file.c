/* Reading PyTorch's files: a zip of "<prefix>/data.pkl", a pickle of the state dict, and
 * "<prefix>/data/<key>", the raw values of each storage, of which tensors are views; or a legacy
 * file (torch_legacy.h). */
#include "data/checkpoints/checkpoint_store.h"
#include "data/checkpoints/pickle.h"
#include "data/checkpoints/torch_legacy.h"
#include "data/files/zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_MAX_LENGTH = 1024, /* of a tensor, prefixes included */
    DEPTH_MAX = 32,         /* of dicts in dicts */
    PREFIX_MAX = 256,       /* of the zip's folder, and of a storage's key */
    ENTRY_COST = 64,        /* bytes that a tensor counts besides its name */
};

typedef struct Reader {
    CheckpointStore *store;
    const MappedFile *file;
    bool is_old;
    TorchLegacy old; /* if is_old, else: */
    Zip zip;
    Pickle pickle;
    const char *prefix; /* "archive/": in the map, not terminated */
    size_t prefix_length;
    char name[NAME_MAX_LENGTH + 1]; /* of the current tensor */
    /* Limits for a pickle that refers to one object many times: steps of the walk, bytes of the
     * list of tensors, bytes of copies. Far above what any honest file needs. */
    size_t steps, steps_max, listed, listed_max, copied, copied_max;
    Error *err;
} Reader;

static const PickleObject *object_of(const Reader *r, PickleRef ref) {
    return pickle_object(&r->pickle, ref);
}

static int fail(Reader *r, const char *what) {
    return error_set(r->err, "%s: tensor \"%.200s\": %s; the file is damaged or not a state dict",
                     r->file->path, r->name, what);
}

/* A storage's values in the map, and the type of its elements. */
typedef struct Storage {
    const unsigned char *bytes;
    size_t size;
    const PickleGlobal *type;
} Storage;

/* The bytes of a storage in the zip. */
static int find_entry(Reader *r, const PickleObject *key, const unsigned char **bytes,
                      size_t *size) {
    char name[2 * PREFIX_MAX + 8];
    size_t length = r->prefix_length;
    memcpy(name, r->prefix, length);
    memcpy(name + length, "data/", 5);
    memcpy(name + length + 5, key->text, key->count);
    length += 5 + key->count;
    const ZipEntry *entry = zip_find(&r->zip, name, length);
    if (!entry)
        return error_set(r->err, "%s: tensor \"%.200s\": its values (\"%.*s\") are not in the file",
                         r->file->path, r->name, (int)length, name);
    *size = (size_t)entry->size;
    return zip_bytes(&r->zip, entry, bytes, r->err);
}

static int find_old(Reader *r, const PickleObject *key, const unsigned char **bytes, size_t *size) {
    const LegacyStorage *storage = torch_legacy_find(&r->old, key->text, key->count);
    if (!storage)
        return error_set(r->err, "%s: tensor \"%.200s\": its values (\"%.*s\") are not in the file",
                         r->file->path, r->name, (int)key->count, key->text);
    *bytes = storage->bytes;
    *size = storage->size;
    return 0;
}

static int find_storage(Reader *r, const PickleObject *storage, Storage *found) {
    const PickleObject *type = object_of(r, storage->items[1]);
    const PickleObject *key = object_of(r, storage->items[2]);
    const PickleObject *count = object_of(r, storage->items[4]);
    if (type->kind != PICKLE_GLOBAL || type->global->kind != GLOBAL_STORAGE ||
        key->kind != PICKLE_TEXT || key->count > PREFIX_MAX || count->kind != PICKLE_INT)
        return fail(r, "its storage has an unknown description");
    const unsigned char *bytes = NULL;
    size_t size, present = 0;
    TRY(r->is_old ? find_old(r, key, &bytes, &present) : find_entry(r, key, &bytes, &present));
    if (count->integer < 0 ||
        __builtin_mul_overflow((uint64_t)count->integer, type->global->size, &size) ||
        size > present)
        return error_set(r->err,
                         "%s: tensor \"%.200s\": its storage should have %lld elements of %zu "
                         "bytes, but the file has %zu bytes of them; the file is damaged",
                         r->file->path, r->name, (long long)count->integer, type->global->size,
                         present);
    *found = (Storage){.bytes = bytes, .size = size, .type = type->global};
    return 0;
}

static int read_dims(Reader *r, PickleRef ref, int64_t *dims, int *ndim) {
    const PickleObject *tuple = object_of(r, ref);
    if (tuple->kind != PICKLE_TUPLE) return fail(r, "its shape or strides are not a tuple");
    if (tuple->count > TENSOR_MAX_DIMS)
        return error_set(r->err, "%s: tensor \"%.200s\" has %u dimensions, at most %d expected",
                         r->file->path, r->name, tuple->count, TENSOR_MAX_DIMS);
    *ndim = (int)tuple->count;
    for (int i = 0; i < *ndim; i++) {
        const PickleObject *dim = object_of(r, tuple->items[i]);
        if (dim->kind != PICKLE_INT || dim->integer < 0)
            return fail(r, "its shape or strides hold something other than integers");
        dims[i] = dim->integer;
    }
    return 0;
}

/* A tensor as a view of its storage, in elements. */
typedef struct View {
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS], strides[TENSOR_MAX_DIMS];
    int64_t offset, count;
    size_t size; /* bytes of one element */
} View;

/* Offset + sum of (dimension - 1) * stride is the last element touched. */
static bool view_fits(const View *v, size_t storage_bytes) {
    int64_t last = v->offset;
    if (last < 0) return false;
    if (v->count == 0) return true;
    for (int i = 0; i < v->ndim; i++) {
        int64_t step;
        if (__builtin_mul_overflow(v->shape[i] - 1, v->strides[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    return (uint64_t)last < storage_bytes / v->size;
}

static bool view_contiguous(const View *v) {
    int64_t expected = 1;
    for (int i = v->ndim - 1; i >= 0 && v->count > 0; i--) {
        if (v->shape[i] != 1 && v->strides[i] != expected) return false;
        expected *= v->shape[i];
    }
    return true;
}

/* Copies the elements in the order of the shape; `at` counts like an odometer. */
static void view_copy(const View *v, const unsigned char *from, unsigned char *to) {
    int64_t at[TENSOR_MAX_DIMS] = {0}, position = v->offset;
    for (int64_t i = 0; i < v->count; i++, to += v->size) {
        memcpy(to, from + (size_t)position * v->size, v->size);
        for (int d = v->ndim - 1; d >= 0; d--) {
            position += v->strides[d];
            if (++at[d] < v->shape[d]) break;
            position -= v->strides[d] * v->shape[d];
            at[d] = 0;
        }
    }
}

/* The mapped values if contiguous and aligned, else a copy. */
static int view_values(Reader *r, const View *v, const Storage *storage, void **values) {
    const unsigned char *begin = storage->bytes;
    if (v->count > 0) begin += (size_t)v->offset * v->size;
    *values = (void *)begin;
    if (v->count == 0) {
        *values = (void *)r->file->bytes; /* any address that is aligned */
        return 0;
    }
    if (view_contiguous(v) && (uintptr_t)begin % v->size == 0) return 0;

    size_t bytes = (size_t)v->count * v->size;
    if (bytes > r->copied_max - r->copied)
        return fail(r, "its view repeats values beyond the size of the file");
    r->copied += bytes;
    unsigned char *copy = store_allocate(r->store, bytes, 64);
    if (!copy) return error_set(r->err, "%s: out of memory", r->file->path);
    view_copy(v, storage->bytes, copy);
    *values = copy;
    return 0;
}

static int add_tensor(Reader *r, const PickleObject *tensor) {
    Storage storage = {0};
    TRY(find_storage(r, object_of(r, tensor->items[0]), &storage));
    const PickleGlobal *type = storage.type;
    if (tensor->made_by->kind == GLOBAL_TYPED_TENSOR) {
        const PickleObject *own = object_of(r, tensor->items[6]);
        if (own->kind != PICKLE_GLOBAL || own->global->kind != GLOBAL_DTYPE)
            return fail(r, "its type is not a type");
        type = own->global;
    }

    View v = {.size = type->size};
    int stride_count;
    const PickleObject *offset = object_of(r, tensor->items[1]);
    TRY(read_dims(r, tensor->items[2], v.shape, &v.ndim));
    TRY(read_dims(r, tensor->items[3], v.strides, &stride_count));
    if (offset->kind != PICKLE_INT || stride_count != v.ndim)
        return fail(r, "its offset in its storage has an unknown type");
    v.offset = offset->integer;
    if (!shape_count(v.ndim, v.shape, &v.count) || !view_fits(&v, storage.size)) {
        char shape[200];
        shape_text(shape, sizeof shape, v.ndim, v.shape);
        return error_set(r->err,
                         "%s: tensor \"%.200s\" of shape %s at element %lld reaches beyond its "
                         "storage of %zu bytes; the file is damaged",
                         r->file->path, r->name, shape, (long long)v.offset, storage.size);
    }
    /* A dimension of one element is never stepped along; its stride may be anything. */
    for (int i = 0; i < v.ndim; i++)
        if (v.shape[i] == 1) v.strides[i] = 0;

    void *values = NULL;
    if (type->dtype != DTYPE_NONE) TRY(view_values(r, &v, &storage, &values));
    size_t length = strlen(r->name);
    if (length + ENTRY_COST > r->listed_max - r->listed)
        return fail(r, "the file repeats the same tensors too often");
    r->listed += length + ENTRY_COST;
    CheckpointTensor added = {.name = store_text(r->store, r->name, length),
                              .value = tensor_nd(values, type->dtype, v.ndim, v.shape),
                              .type_text = type->name};
    if (!added.name) return error_set(r->err, "%s: out of memory", r->file->path);
    return store_add(r->store, added, r->file->path, r->err);
}

/* Writes ".<key>" (without the point at the beginning) at r->name + *length and moves *length. 1: a
 * key that gives no name. */
static int extend_name(Reader *r, const PickleObject *key, size_t *length) {
    char digits[32];
    const char *text = key->text;
    size_t count = key->count, point = *length > 0;
    if (key->kind == PICKLE_INT) {
        count = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)key->integer);
        text = digits;
    } else if (key->kind != PICKLE_TEXT) {
        return 1;
    }
    if (count + point > NAME_MAX_LENGTH - *length)
        return fail(r, "a name below it is longer than any parameter's");
    if (memchr(text, 0, count)) return fail(r, "a name below it contains a zero byte");
    if (point) r->name[*length] = '.';
    memcpy(r->name + *length + point, text, count);
    *length += point + count;
    r->name[*length] = 0;
    return 0;
}

static bool is_container(const PickleObject *object) {
    return object->kind == PICKLE_DICT || object->kind == PICKLE_LIST ||
           object->kind == PICKLE_TUPLE;
}

/* Lists the tensors in and under a container whose name is the first `length` bytes of r->name. */
static int walk(Reader *r, const PickleObject *container, size_t length, int depth) {
    if (depth > DEPTH_MAX) return fail(r, "dicts are nested too deeply in it");
    uint32_t width = container->kind == PICKLE_DICT ? 2 : 1;
    for (uint32_t i = 0; i + width <= container->count; i += width) {
        if (++r->steps > r->steps_max) return fail(r, "dicts repeat in it too often");
        const PickleObject *value = object_of(r, container->items[i + width - 1]);
        if (value->kind != PICKLE_TENSOR && !is_container(value)) continue;
        PickleObject index = {.kind = PICKLE_INT, .integer = i};
        size_t extended = length;
        int status =
            extend_name(r, width == 2 ? object_of(r, container->items[i]) : &index, &extended);
        if (status == 0)
            status = value->kind == PICKLE_TENSOR ? add_tensor(r, value)
                                                  : walk(r, value, extended, depth + 1);
        r->name[length] = 0;
        if (status < 0) return -1;
    }
    return 0;
}

static bool holds_tensor(const Reader *r, const PickleObject *dict) {
    for (uint32_t i = 1; i < dict->count; i += 2)
        if (object_of(r, dict->items[i])->kind == PICKLE_TENSOR) return true;
    return false;
}

/* The state dict in a trainer's file: dict itself if it holds a tensor, else the first under one of
 * the usual names, at most three levels down; NULL if there is none. */
static const PickleObject *find_state_dict(const Reader *r, const PickleObject *dict, int levels) {
    static const char *const usual[] = {"state_dict", "model_state_dict", "model", "module"};
    if (holds_tensor(r, dict)) return dict;
    for (size_t k = 0; levels > 0 && k < sizeof usual / sizeof *usual; k++) {
        for (uint32_t i = 0; i + 2 <= dict->count; i += 2) {
            const PickleObject *key = object_of(r, dict->items[i]);
            const PickleObject *value = object_of(r, dict->items[i + 1]);
            if (key->kind != PICKLE_TEXT || value->kind != PICKLE_DICT ||
                key->count != strlen(usual[k]) || memcmp(key->text, usual[k], key->count) != 0)
                continue;
            const PickleObject *found = find_state_dict(r, value, levels - 1);
            if (found) return found;
            break;
        }
    }
    return NULL;
}

/* The folder in the zip is named after the file it was first saved as: found by its data.pkl. */
static int find_pickle(Reader *r, const ZipEntry **entry) {
    static const char wanted[] = "data.pkl";
    size_t length = sizeof wanted - 1;
    *entry = NULL;
    for (size_t i = 0; i < r->zip.count; i++) {
        const ZipEntry *e = &r->zip.entries[i];
        if (e->name_length < length ||
            memcmp(e->name + e->name_length - length, wanted, length) != 0)
            continue;
        if (e->name_length > length && e->name[e->name_length - length - 1] != '/') continue;
        if (*entry)
            return error_set(r->err, "%s: a zip with more than one data.pkl, not a PyTorch file",
                             r->file->path);
        *entry = e;
    }
    if (!*entry)
        return error_set(r->err,
                         "%s: a zip without data.pkl, not a PyTorch file; if it is an archive "
                         "of files, unpack it first",
                         r->file->path);
    if ((*entry)->name_length > PREFIX_MAX)
        return error_set(r->err, "%s: its data.pkl is in a folder of too long a name",
                         r->file->path);
    r->prefix = (*entry)->name;
    r->prefix_length = (*entry)->name_length - length;
    return 0;
}

static int check_byte_order(Reader *r) {
    char name[PREFIX_MAX + 16];
    memcpy(name, r->prefix, r->prefix_length);
    memcpy(name + r->prefix_length, "byteorder", 9);
    const ZipEntry *entry = zip_find(&r->zip, name, r->prefix_length + 9);
    if (!entry) return 0; /* files from before PyTorch 2.1 */
    const unsigned char *bytes;
    TRY(zip_bytes(&r->zip, entry, &bytes, r->err));
    if (entry->size != 6 || memcmp(bytes, "little", 6) != 0)
        return error_set(r->err, "%s: its values are of byte order \"%.*s\", expected \"little\"",
                         r->file->path, (int)(entry->size < 20 ? entry->size : 20),
                         (const char *)bytes);
    return 0;
}

/* Lists the tensors of a pickle that has been read, of `size` bytes. */
static int read_tensors(Reader *r, size_t size) {
    /* An item of a container takes a byte of the pickle or more, and a tensor about two hundred. */
    r->steps_max = 16 * size;
    r->listed_max = 8 * size + (1 << 16);
    r->copied_max = 2 * r->file->size + (1 << 20);
    const PickleObject *top = object_of(r, r->pickle.top);
    if (!is_container(top))
        return error_set(r->err, "%s: holds no dict of tensors; save model.state_dict()",
                         r->file->path);
    const PickleObject *state = top->kind == PICKLE_DICT ? find_state_dict(r, top, 3) : NULL;
    size_t before = r->store->tensor_count;
    TRY(walk(r, state ? state : top, 0, 1));
    if (r->store->tensor_count == before)
        return error_set(r->err, "%s: holds no tensors; save model.state_dict()", r->file->path);
    return 0;
}

static int read_zip(Reader *r) {
    const ZipEntry *entry;
    const unsigned char *bytes;
    TRY(zip_directory_open(&r->zip, r->file, r->err));
    TRY(find_pickle(r, &entry));
    TRY(check_byte_order(r));
    TRY(zip_bytes(&r->zip, entry, &bytes, r->err));
    TRY(pickle_read(&r->pickle, bytes, (size_t)entry->size, r->file->path, r->err));
    return read_tensors(r, (size_t)entry->size);
}

static int read_old(Reader *r) {
    TRY(torch_legacy_read(&r->old, &r->pickle, r->file, r->err));
    return read_tensors(r, r->old.object_size);
}

int torch_file_read(CheckpointStore *store, const MappedFile *file, Error *err) {
    Reader *r = calloc(1, sizeof *r);
    if (!r) return error_set(err, "%s: out of memory", file->path);
    *r = (Reader){.store = store, .file = file, .is_old = torch_legacy_begins(file), .err = err};
    int failed = r->is_old ? read_old(r) : read_zip(r);
    pickle_free(&r->pickle);
    torch_legacy_free(&r->old);
    zip_directory_close(&r->zip);
    free(r);
    return failed;
}
