/* checkpoints.c - fuzz targets of files of tensors. */
#include <stdlib.h>
#include <string.h>

#include "data/checkpoints/checkpoint_store.h"
#include "data/checkpoints/pickle.h"
#include "data/files/zip.h"
#include "tests/fuzz/fuzz.h"

/* Reads every byte of every tensor. */
static void touch(const CheckpointTensor *tensors, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const Tensor *t = &tensors[i].value;
        fuzz_check(tensors[i].name && tensors[i].type_text, "a tensor has a name and a type");
        fuzz_check(t->ndim >= 0 && t->ndim <= TENSOR_MAX_DIMS, "dimensions");
        if (!t->data || t->dtype == DTYPE_NONE) continue;
        int64_t elements;
        fuzz_check(shape_count(t->ndim, t->shape, &elements), "a shape whose product fits");
        fuzz_touch(t->data, (size_t)elements * dtype_size(t->dtype));
    }
}

static void read_tensors(const uint8_t *data, size_t size,
                         int (*reader)(CheckpointStore *store, const MappedFile *file,
                                       Error *err)) {
    if (!size) return; /* empty files are not mapped */
    uint8_t *bytes = fuzz_exact(data, size);
    MappedFile file = {.path = "input", .bytes = bytes, .size = size};
    CheckpointStore store = {0};
    Error err;
    int status = reader(&store, &file, &err);
    fuzz_result(status, &err);
    if (status == 0) touch(store.tensors, store.tensor_count);
    store_free(&store);
    free(bytes);
}

void fuzz_safetensors(const uint8_t *data, size_t size) {
    read_tensors(data, size, safetensors_read);
}

void fuzz_torch(const uint8_t *data, size_t size) {
    read_tensors(data, size, torch_file_read);
}

void fuzz_pickle(const uint8_t *data, size_t size) {
    uint8_t *bytes = fuzz_exact(data, size);
    Pickle pickle;
    Error err;
    int status = pickle_read(&pickle, bytes, size, "input", &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < pickle.count; i++) {
        const PickleObject *o = &pickle.objects[i];
        if (o->kind == PICKLE_TUPLE || o->kind == PICKLE_LIST || o->kind == PICKLE_DICT)
            for (uint32_t k = 0; k < o->count; k++)
                fuzz_check(o->items[k] < pickle.count, "an item is an object");
    }
    if (status == 0) fuzz_check(pickle.top < pickle.count, "the top is an object");
    pickle_free(&pickle);
    free(bytes);
}

void fuzz_zip(const uint8_t *data, size_t size) {
    if (!size) return;
    uint8_t *bytes = fuzz_exact(data, size);
    MappedFile file = {.path = "input", .bytes = bytes, .size = size};
    Zip zip;
    Error err;
    int status = zip_directory_open(&zip, &file, &err);
    fuzz_result(status, &err);
    for (size_t i = 0; status == 0 && i < zip.count; i++) {
        const ZipEntry *entry = &zip.entries[i];
        const unsigned char *found;
        fuzz_check(zip_find(&zip, entry->name, entry->name_length) != NULL, "an entry is found");
        if (zip_bytes(&zip, entry, &found, &err) == 0)
            fuzz_touch(found, entry->size);
        else
            fuzz_result(-1, &err);
    }
    zip_directory_close(&zip);
    free(bytes);
}

/* The index of existing shards. */
void fuzz_index(const uint8_t *data, size_t size) {
    fuzz_tree("tests/golden/checkpoint/sharded", "sharded");
    const char *path = fuzz_write(0, "sharded/model.safetensors.index.json", data, size);
    Checkpoint checkpoint;
    Error err;
    int status = checkpoint_open(&checkpoint, path, NULL, &err);
    fuzz_result(status, &err);
    if (status == 0) touch(checkpoint.tensors, checkpoint.count);
    checkpoint_close(&checkpoint);
}
