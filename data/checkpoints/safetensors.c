/* Reading safetensors: 8 bytes header length (little-endian), a JSON object {name: {"dtype",
 * "shape", "data_offsets": [begin, end]}}, then the data that the offsets count from.
 * https://huggingface.co/docs/safetensors */
#include "data/checkpoints/checkpoint_store.h"
#include "data/files/json_read.h"
#include "data/files/json_memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the files are little-endian, and their values are used in place"
#endif

/* Bytes of a header and of its tree. The reference implementation's limit of a header is 100 MB; no
 * public model has one of more than a few. The tree of 100,000 tensors takes about 200 MB. */
enum { HEADER_MAX = 100000000, TREE_MAX = 256 << 20 };

/* The format's types with their bits, those including those that are not supported: their sizes are
 * checked all the same. */
static const struct {
    const char *name;
    Dtype dtype;
    int bits;
} type_table[] = {
    {"F32", DTYPE_F32, 32},         {"F16", DTYPE_F16, 16},     {"BF16", DTYPE_BF16, 16},
    {"F64", DTYPE_F64, 64},         {"I64", DTYPE_I64, 64},     {"I32", DTYPE_I32, 32},
    {"I16", DTYPE_I16, 16},         {"I8", DTYPE_I8, 8},        {"U8", DTYPE_U8, 8},
    {"BOOL", DTYPE_BOOL, 8},        {"U16", DTYPE_NONE, 16},    {"U32", DTYPE_NONE, 32},
    {"U64", DTYPE_NONE, 64},        {"C64", DTYPE_NONE, 64},    {"F8_E4M3", DTYPE_NONE, 8},
    {"F8_E5M2", DTYPE_NONE, 8},     {"F8_E8M0", DTYPE_NONE, 8}, {"F6_E2M3", DTYPE_NONE, 6},
    {"F6_E3M2", DTYPE_NONE, 6},     {"F4", DTYPE_NONE, 4},      {"F8_E4M3FNUZ", DTYPE_NONE, 8},
    {"F8_E5M2FNUZ", DTYPE_NONE, 8},
};
enum { TYPE_COUNT = sizeof type_table / sizeof *type_table };

/* The byte range of a tensor, for the overlap check. */
typedef struct Range {
    size_t begin, end;
    const char *name;
} Range;

typedef struct Reader {
    CheckpointStore *store;
    const char *path;
    const unsigned char *data; /* what offsets count from */
    size_t data_size;
    Range *ranges;
    size_t range_count;
    Error *err;
} Reader;

static int read_shape(const Reader *r, const char *name, const json_t *shape, Tensor *value) {
    if (!json_is_array(shape))
        return error_set(r->err, "%s: tensor \"%.200s\" has no \"shape\" list", r->path, name);
    size_t ndim = json_array_size(shape);
    if (ndim > TENSOR_MAX_DIMS)
        return error_set(r->err, "%s: tensor \"%.200s\" has %zu dimensions, at most %d expected",
                         r->path, name, ndim, TENSOR_MAX_DIMS);
    int64_t dims[TENSOR_MAX_DIMS];
    for (size_t i = 0; i < ndim; i++) {
        const json_t *dim = json_array_get(shape, i);
        dims[i] = json_integer_value(dim);
        if (!json_is_integer(dim) || dims[i] < 0)
            return error_set(r->err,
                             "%s: tensor \"%.200s\": dimension %zu of its shape is not an integer "
                             "of 0 or more; the file is damaged",
                             r->path, name, i);
    }
    *value = tensor_nd(NULL, DTYPE_NONE, (int)ndim, dims);
    return 0;
}

static int read_offsets(const Reader *r, const char *name, const json_t *offsets, Range *range) {
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return error_set(r->err, "%s: tensor \"%.200s\" has no \"data_offsets\" [begin, end]",
                         r->path, name);
    long long b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b)
        return error_set(
            r->err,
            "%s: tensor \"%.200s\": data_offsets [%lld, %lld] are not a range; the file "
            "is damaged",
            r->path, name, b, e);
    if ((unsigned long long)e > r->data_size)
        return error_set(r->err,
                         "%s: tensor \"%.200s\" ends at byte %lld of the data, but the file has "
                         "only %zu; it is cut off or damaged: copy or download it again",
                         r->path, name, e, r->data_size);
    *range = (Range){.begin = (size_t)b, .end = (size_t)e, .name = name};
    return 0;
}

/* Sets the type and compares shape x type with the range's size. An unknown type has no size to
 * compare with. */
static int check_size(const Reader *r, const char *type, const Range *range, Tensor *value) {
    char shape[160];
    shape_text(shape, sizeof shape, value->ndim, value->shape);
    int64_t count;
    if (!shape_count(value->ndim, value->shape, &count))
        return error_set(r->err, "%s: tensor \"%.200s\": shape %s is impossibly large", r->path,
                         range->name, shape);
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(type, type_table[i].name) != 0) continue;
        /* Divided first: count x bits may be more than 64 bits hold, bytes never are. */
        size_t n = (size_t)count, bits = (size_t)type_table[i].bits;
        size_t needed = n / 8 * bits + (n % 8 * bits + 7) / 8, found = range->end - range->begin;
        if (needed != found)
            return error_set(r->err,
                             "%s: tensor \"%.200s\": %s of shape %s needs %zu bytes, but its "
                             "data_offsets hold %zu; the file is damaged",
                             r->path, range->name, type, shape, needed, found);
        value->dtype = type_table[i].dtype;
    }
    return 0;
}

