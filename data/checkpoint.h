/* checkpoint.h - files of named tensors, read by memory map, and written.
 *
 * Read: safetensors, one file or shards joined by *.index.json; PyTorch .bin/.pt/.pth files, one or
 * shards joined by *.index.json (a zip whose data.pkl names raw storages). The pickle reader knows
 * the few opcodes and the two functions that a state dict needs (rebuilding a tensor, an ordered
 * dict) and refuses everything else: nothing in a file is ever executed.
 *
 * Every offset, shape and size is checked against the file before a tensor is listed, overlapping
 * ranges of a safetensors file are refused, and a checkpoint with one broken entry is refused whole.
 * Tensors of a type that this program does not compute with are listed with DTYPE_NONE.
 */
#ifndef EASYFIRST_DATA_CHECKPOINT_H
#define EASYFIRST_DATA_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"
#include "kernels/tensor.h"

typedef struct CheckpointTensor {
    const char *name;      /* as in the file; owned by the checkpoint */
    Tensor value;          /* data points into the memory map (read-only), contiguous */
    const char *type_text; /* the file's own word for the type, e.g. "F8_E4M3", for messages */
} CheckpointTensor;

typedef struct Checkpoint {
    char *path;
    CheckpointTensor *tensors; /* sorted by name (strcmp), for checkpoint_find */
    size_t count;
    struct CheckpointMap *maps; /* the mapped files */
    size_t map_count;
    struct CheckpointText *text; /* storage of names */
} Checkpoint;

/* Opens a file, or a folder: model.safetensors, model.safetensors.index.json, pytorch_model.bin,
 * pytorch_model.bin.index.json, and the same with stem `stem` instead of "model"/"pytorch_model"
 * where stem is not NULL (e.g. "projector" finds projector.safetensors), then *.safetensors,
 * *.bin, *.pt, *.pth if the folder has exactly one such file. The kind of a file is recognised by
 * its first bytes. On failure *checkpoint is empty. */
int checkpoint_open(Checkpoint *checkpoint, const char *path, const char *stem, Error *err);
void checkpoint_close(Checkpoint *checkpoint);

/* NULL if there is none of that name. */
const CheckpointTensor *checkpoint_find(const Checkpoint *checkpoint, const char *name);

/* One entry of a file to be written. */
typedef struct CheckpointEntry {
    const char *name;
    Tensor value; /* contiguous, on the host */
} CheckpointEntry;

/* Writes a safetensors file with the metadata {"format": "pt"}, tensors in the order given, data
 * 8-byte aligned. Written beside the target under a temporary name, synced, then renamed: at no
 * moment does a half-written file stand under `path`. */
int checkpoint_write(const char *path, const CheckpointEntry *entries, size_t count, Error *err);

/* Says to the system that the pages of a mapped tensor are not needed in memory for now (they come
 * back from the file when touched): called once a weight has been copied into a device's layout. */
void checkpoint_release_pages(const Tensor *value);

#endif
