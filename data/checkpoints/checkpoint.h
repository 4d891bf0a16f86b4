/* checkpoint.h - files of named tensors, read by memory map, and written.
 *
 * Read: safetensors, one file or shards joined by *.index.json; PyTorch .bin/.pt/.pth files, one or
 * shards joined by *.index.json (a zip whose data.pkl names raw storages, or the format before
 * PyTorch 1.6: torch_legacy.h). The pickle reader knows the few opcodes and functions that a state
 * dict needs (rebuilding a tensor, an ordered dict) and refuses everything else: nothing in a file
 * is executed.
 *
 * Every offset, shape and size is checked against the file before a tensor is listed, overlapping
 * ranges of a safetensors file are refused, and a checkpoint with one broken entry is refused as a
 * whole. Tensors of a type that this program does not compute with are listed with DTYPE_NONE and
 * without data.
 *
 * Names in PyTorch files. Dicts (and lists) inside the top dict give names joined by '.':
 * {"encoder": {"weight": t}} is "encoder.weight". Of a trainer's file, whose top dict holds no
 * tensor itself but has a dict of tensors under "state_dict", "model_state_dict", "model" or
 * "module", only the first such dict is read, without that prefix. Objects that are not tensors are
 * ignored, and so are keys that are neither strings nor integers.
 *
 * Opening reads the headers only, with two exceptions whose values are copied into memory: tensors
 * that are not aligned to their element size, and PyTorch tensors that are not contiguous (a
 * transposed view, for example).
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_CHECKPOINT_H
#define EASYFIRST_DATA_CHECKPOINTS_CHECKPOINT_H

#include <stddef.h>

#include "kernels/error.h"
#include "kernels/tensor.h"

/* Quantized weights: next to a tensor NAME of I8 with two dimensions or more, NAME_scale of F32 [the
 * first dimension] has the scale of each row (kernels/int8.h). The two are listed as one tensor,
 * NAME, whose value.scale is set. */
#define CHECKPOINT_SCALE "_scale"

typedef struct CheckpointTensor {
    const char *name;      /* as in the file; owned by the checkpoint */
    Tensor value;          /* contiguous, aligned to its element size; read-only: data points into
                              the memory map, and writing there crashes */
    const char *type_text; /* the file's name of the type, e.g. "F8_E4M3", for messages */
} CheckpointTensor;

typedef struct Checkpoint {
    char *path;
    CheckpointTensor *tensors; /* sorted by name (strcmp), no name twice */
    size_t count;
    struct CheckpointStore *store; /* the mapped files and the memory of names */
} Checkpoint;

/* Opens a file, or a folder: model.safetensors, model.safetensors.index.json, pytorch_model.bin,
 * pytorch_model.bin.index.json, and the same with stem `stem` instead of "model"/"pytorch_model"
 * where stem is not NULL (e.g. "projector" finds projector.safetensors), then *.safetensors, *.bin,
 * *.pt, *.pth if the folder has exactly one such file. The format is recognized by the file's first
 * bytes. On failure *checkpoint is empty. */
int checkpoint_open(Checkpoint *checkpoint, const char *path, const char *stem, Error *err);

/* Frees everything, the tensors' values included, and empties; an empty one may be closed again. */
void checkpoint_close(Checkpoint *checkpoint);

/* NULL if there is none of that name. */
const CheckpointTensor *checkpoint_find(const Checkpoint *checkpoint, const char *name);

/* The name of file `index` of the checkpoint; NULL after the last. Owned by the checkpoint. */
const char *checkpoint_file(const Checkpoint *checkpoint, size_t index);

/* One entry of a file to be written. */
typedef struct CheckpointEntry {
    const char *name;
    Tensor value; /* contiguous, on the host */
} CheckpointEntry;

/* Writes a safetensors file with the metadata {"format": "pt"}. The data begins at a multiple of 64
 * bytes; tensors are in the order given, but those of larger elements before those of smaller ones,
 * which aligns each to its element size without gaps (the format allows none). Written atomically
 * (data/files/file_write.h): after a failure an older file at `path` is unchanged. */
int checkpoint_write(const char *path, const CheckpointEntry *entries, size_t count, Error *err);

/* The same for values that are not all on the host: those of an entry without data are fetched,
 * piece by piece, in the order of the file. `fetch` fills `bytes` with values [first, first +
 * count) of entries[entry], in its type; it may fail with a message. */
typedef int (*CheckpointFetch)(void *user, size_t entry, int64_t first, int64_t count, void *bytes,
                               Error *err);
int checkpoint_write_stream(const char *path, const CheckpointEntry *entries, size_t count,
                            CheckpointFetch fetch, void *user, Error *err);

/* A file of the same header and size whose values are a hole, all zero: it takes no space where the
 * file system has sparse files. Entries need shape and type only. */
int checkpoint_write_empty(const char *path, const CheckpointEntry *entries, size_t count,
                           Error *err);

/* Releases the whole pages within these bytes of a tensor's values (they are read from the file
 * again when touched): for a weight that was copied into a device's layout. Does nothing for values
 * that are a copy. */
void checkpoint_release_pages(const Checkpoint *checkpoint, const void *data, size_t bytes);

#endif