static int read_entry(Reader *r, const char *key, const json_t *entry) {
    if (!json_is_object(entry))
        return error_set(r->err, "%s: header entry \"%.200s\" is not a JSON object", r->path, key);
    const json_t *type = json_object_get(entry, "dtype");
    if (!json_is_string(type))
        return error_set(r->err, "%s: tensor \"%.200s\" has no \"dtype\"", r->path, key);

    CheckpointTensor tensor = {
        .name = store_text(r->store, key, strlen(key)),
        .type_text = store_text(r->store, json_string_value(type), json_string_length(type))};
    if (!tensor.name || !tensor.type_text) return error_set(r->err, "%s: out of memory", r->path);

    Range *range = &r->ranges[r->range_count];
    TRY(read_shape(r, tensor.name, json_object_get(entry, "shape"), &tensor.value));
    TRY(read_offsets(r, tensor.name, json_object_get(entry, "data_offsets"), range));
    TRY(check_size(r, tensor.type_text, range, &tensor.value));
    r->range_count++;
    if (tensor.value.dtype != DTYPE_NONE) tensor.value.data = (void *)(r->data + range->begin);
    return store_add(r->store, tensor, r->path, r->err);
}

static int range_compare(const void *a, const void *b) {
    const Range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* No writer makes tensors that share bytes: refused, as by the reference. Sorted by begin, without
 * empty ranges, only neighbors need to be compared. */
static int check_overlaps(Reader *r) {
    qsort(r->ranges, r->range_count, sizeof *r->ranges, range_compare);
    const Range *last = NULL;
    for (size_t i = 0; i < r->range_count; i++) {
        const Range *range = &r->ranges[i];
        if (range->begin == range->end) continue;
        if (last && range->begin < last->end)
            return error_set(r->err,
                             "%s: tensors \"%.200s\" and \"%.200s\" overlap; the file is damaged",
                             r->path, last->name, range->name);
        last = range;
    }
    return 0;
}

/* A header that was not padded (older writers) puts the data at odd addresses, where reading it as
 * numbers is undefined: such tensors are copied. Ranges were checked not to overlap, so the copies
 * are smaller than the file. */
static int align_tensors(Reader *r, size_t first) {
    for (size_t i = first; i < r->store->tensor_count; i++) {
        Tensor *value = &r->store->tensors[i].value;
        size_t size = dtype_size(value->dtype), bytes = tensor_bytes(*value);
        if (!size || (uintptr_t)value->data % size == 0) continue;
        void *copy = store_allocate(r->store, bytes, 64);
        if (!copy) return error_set(r->err, "%s: out of memory", r->path);
        memcpy(copy, value->data, bytes);
        value->data = copy;
    }
    return 0;
}

static int read_entries(Reader *r, json_t *header) {
    if (!json_is_object(header))
        return error_set(r->err, "%s: the header is not a JSON object; the file is damaged",
                         r->path);
    r->ranges = malloc((json_object_size(header) + 1) * sizeof *r->ranges);
    if (!r->ranges) return error_set(r->err, "%s: out of memory", r->path);

    size_t first = r->store->tensor_count;
    const char *key;
    json_t *entry;
    json_object_foreach(header, key, entry) {
        if (strcmp(key, "__metadata__") != 0) TRY(read_entry(r, key, entry));
    }
    TRY(check_overlaps(r));
    return align_tensors(r, first);
}

int safetensors_read(CheckpointStore *store, const MappedFile *file, Error *err) {
    if (file->size < 8)
        return error_set(err, "%s: only %zu bytes, a safetensors file has more; it is cut off",
                         file->path, file->size);
    uint64_t length;
    memcpy(&length, file->bytes, sizeof length);
    if (length > HEADER_MAX)
        return error_set(
            err,
            "%s: header of %llu bytes, at most %d expected; the file is damaged or not a "
            "safetensors file",
            file->path, (unsigned long long)length, HEADER_MAX);
    if (length > file->size - 8)
        return error_set(err,
                         "%s: header of %llu bytes, but the file has only %zu; it is cut off: copy "
                         "or download it again",
                         file->path, (unsigned long long)length, file->size);

    char heavy[160];
    if (json_too_heavy((const char *)file->bytes + 8, (size_t)length, TREE_MAX, heavy,
                       sizeof heavy))
        return error_set(err, "%s: its header: %s", file->path, heavy);
    json_error_t error;
    json_t *header = json_loadb_whole((const char *)file->bytes + 8, (size_t)length,
                                      JSON_REJECT_DUPLICATES, &error);
    if (!header && json_error_code(&error) == json_error_out_of_memory)
        return error_set(err, "%s: out of memory for its header of %llu bytes", file->path,
                         (unsigned long long)length);
    if (!header)
        return error_set(err, "%s: bad JSON at byte %d of the header: %s; the file is damaged",
                         file->path, error.position, error.text);
    Reader reader = {.store = store,
                     .path = file->path,
                     .data = file->bytes + 8 + length,
                     .data_size = file->size - 8 - (size_t)length,
                     .err = err};
    int failed = read_entries(&reader, header);
    free(reader.ranges);
    json_decref(header);
    return failed;
}
