/* xlmr.h - XLM-R, the masked language model (Conneau et al., 2020), and XLM-R-XL (Goyal et al.,
 * 2021).
 *
 * Token, position and type embeddings, then blocks: post-LN with a LayerNorm over the embeddings
 * (base, large), or pre-LN with a final LayerNorm (XL, XXL). The head is dense, GELU, LayerNorm,
 * and the tied token embeddings with a bias; it is a separate function, since only answer rows need
 * it.
 *
 * As a diffusion language model it has no timestep input: a canvas with more masks is an earlier
 * one.
 */
#ifndef EASYFIRST_LANGUAGE_XLMR_H
#define EASYFIRST_LANGUAGE_XLMR_H

#include "kernels/block.h"

typedef struct XlmrConfig {
    int vocab, layers;
    int positions; /* rows of the position table: 2 more than the longest sequence */
    BlockConfig block;
    bool untied; /* the head has its own matrix, lm_head.decoder.weight */
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
 * "lm_head...."). The model must not move until xlmr_free. */
int xlmr_declare(Xlmr *xlmr, const XlmrConfig *config, Params *params, Error *err);
void xlmr_free(Xlmr *xlmr);

static inline int xlmr_longest(const XlmrConfig *config) {
    return config->positions - XLMR_FIRST_POSITION;
}

/* Sequences end to end. Index arrays are on the host. */
typedef struct XlmrBatch {
    int tokens;                /* T */
    const int32_t *ids;        /* [T], -1 where the row is not a token */
    const int32_t *image_rows; /* [T], row of image_tokens, -1 at tokens; NULL without images */
    const int32_t *positions;  /* [T], from XLMR_FIRST_POSITION */
    Tensor image_tokens;       /* [R, D] f32 or c, from the projector */
    AttentionPlan plan;
} XlmrBatch;

size_t xlmr_work_bytes(const Xlmr *xlmr, int tokens);

/* Final hidden states: *hidden [T, D] in the compute type, in the arena, as are all intermediate
 * results (the caller resets it). `hook` may be NULL. */
int xlmr_forward(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                 const LayerHook *hook, Error *err);

/* The head up to the vocabulary's matrix: `rows` (host, [count], indices into hidden) to *features
 * [count, D] c, in the arena; then call vocab_propose or vocab_logits with xlmr->vocab_w and
 * vocab_b. */
int xlmr_head(const Xlmr *xlmr, Arena *arena, Tensor hidden, const int32_t *rows, int count,
              Tensor *features, Error *err);

size_t xlmr_head_bytes(const Xlmr *xlmr, int rows);

/* ---- Shared with training (xlmr_train.h). ---- */

/* For each row of the batch, its row in each table: [T] i32, in the arena. `image` is TENSOR_NONE
 * if the batch has no image rows. */
typedef struct XlmrRows {
    Tensor ids, image, types, positions;
} XlmrRows;

size_t xlmr_rows_bytes(int tokens);

/* The sums of the embeddings, before any LayerNorm: x [T, D] f32. *rows stays in the arena until
 * the caller resets it. */
int xlmr_embed(const Xlmr *xlmr, Arena *arena, const XlmrBatch *batch, Tensor x, XlmrRows *rows,
               Error *err);

/* The parameter names of block `layer`, and their prefix. */
enum { XLMR_PREFIX_SIZE = 64 };
const BlockNames *xlmr_block_names(const XlmrConfig *config, int layer,
                                   char prefix[XLMR_PREFIX_SIZE]);

#endif
