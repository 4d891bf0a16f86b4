/* model_paths.h - the names of the files in a model folder, and where those of a part are. */
#ifndef EASYFIRST_PROJECTOR_MODEL_PATHS_H
#define EASYFIRST_PROJECTOR_MODEL_PATHS_H

#include "kernels/error.h"

/* The settings in a model folder. */
#define MODEL_SETTINGS "easyfirst.json"

/* The tokenizer's file beside XLM-R's weights. */
#define MODEL_TOKENIZER "sentencepiece.bpe.model"

/* All files that may belong to a tokenizer, for an array of names. */
#define MODEL_TOKENIZER_FILES                                                               \
    MODEL_TOKENIZER, "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", \
        "special_tokens_map.json", "chat_template.jinja"

/* The stem of the two files that the stage `segment` leaves in a model folder for another run of
 * itself: the layer that it trains over the vision tower, and the names of its classes. */
#define MODEL_SEGMENT "segment"

/* Where a part's other files are: "<path>/<name>" if its weights are a folder, else the file `name`
 * beside them. The caller frees it. */
char *model_file_beside(const char *path, const char *name, Error *err);

#endif
