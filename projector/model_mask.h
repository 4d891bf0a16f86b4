/* model_mask.h - a token to mask for an autoregressive model that is to be adapted to masked
 * diffusion. */
#ifndef EASYFIRST_PROJECTOR_MODEL_MASK_H
#define EASYFIRST_PROJECTOR_MODEL_MASK_H

#include "projector/model.h"

/* The token's name in the vocabulary. */
#define MODEL_MASK "<|mask|>"

/* Writes the model folder `out`, which must not exist: the options' language model and its folder's
 * settings, with a mask token after the tokenizer's last one. The token embeddings, and the head if
 * it is another matrix, get a row for it, or its row gets new values, if they have one already: the
 * mean of the tokens' rows. Other parts are not written. Errors: a model that has a mask, or
 * is not of LLaMA's kind; 8-bit weights. */
int model_add_mask(const ModelOptions *options, Device *device, const char *out, Error *err);

#endif
