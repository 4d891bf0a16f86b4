/* new_llama.h - a model folder with a fresh language model of LLaMA's kind, for `easyfirst new`. */
#ifndef EASYFIRST_APPS_NEW_LLAMA_H
#define EASYFIRST_APPS_NEW_LLAMA_H

#include "language/infill.h"

typedef enum NewKind { NEW_XLMR, NEW_LLAMA, NEW_LLADA } NewKind;
extern const char *const new_kind_names[]; /* "xlm-r", "llama", "llada" */

typedef struct NewLlama {
    const char *out;
    const char *tokenizer; /* a folder, or its tokenizer.json or sentencepiece.bpe.model */
    NewKind kind;
    int layers, width, heads, key_heads, ffn, positions;
    int vocab;                  /* 0: as many as the tokenizer has */
    bool attention_given;       /* else full, or causal without a mask token */
    AttentionPattern attention; /* ... */
    Dtype dtype;
    uint64_t seed;
    bool empty; /* weights that are a hole in the file */
} NewLlama;

/* Makes the folder and prints what it has. Errors: sizes that do not go together, a tokenizer
 * without what the attention needs. */
int new_llama(const NewLlama *what, Device *device, Error *err);

#endif
