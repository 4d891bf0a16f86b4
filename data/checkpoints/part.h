/* part.h - from a checkpoint's tensors to a model part's parameter table.
 *
 * The same parameters stand in public files under several names: with and without "vision_model.",
 * under "model." in the released Flan-XLM-R state dicts, under "module.", "_orig_mod." or
 * "base_model.model." where a wrapper was saved, as "multi_modal_projector.linear_1" in
 * Hugging Face's LLaVA files. A part knows these variants, finds out which one a file uses, and
 * fills the table, whose own names are Hugging Face's.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_PART_H
#define EASYFIRST_DATA_CHECKPOINTS_PART_H

#include "data/checkpoints/checkpoint.h"
#include "kernels/params.h"

typedef enum Part { PART_VISION, PART_LANGUAGE, PART_PROJECTOR, PART_LENGTH } Part;

const char *part_name(Part part); /* "vision tower", "language model", ... */

/* The tensor that is this parameter in the file's naming; NULL if there is none. `name` is the
 * canonical one. */
const CheckpointTensor *part_find(const Checkpoint *checkpoint, Part part, const char *name);

/* Whether the file has this part at all. */
bool part_present(const Checkpoint *checkpoint, Part part);

/* Whether the language model's head has a matrix of its own: lm_head.decoder.weight is there, not
 * empty, and other than the word embeddings. A second copy of these is compared whole if
 * `thorough`, which reads it from the file; else in a few places, which can take a matrix for the
 * same that differs somewhere else. */
bool part_head_untied(const Checkpoint *checkpoint, bool thorough);

/* What loading found, for messages and `info`. */
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

/* params_prepare, letting go of each weight's pages in the file once it is packed. */
int part_prepare(PartSources *sources, Dtype compute, Error *err);

/* The same, told now and then how many bytes of the file were prepared since the last call. */
typedef struct PartProgress {
    void (*tell)(void *user, size_t bytes); /* NULL: nobody asks */
    void *user;
} PartProgress;
int part_prepare_with_progress(PartSources *sources, Dtype compute, PartProgress progress,
                               Error *err);

/* The names of tensors that no part of `parts` took, though they are of a part that is taken from
 * this file or of none that is known, and that are not known to change nothing (a text tower, a
 * pooler, position_ids, ...); `write` is called for each. Returns how many. */
int part_unknown(const Checkpoint *checkpoint, const PartSources *sources, int source_count,
                 void (*write)(void *user, const CheckpointTensor *tensor), void *user);

/* An error that names the first such tensor of a file, from which all of `sources` ([count]) are:
 * what it was trained with is not what would be computed (a projector's third layer, say). */
int part_check_unknown(const PartSources *sources, int count, Error *err);

/* The error for a file that has no such part: what it has instead, where that is known. */
int part_missing(const Checkpoint *checkpoint, Part part, Error *err);

#endif
