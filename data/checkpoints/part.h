/* part.h - from a checkpoint's tensors to a model part's parameter table.
 *
 * Public files name the same parameters in several ways: with and without "vision_model.", under
 * "model." in the released Flan-XLM-R state dicts, under "module.", "_orig_mod." or
 * "base_model.model." where a wrapper was saved, as "multi_modal_projector.linear_1" in Hugging
 * Face's LLaVA files. A part knows these variants, detects which one a file uses, and fills the
 * table, whose own names are Hugging Face's.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_PART_H
#define EASYFIRST_DATA_CHECKPOINTS_PART_H

#include "data/checkpoints/checkpoint.h"
#include "kernels/params.h"

typedef enum Part { PART_VISION, PART_LANGUAGE, PART_PROJECTOR, PART_LENGTH } Part;

const char *part_name(Part part); /* "vision tower", "language model", ... */

/* The tensor of this parameter in the file's naming; NULL if there is none. `name` is the canonical
 * one. */
const CheckpointTensor *part_find(const Checkpoint *checkpoint, Part part, const char *name);

/* Whether the file has this part at all. */
bool part_present(const Checkpoint *checkpoint, Part part);

/* Whether an encoder's head is untied: lm_head.decoder.weight (or BERT's) exists, is not empty, and
 * differs from the word embeddings. `thorough` compares all values, which reads both from the file;
 * else only a few places, which can miss a difference. */
bool part_head_untied(const Checkpoint *checkpoint, bool thorough);

/* Which tensors were loaded, for messages and `info`. */
typedef struct PartSources {
    Part part;
    const Checkpoint *checkpoint;
    const CheckpointTensor **tensors; /* [params->count], NULL where the file has none */
    Params *params;
} PartSources;

/* Gives every parameter its values. Errors name the file and the tensor: missing (with how many
 * more), wrong shape (found, expected), wrong type. *sources is for part_prepare; free with
 * part_sources_free. */
int part_load(Params *params, const Checkpoint *checkpoint, Part part, PartSources *sources,
              Error *err);
void part_sources_free(PartSources *sources);

/* params_prepare that releases each weight's pages in the file once it is packed. */
int part_prepare(PartSources *sources, Dtype compute, Error *err);

/* The same with a progress callback: the bytes of the file prepared since the last call. */
typedef struct PartProgress {
    void (*tell)(void *user, size_t bytes); /* may be NULL */
    void *user;
} PartProgress;
int part_prepare_with_progress(PartSources *sources, Dtype compute, PartProgress progress,
                               Error *err);

/* Calls `write` for each tensor that none of `sources` used, though it is of a part that was loaded
 * from this file or of an unknown part, except those known to have no effect (a text tower, a
 * pooler, position_ids, ...). Returns how many. */
int part_unknown(const Checkpoint *checkpoint, const PartSources *sources, int source_count,
                 void (*write)(void *user, const CheckpointTensor *tensor), void *user);

/* Fails with the name of the first such tensor of the file of `sources` [count]: the model was
 * trained with something that would not be computed (a projector's third layer, for example). */
int part_check_unknown(const PartSources *sources, int count, Error *err);

/* Sets the error for a file without this part: what it has instead, if known. */
int part_missing(const Checkpoint *checkpoint, Part part, Error *err);

#endif
