/* model_write.h - writing a model folder (model.h): what the commands that make models share. Names
 * are paths within the folder ("vision/config.json"); weights are written by part_write
 * (data/checkpoints/model_files.h). */
#ifndef EASYFIRST_PROJECTOR_MODEL_WRITE_H
#define EASYFIRST_PROJECTOR_MODEL_WRITE_H

#include "projector/model.h"
#include "data/checkpoints/model_files.h"

/* Whether a model folder can be made at `out`: nothing may be there, not even a dangling link, and
 * it may not lie in one of the folders of `inputs` ([count], NULLs and files are skipped), which
 * are read meanwhile. */
int model_check_out(const char *out, const char *const *inputs, int count, Error *err);

/* Makes a folder in the model's. */
int model_write_subfolder(const char *folder, const char *name, Error *err);

/* Takes `json` over; NULL is one that there was no memory for. */
int model_write_json(json_t *json, const char *folder, const char *name, Error *err);

/* easyfirst.json: what `settings` (a model's own; NULL: nothing) says, with the attention and what
 * the vision tower (NULL: none) hands on. */
int model_write_settings(const json_t *settings, AttentionPattern attention, const Tower *tower,
                         const char *folder, Error *err);

/* A part's config.json, to be changed and written; of CLIP's two-tower ones the vision half. Where
 * it tells a type of weights, that is `dtype` now. json_decref it, or hand it
 * to model_write_json. */
int model_config_read(json_t **config, const char *path, Part part, Dtype dtype, Error *err);

/* The same of the config.json beside a part's weights, of their type; it says whether a language
 * model has a head of its own. */
int model_config_beside(json_t **config, const ModelPart *part, Error *err);

/* A part's weights as they came; nothing if the model has no such part. */
int model_write_part(const ModelPart *part, const char *folder, const char *name, Error *err);

/* A declared part without values (FreshWeights.empty), all zero in the file. */
int model_write_empty(const ModelPart *part, const char *folder, const char *name, Error *err);

/* The name of a type of weights in config.json. */
const char *model_config_dtype(Dtype dtype);

/* Copies the file `from` to `name`; nothing if there is no such file. */
int model_copy_file(const char *from, const char *folder, const char *name, Error *err);

/* The same of the file `file` beside a part's weights. */
int model_copy_beside(const ModelPart *part, const char *file, const char *folder, const char *name,
                      Error *err);

#endif
