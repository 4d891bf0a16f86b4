/* model_files.h - writing a model folder's parts.
 *
 * Files are written beside their target, synced and renamed (checkpoint_write); folders are made
 * whole under a temporary name first (folder_begin, folder_commit), so that no reader ever sees
 * half of one.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_MODEL_FILES_H
#define EASYFIRST_DATA_CHECKPOINTS_MODEL_FILES_H

#include <jansson.h>

#include "data/checkpoints/checkpoint.h"
#include "kernels/params.h"

/* Writes all parameters of a table that have values (idle ones, too) as safetensors under their
 * canonical names, in type `dtype`; DTYPE_NONE: each in the type it was given in. With `lora` (may
 * be NULL) each matrix X.weight that has a "base_model.model.X.lora_A.weight", and such a lora_B,
 * there is written as W + scale B A, summed in f32; a matrix of `lora` that belongs to none is an
 * error. Values are fetched from the device a few MB at a time. A tied head is not written twice:
 * the file has the word embeddings, and transformers ties them again. */
int part_write(const Params *params, const Params *lora, double lora_scale, const char *path,
               Dtype dtype, Error *err);

/* The flat tables of training (masters of `params` and moments m, v, each [flat] on the device) to
 * and from a file of their own. Reading checks names and shapes of all parameters against the
 * table, so that the state of another model is refused with the first difference, before anything
 * is changed. The masters are then those of the file, and the working copy follows. The tensors are
 * f32, of each trainable parameter's shape: "<name>", "<name>.m", "<name>.v". */
int training_state_write(const Params *params, Tensor m, Tensor v, const char *path, Error *err);
int training_state_read(Params *params, Tensor m, Tensor v, const char *path, Error *err);

/* A JSON object to a file, indented by 2, atomically and synced. */
int json_write(const json_t *json, const char *path, Error *err);

/* A file copied whole (by a hard link where `link` is true and it works), atomically and synced;
 * symbolic links are followed. */
int file_copy(const char *from, const char *to, bool link, Error *err);

/* Makes a folder "<path>.partial-XXXXXXXX" with a name that nobody can guess, empty but for a
 * hidden marker, and gives its name; the same target's folders that runs left which ended early are
 * removed (their markers are no longer locked), and nothing else. commit syncs everything in it,
 * renames it to `path`, which must not exist (of two at once one wins, the other fails), and syncs
 * the folder above; after a failure the unfinished folder is there still. discard removes it. */
int folder_begin(char *partial, size_t size, const char *path, Error *err);
int folder_commit(const char *partial, const char *path, Error *err);
void folder_discard(const char *partial);

/* Removes what ended runs left unfinished in the folder `above`, of targets whose names begin with
 * `prefix`. */
void folder_clean(const char *above, const char *prefix);

/* Removes a folder with all that is in it; 0 if there is none. Symbolic links in it are removed,
 * not followed; `path` itself may not be one, nor a file. */
int folder_remove(const char *path, Error *err);

#endif
