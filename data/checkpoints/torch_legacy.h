/* torch_legacy.h - PyTorch's files from before version 1.6, and those of torch.save with
 * _use_new_zipfile_serialization=False.
 *
 * Five pickles, one after the other: a magic number, the protocol (1001), system information, the
 * object, and the keys of its storages in the order of the file. Then for each of these its number
 * of elements (64 bits) and its values.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_TORCH_LEGACY_H
#define EASYFIRST_DATA_CHECKPOINTS_TORCH_LEGACY_H

#include <stdbool.h>

#include "data/files/mapped_file.h"
#include "data/checkpoints/pickle.h"

typedef struct LegacyStorage {
    const char *key; /* in the map, not terminated */
    size_t key_length;
    size_t element; /* bytes */
    const unsigned char *bytes;
    size_t size;
} LegacyStorage;

typedef struct TorchLegacy {
    LegacyStorage *storages; /* sorted by key */
    size_t count;
    size_t object_size; /* bytes of the object's pickle */
} TorchLegacy;

/* Whether the file begins with the magic number. */
bool torch_legacy_begins(const MappedFile *file);

/* Reads the object's pickle and finds all storages; the file must outlive both. On failure both are
 * empty. */
int torch_legacy_read(TorchLegacy *legacy, Pickle *object, const MappedFile *file, Error *err);
void torch_legacy_free(TorchLegacy *legacy);

/* NULL if no storage has that key, or the file's list lacks its values. */
const LegacyStorage *torch_legacy_find(const TorchLegacy *legacy, const char *key, size_t length);

#endif
