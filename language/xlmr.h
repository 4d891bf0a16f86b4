/* xlmr.h - XLM-R, the masked language model (Conneau et al., 2020), and XLM-R-XL (Goyal et al.,
 * 2021).
 *
 * Word, position and type embeddings, then blocks: post-LN with a LayerNorm over the embeddings
 * (base, large), or pre-LN with a final LayerNorm (XL, XXL). The head is dense, GELU, LayerNorm,
 * and the word embeddings again with a bias; it is a function of its own, since only answer rows
 * need it.
 *
 * As a diffusion language model it has no input for time: a canvas with more masks is an earlier
 * one.
 */
#ifndef EASYFIRST_LANGUAGE_XLMR_H
#define EASYFIRST_LANGUAGE_XLMR_H

#include "kernels/block.h"

typedef struct XlmrConfig {
    int vocab, layers;
    int positions; /* rows of the position table: 2 more than the longest sequence */
    BlockConfig block;
    bool untied; /* the head has a matrix of its own, lm_head.decoder.weight */
} XlmrConfig;

enum { XLMR_FIRST_POSITION = 2 }; /* fairseq counts positions from the pad id + 1 */

typedef struct Xlmr {
    XlmrConfig config;
    Params *params;
    Block *blocks;                  /* [layers] */
    Tensor words, positions, types; /* tables [V, D], [P, D], [1, D] */
    Tensor norm_w, norm_b;          /* over the embeddings (post-LN) or the last block (pre-LN) */
    Tensor head_w, head_b, head_norm_w, head_norm_b, vocab_w, vocab_b;
} Xlmr;

/* Checks the configuration and declares the parameters under Hugging Face's names ("roberta....",
 * "lm_head...."). The model must stay where it is until xlmr_free. */
int xlmr_declare(Xlmr *xlmr, const XlmrConfig *config, Params *params, Error *err);
void xlmr_free(Xlmr *xlmr);

static inline int xlmr_longest(const XlmrConfig *config) {
    return config->positions - XLMR_FIRST_POSITION;
}

/* Sequences end to end. Index arrays are on the host. */
typedef struct XlmrBatch {
    int tokens;                /* T */
    const int32_t *ids;        /* [T], -1 where the row is not a word */
    const int32_t *image_rows; /* [T], row of image_tokens, -1 at words; NULL if there are none */
    const int32_t *positions;  /* [T], from XLMR_FIRST_POSITION */
    Tensor image_tokens;       /* [R, D] f32 or c, from the projector */
    AttentionPlan plan;
} XlmrBatch;

size_t xlmr_work_bytes(const Xlmr *xlmr, int tokens);

/* Final hidden states: *hidden [T, D] in the compute type, taken from the arena (so is everything
 * on the way; the caller resets it). `watch` may be NULL. */
int xlmr_forward(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                 const LayerHook *hook, Error *err);

/* The head up to the vocabulary's matrix: `rows` (host, [count], indices into hidden) to *features
 * [count, D] c, taken from the arena; then vocab_propose or vocab_logits with xlmr->vocab_w and
 * vocab_b. */
int xlmr_head(const Xlmr *xlmr, Arena *arena, Tensor hidden, const int32_t *rows, int count,
              Tensor *features, Error *err);

size_t xlmr_head_bytes(const Xlmr *xlmr, int rows);

/* ---- Shared with training (xlmr_train.h). ---- */

/* Which row of each table a row of the batch is: [T] i32, in the arena. `image` is no tensor where
 * the batch has no image rows. */
typedef struct XlmrRows {
    Tensor ids, image, types, positions;
} XlmrRows;

size_t xlmr_rows_bytes(int tokens);

/* The sums of the embeddings, before any LayerNorm: x [T, D] f32. *rows stays in the arena until
 * the caller resets it. */
int xlmr_embed(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, Tensor x, XlmrRows *rows,
               Error *err);

/* What the parameters of block `layer` are called, and their prefix. */
enum { XLMR_PREFIX_SIZE = 64 };
const BlockNames *xlmr_block_names(const XlmrConfig *config, int layer,
                                   char prefix[XLMR_PREFIX_SIZE]);

#endif
