/* checkpoint_store.h - the contents of a checkpoint, filled by the readers of the formats.
 *
 * Private to data/: the mapped files, the list of tensors, and memory for their names and for the
 * few values that must be copied.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_CHECKPOINT_STORE_H
#define EASYFIRST_DATA_CHECKPOINTS_CHECKPOINT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/checkpoints/checkpoint.h"
#include "data/files/mapped_file.h"
#include "kernels/error.h"
#include "kernels/tensor.h"

typedef struct CheckpointStore {
    MappedFile *files;
    size_t file_count, file_capacity;
    CheckpointTensor *tensors;
    size_t tensor_count, tensor_capacity;
    struct StoreBlock *blocks; /* the memory that store_allocate hands out, newest first */
} CheckpointStore;

void store_free(CheckpointStore *store);

/* Maps a file and copies the handle to *file; the store closes it. */
int store_map(CheckpointStore *store, const char *path, MappedFile *file, Error *err);

/* Memory that lives as long as the store; `align` is a power of two up to 64. NULL: out of
 * memory. */
void *store_allocate(CheckpointStore *store, size_t size, size_t align);

/* The first `length` bytes of text with a 0 after them; NULL: out of memory. */
char *store_text(CheckpointStore *store, const char *text, size_t length);

/* Appends; the strings must outlive the store. `path` is for the message. */
int store_add(CheckpointStore *store, CheckpointTensor tensor, const char *path, Error *err);

/* Joins I8 tensors with their scales (CHECKPOINT_SCALE), which are no longer listed by themselves;
 * the tensors are sorted by name. Scales of another type or shape, or not above 0, are errors. */
int store_join_scales(CheckpointStore *store, const char *path, Error *err);

/* True if the product of the dimensions fits, even with zeros counted as ones, so that no partial
 * product can overflow; then *count is the number of elements. No dimension may be negative. */
bool shape_count(int ndim, const int64_t *shape, int64_t *count);

/* Each reads one file and adds its tensors. On failure the store may hold some of them. */
int safetensors_read(CheckpointStore *store, const MappedFile *file, Error *err);
int torch_file_read(CheckpointStore *store, const MappedFile *file, Error *err);

#endif
