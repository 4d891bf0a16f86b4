/* model_files.h - writing a model folder's parts.
 *
 * Files and folders are written under a temporary name, synced and renamed (checkpoint_write;
 * folder_begin, folder_commit), so that no reader sees an incomplete one.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_MODEL_FILES_H
#define EASYFIRST_DATA_CHECKPOINTS_MODEL_FILES_H

#include <jansson.h>

#include "data/checkpoints/checkpoint.h"
#include "kernels/params.h"

/* Writes all parameters of a table that have values (idle ones, too) as safetensors under their
 * canonical names, in type `dtype`; DTYPE_NONE: each in the type it was given in, i8 with its scales
 * (CHECKPOINT_SCALE) if it was not trained. With `lora` (may
 * be NULL) each matrix X.weight that has a "base_model.model.X.lora_A.weight", and such a lora_B,
 * there is written as W + scale B A, summed in f32; a `lora` matrix without a base weight is an
 * error. Values are fetched from the device a few MB at a time. A tied head is not written twice:
 * the file has the word embeddings, and transformers ties them again. */
int part_write(const Params *params, const Params *lora, double lora_scale, const char *path,
               Dtype dtype, Error *err);

/* The same without LoRA. part_write_int8 quantizes the matrices, tables and convolutions of at least
 * 1,024 values in rows of at least 16 (kernels/int8.h); all else, and what is i8 already, is
 * written as it was given. part_write_dequantized writes what is i8 as `dtype` and all else as it
 * was given. A value that is not finite cannot be quantized: an error. */
int part_write_int8(const Params *params, const char *path, Error *err);
int part_write_dequantized(const Params *params, const char *path, Dtype dtype, Error *err);

/* Whether part_write_int8 quantizes it. */
bool param_quantized(const Param *param);

/* The flat tables of training (masters of `params` and moments m, v, each [flat] on the device) to
 * and from a file of their own. Reading checks names and shapes of all parameters against the
 * table, so that the state of another model is refused with the first difference, before anything
 * is changed. It also updates the working copy. The tensors are f32, of each trainable parameter's
 * shape: "<name>", "<name>.m", "<name>.v". */
int training_state_write(const Params *params, Tensor m, Tensor v, const char *path, Error *err);
int training_state_read(Params *params, Tensor m, Tensor v, const char *path, Error *err);

/* Writes a JSON object to a file, indented by 2, atomically. */
int json_write(const json_t *json, const char *path, Error *err);

/* Copies a file (by a hard link where `link` is true and that works), atomically; symbolic links
 * are followed. */
int file_copy(const char *from, const char *to, bool link, Error *err);

/* folder_begin makes a folder "<path>.partial-XXXXXXXX" with a random name, empty but for a hidden
 * marker, and returns its name; it also removes the target's partial folders of runs that ended
 * early (their markers are no longer locked), and nothing else. folder_commit syncs everything in
 * it, renames it to `path`, which must not exist (of two at once one wins, the other fails), and
 * syncs the parent folder; after a failure the partial folder still exists. folder_discard removes
 * it. */
int folder_begin(char *partial, size_t size, const char *path, Error *err);
int folder_commit(const char *partial, const char *path, Error *err);
void folder_discard(const char *partial);

/* Removes partial folders of runs that have ended from the folder `above`, for targets whose names
 * begin with `prefix`. */
void folder_clean(const char *above, const char *prefix);

/* Removes a folder recursively; 0 if it does not exist. Symbolic links in it are removed, not
 * followed; `path` itself may not be one, nor a file. */
int folder_remove(const char *path, Error *err);

#endif
