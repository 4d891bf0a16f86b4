/* model_fresh.h - parts with fresh weights, for models that are made or that get a new part. */
#ifndef EASYFIRST_PROJECTOR_MODEL_FRESH_H
#define EASYFIRST_PROJECTOR_MODEL_FRESH_H

#include "projector/model.h"

/* The type and the seed of fresh weights. */
typedef struct FreshWeights {
    Dtype dtype;
    uint64_t seed;
    bool empty; /* declared only: for model_write_empty and descriptions */
} FreshWeights;

/* Each gives the model a part that is declared, allocated and initialised, not prepared, in place
 * of one that it may have. The projector goes between the vision tower and the language model that
 * are there already, the length predictor reads that language model; their arithmetic is that of
 * the part they read. After a failure model_close is due as ever. */
int model_fresh_vision(Model *model, const VitConfig *config, FreshWeights fresh, Error *err);
int model_fresh_language(Model *model, const XlmrConfig *config, FreshWeights fresh, Error *err);
int model_fresh_projector(Model *model, ProjectorKind kind, FreshWeights fresh, Error *err);
int model_fresh_length(Model *model, int classes, FreshWeights fresh, Error *err);

/* Scales the last layer of a fresh projector so that its output has the scale of the word
 * embeddings which it joins, whatever the tower's features are: over four synthetic images, made
 * from the seed, the output's root mean square becomes that of all word embeddings that are not
 * special tokens'. (The language model adds its positions to both. With weights of one scale for
 * all towers, CLIP's features gave tokens of 6.35 beside words of 0.15 and positions of 0.12, which
 * no layer could see.) Runs the tower, whose weights need values but are left unprepared; call it
 * after model_fresh_projector, before the parts are prepared. */
int model_fresh_projector_scale(Model *model, uint64_t seed, Error *err);

#endif
