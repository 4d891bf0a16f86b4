/* language.h - a language model of either kind, XLM-R (or another encoder) or LLaMA's, and what
 * decoding needs to know of it: which tokens are around a text, and which row predicts a position.
 */
#ifndef EASYFIRST_LANGUAGE_LANGUAGE_H
#define EASYFIRST_LANGUAGE_LANGUAGE_H

#include "language/llama.h"
#include "language/xlmr.h"

enum { LANGUAGE_STOPS = 16 };

/* Copied freely: the model itself belongs to whoever declared it. */
typedef struct LanguageModel {
    const Xlmr *xlmr;   /* one of these two; both NULL: no language model */
    const Llama *llama; /* ... */
    int32_t begin, end; /* the special tokens before and after a sequence; -1: none */
    bool shifted;       /* the row of position i - 1 predicts position i, as in models made from
                           autoregressive ones */
    int32_t stops[LANGUAGE_STOPS]; /* [stop_count]: tokens that end an answer's text */
    int stop_count;
    struct Spread *spread; /* NULL: all of it is on this device; else see spread.h */
} LanguageModel;

/* With XLM-R's and RoBERTa's <s> and </s>, or, of other encoders, with no special tokens yet; with
 * no special tokens. */
LanguageModel language_of_xlmr(const Xlmr *xlmr);
LanguageModel language_of_llama(const Llama *llama);

static inline bool language_present(const LanguageModel *m) {
    return m->xlmr || m->llama;
}

/* How many of the first `count` tokens are before the first one that ends an answer. */
int language_text_length(const LanguageModel *model, const int32_t *tokens, int count);

/* Chat templates write the token that begins a sequence, which every sequence has anyway: drops it
 * from a prompt, ids [*count]. */
void language_drop_begin(const LanguageModel *model, int32_t *ids, size_t *count);

/* Rows of special tokens around a sequence: 0 to 2. */
int language_frame_rows(const LanguageModel *model);

/* ---- Of both kinds; the model must be present. ---- */

const BlockConfig *language_block(const LanguageModel *model);
int language_layers(const LanguageModel *model);
int language_vocab(const LanguageModel *model);
int language_longest(const LanguageModel *model);        /* the longest sequence */
int language_first_position(const LanguageModel *model); /* the number of a sequence's first row */
const Params *language_params(const LanguageModel *model);
/* Of the vocabulary, unless the model is spread: see below. */
Tensor language_vocab_weights(const LanguageModel *model);
Tensor language_vocab_bias(const LanguageModel *model); /* TENSOR_NONE: none */

/* See xlmr_forward and xlmr_head. */
size_t language_work_bytes(const LanguageModel *model, int tokens);
size_t language_head_bytes(const LanguageModel *model, int rows);
int language_forward(const LanguageModel *model, Arena *arena, const XlmrBatch *batch,
                     Tensor *hidden, const LayerHook *hook, Error *err);
int language_head(const LanguageModel *model, Arena *arena, Tensor hidden, const int32_t *rows,
                  int count, Tensor *features, Error *err);

/* The vocabulary on features [R, D]: vocab_propose; the logits [R, V] on the host, by way of y [R, V]
 * f32 on the device; -log p of targets [R]. */
int language_propose(const LanguageModel *model, Device *device, int32_t *tokens, float *scores,
                     Tensor features, const VocabChoice *choice, Error *err);
int language_logits(const LanguageModel *model, Device *device, float *logits, Tensor y,
                    Tensor features, Error *err);
int language_losses(const LanguageModel *model, Arena *arena, float *losses, Tensor features,
                    const int32_t *targets, Error *err);
size_t language_losses_bytes(int rows);

#endif
