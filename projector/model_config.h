/* model_config.h - the JSON files of a model's parts: what tensors cannot tell.
 *
 * A value that would change what the part computes is followed or refused by name, never passed
 * over. What has no influence on inference (dropout, initialisation, versions) is not looked at.
 * Values that a file lacks are transformers' defaults.
 */
#ifndef EASYFIRST_PROJECTOR_MODEL_CONFIG_H
#define EASYFIRST_PROJECTOR_MODEL_CONFIG_H

#include <jansson.h>

#include "data/checkpoints/part.h"
#include "language/infill.h"
#include "projector/calibration.h"
#include "vision/preprocess.h"
#include "vision/tower.h"

/* A model folder's easyfirst.json, checked: its values are of their types, prompts and languages
 * are known ones. */
typedef struct ModelSettings {
    json_t
        *json; /* the caller's; NULL: the folder has no such file, and all else is as by default */
    AttentionPattern attention;
    int answer_position, answer_length, pad_answers;
    Calibration calibration;
} ModelSettings;

/* On failure nothing is the caller's. */
int model_settings_read(ModelSettings *settings, const char *folder, Error *err);

/* The shape of a tensor that must be there and have `ndim` dimensions, to read sizes from. */
int model_tensor_sizes(const Checkpoint *c, Part part, const char *name, int ndim,
                       const int64_t **shape, Error *err);

/* Sizes from the tensors, the rest from the config.json beside them; where both say something, they
 * must agree. CLIP's and LLaVA's two-part configurations are read in their vision half;
 * v->feature_layer and v->class_token are LLaVA's, if it says them, else -2 and false. */
int model_vision_config(const Checkpoint *c, VitConfig *v, Error *err);

/* The same for an EfficientNet-Lite; net->class_token is false. Of each block the tensors tell all
 * but its stride: config.json has "strides", one for each stage (a run of blocks with one number of
 * channels, or as "num_block_repeats" says), by default EfficientNet's. */
int model_efficientnet_config(const Checkpoint *c, EfficientNetConfig *net, Error *err);

/* Of an encoder: XLM-R, RoBERTa, BERT or ModernBERT. Base and large differ from XL and XXL by
 * their tensors: one stored XXL configuration has the model type of the smaller ones. `thorough`: as
 * part_head_untied. */
int model_language_config(const Checkpoint *c, XlmrConfig *x, bool thorough, Error *err);

/* Whether the tensors have the names of LLaMA's kind (LLaMA, Qwen2, Dream) or LLaDA's. */
bool model_is_llama(const Checkpoint *c);

/* The same for such a model. m->shifted and the tokens in m->stops are config.json's. */
int model_llama_config(const Checkpoint *c, LlamaConfig *l, LanguageModel *m, Error *err);

/* preprocessor_config.json in or beside `path`, if it is there: mean and deviation are taken from
 * it, and everything else in it must be what preprocess_image does for a tower of p->size. */
int model_preprocess_config(PreprocessConfig *p, const char *path, Error *err);

#endif
