#include "data/checkpoints/checkpoint_store.h"

#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"

enum { BLOCK_ALIGN = 64, BLOCK_SIZE = 1 << 16 };

typedef struct StoreBlock {
    struct StoreBlock *next;
    size_t used, capacity; /* of the bytes that follow, at BLOCK_ALIGN from the block's begin */
} StoreBlock;

_Static_assert(sizeof(StoreBlock) <= BLOCK_ALIGN, "the block's header must fit before its bytes");

void store_free(CheckpointStore *store) {
    for (size_t i = 0; i < store->file_count; i++) mapped_file_close(&store->files[i]);
    free(store->files);
    free(store->tensors);
    for (StoreBlock *block = store->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *store = (CheckpointStore){0};
}

int store_map(CheckpointStore *store, const char *path, MappedFile *file, Error *err) {
    if (store->file_count == store->file_capacity) {
        void *files = array_grow(store->files, &store->file_capacity, sizeof *store->files);
        if (!files) return error_set(err, "%s: out of memory", path);
        store->files = files;
    }
    TRY(mapped_file_open(file, path, err));
    store->files[store->file_count++] = *file;
    return 0;
}

void *store_allocate(CheckpointStore *store, size_t size, size_t align) {
    StoreBlock *block = store->blocks;
    size_t at = block ? (block->used + align - 1) & ~(align - 1) : 0;
    if (!block || at > block->capacity || size > block->capacity - at) {
        if (size > SIZE_MAX / 2) return NULL;
        size_t capacity = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        capacity = (capacity + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
        block = aligned_alloc(BLOCK_ALIGN, BLOCK_ALIGN + capacity);
        if (!block) return NULL;
        *block = (StoreBlock){.next = store->blocks, .capacity = capacity};
        store->blocks = block;
        at = 0;
    }
    block->used = at + size;
    return (char *)block + BLOCK_ALIGN + at;
}

char *store_text(CheckpointStore *store, const char *text, size_t length) {
    char *copy = store_allocate(store, length + 1, 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

int store_add(CheckpointStore *store, CheckpointTensor tensor, const char *path, Error *err) {
    if (store->tensor_count == store->tensor_capacity) {
        void *tensors = array_grow(store->tensors, &store->tensor_capacity, sizeof *store->tensors);
        if (!tensors) return error_set(err, "%s: out of memory", path);
        store->tensors = tensors;
    }
    store->tensors[store->tensor_count++] = tensor;
    return 0;
}

bool shape_count(int ndim, const int64_t *shape, int64_t *count) {
    int64_t product = 1;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(product, shape[i], &product))
            return false;
    }
    if (product > INT64_MAX / 16) return false; /* leaves room for bytes of any element type */
    *count = empty ? 0 : product;
    return true;
}
