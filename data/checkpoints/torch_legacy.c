#include "data/checkpoints/torch_legacy.h"

#include <stdlib.h>
#include <string.h>

enum { PROTOCOL = 1001, MAGIC_SIZE = 12 };

/* The magic number as LONG1 writes it, after the pickle's protocol and, from protocol 4 on, a
 * frame. */
static const unsigned char magic[MAGIC_SIZE] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                                0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
static const size_t magic_places[] = {2, 11};

bool torch_legacy_begins(const MappedFile *file) {
    if (file->size < 2 || file->bytes[0] != 0x80) return false;
    for (int i = 0; i < 2; i++)
        if (file->size >= magic_places[i] + MAGIC_SIZE &&
            !memcmp(file->bytes + magic_places[i], magic, MAGIC_SIZE))
            return true;
    return false;
}

static int key_order(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int storage_order(const void *a, const void *b) {
    const LegacyStorage *x = a, *y = b;
    return key_order(x->key, x->key_length, y->key, y->key_length);
}

static LegacyStorage *find(const TorchLegacy *legacy, const char *key, size_t length) {
    LegacyStorage wanted = {.key = key, .key_length = length};
    if (!legacy->count) return NULL;
    return bsearch(&wanted, legacy->storages, legacy->count, sizeof wanted, storage_order);
}

const LegacyStorage *torch_legacy_find(const TorchLegacy *legacy, const char *key, size_t length) {
    const LegacyStorage *found = find(legacy, key, length);
    return found && found->bytes ? found : NULL;
}

void torch_legacy_free(TorchLegacy *legacy) {
    free(legacy->storages);
    *legacy = (TorchLegacy){0};
}

/* The position in the file after what was read. */
typedef struct Place {
    const MappedFile *file;
    size_t at;
    Error *err;
} Place;

static int next_pickle(Place *p, Pickle *pickle) {
    size_t read;
    TRY(pickle_read_first(pickle, p->file->bytes + p->at, p->file->size - p->at, &read,
                          p->file->path, p->err));
    p->at += read;
    return 0;
}

static bool is_text(const PickleObject *object, const char *text) {
    return object->kind == PICKLE_TEXT && object->count == strlen(text) &&
           !memcmp(object->text, text, object->count);
}

static bool says_big_endian(const Pickle *facts) {
    const PickleObject *dict = pickle_object(facts, facts->top);
    if (dict->kind != PICKLE_DICT) return false;
    for (uint32_t i = 0; i + 2 <= dict->count; i += 2) {
        const PickleObject *value = pickle_object(facts, dict->items[i + 1]);
        if (is_text(pickle_object(facts, dict->items[i]), "little_endian"))
            return value->kind == PICKLE_INT && !value->integer;
    }
    return false;
}

/* Magic number, protocol, and system information. */
static int read_head(Place *p) {
    Pickle pickle;
    for (int i = 0; i < 3; i++) {
        TRY(next_pickle(p, &pickle));
        const PickleObject *top = pickle_object(&pickle, pickle.top);
        int failed = 0;
        if (i == 1 && (top->kind != PICKLE_INT || top->integer != PROTOCOL))
            failed = error_set(p->err, "%s: an old PyTorch file of an unknown protocol (not %d)",
                               p->file->path, PROTOCOL);
        if (i == 2 && says_big_endian(&pickle))
            failed = error_set(p->err,
                               "%s: its values are big-endian, expected little-endian; save it "
                               "again on such a machine, or as safetensors",
                               p->file->path);
        pickle_free(&pickle);
        if (failed) return -1;
    }
    return 0;
}

static int fail(const Place *p, const char *what) {
    return error_set(p->err, "%s: an old PyTorch file: %s; the file is damaged", p->file->path,
                     what);
}

/* The object's storages: key and size of an element. */
static int list_storages(TorchLegacy *legacy, const Pickle *object, const Place *p) {
    size_t count = 0;
    for (size_t i = 0; i < object->count; i++) count += object->objects[i].kind == PICKLE_STORAGE;
    legacy->storages = calloc(count + 1, sizeof *legacy->storages);
    if (!legacy->storages) return error_set(p->err, "%s: out of memory", p->file->path);
    for (size_t i = 0; i < object->count; i++) {
        const PickleObject *storage = &object->objects[i];
        if (storage->kind != PICKLE_STORAGE) continue;
        const PickleObject *type = pickle_object(object, storage->items[1]);
        const PickleObject *key = pickle_object(object, storage->items[2]);
        if (type->kind != PICKLE_GLOBAL || type->global->kind != GLOBAL_STORAGE ||
            key->kind != PICKLE_TEXT)
            return fail(p, "a storage has an unknown description");
        if (storage->count > 5 && pickle_object(object, storage->items[5])->kind != PICKLE_OTHER)
            return error_set(p->err,
                             "%s: has storages that are views of others, as PyTorch before 0.4 "
                             "wrote them; load it there and save model.state_dict() again",
                             p->file->path);
        legacy->storages[legacy->count++] = (LegacyStorage){
            .key = key->text, .key_length = key->count, .element = type->global->size};
    }
    if (count) qsort(legacy->storages, count, sizeof *legacy->storages, storage_order);
    size_t kept = 0;
    for (size_t i = 0; i < legacy->count; i++) {
        const LegacyStorage *s = &legacy->storages[i];
        LegacyStorage *last = kept ? &legacy->storages[kept - 1] : NULL;
        if (!last || storage_order(last, s))
            legacy->storages[kept++] = *s;
        else if (last->element != s->element)
            return fail(p, "one storage has two types");
    }
    legacy->count = kept;
    return 0;
}

/* The values of the storage `key`, which are next in the file. */
static int take_values(TorchLegacy *legacy, const PickleObject *key, Place *p) {
    if (key->kind != PICKLE_TEXT) return fail(p, "its list of storages is not a list");
    LegacyStorage *storage = find(legacy, key->text, key->count);
    if (!storage || storage->bytes)
        return fail(p, "its list names a storage twice, or one that no tensor has");
    int64_t count;
    size_t left = p->file->size - p->at;
    if (left < sizeof count) return fail(p, "it ends before the values of its tensors");
    memcpy(&count, p->file->bytes + p->at, sizeof count);
    left -= sizeof count;
    if (count < 0 || (uint64_t)count > left / storage->element)
        return error_set(p->err,
                         "%s: a storage should have %lld elements of %zu bytes, but only %zu bytes "
                         "follow; the file is cut off: copy or download it again",
                         p->file->path, (long long)count, storage->element, left);
    storage->bytes = p->file->bytes + p->at + sizeof count;
    storage->size = (size_t)count * storage->element;
    p->at += sizeof count + storage->size;
    return 0;
}

static int find_values(TorchLegacy *legacy, Place *p) {
    Pickle keys;
    TRY(next_pickle(p, &keys));
    const PickleObject *list = pickle_object(&keys, keys.top);
    int failed = list->kind == PICKLE_LIST ? 0 : fail(p, "it has no list of storages");
    for (uint32_t i = 0; !failed && i < list->count; i++)
        failed = take_values(legacy, pickle_object(&keys, list->items[i]), p);
    pickle_free(&keys);
    return failed;
}

int torch_legacy_read(TorchLegacy *legacy, Pickle *object, const MappedFile *file, Error *err) {
    *legacy = (TorchLegacy){0};
    *object = (Pickle){0};
    Place p = {.file = file, .err = err};
    TRY(read_head(&p));
    size_t begin = p.at;
    TRY(next_pickle(&p, object));
    legacy->object_size = p.at - begin;
    if (list_storages(legacy, object, &p) == 0 && find_values(legacy, &p) == 0) return 0;
    torch_legacy_free(legacy);
    pickle_free(object);
    return -1;
}
