/* xlmr.h - encoders that are masked language models: XLM-R (Conneau et al., 2020), XLM-R-XL (Goyal
 * et al., 2021), RoBERTa (Liu et al., 2019), BERT (Devlin et al., 2019), and ModernBERT (Warner et
 * al., 2024) with mmBERT, which has its form.
 *
 * Token, position and type embeddings, then blocks: post-LN with a LayerNorm over the embeddings
 * (XLM-R base and large, RoBERTa, BERT), or pre-LN with a final LayerNorm (XL, XXL). The head is
 * dense, GELU, LayerNorm, and the tied token embeddings with a bias; it is a separate function,
 * since only answer rows need it.
 *
 * ModernBERT has token embeddings with a LayerNorm, rotary positions, pre-LN blocks (block.h) and a
 * final LayerNorm, all norms and most matrices without biases. In local blocks the angles have
 * another base.
 *
 * As a diffusion language model it has no timestep input: a canvas with more masks is an earlier
 * one.
 */
#ifndef EASYFIRST_LANGUAGE_XLMR_H
#define EASYFIRST_LANGUAGE_XLMR_H

#include "kernels/block.h"

typedef enum EncoderKind { ENCODER_XLMR, ENCODER_BERT, ENCODER_MODERNBERT } EncoderKind;

/* Parts of a head without biases. */
enum { HEAD_DENSE = 1, HEAD_VOCABULARY = 2 };

typedef struct XlmrConfig {
    int vocab, layers;
    int positions; /* rows of the position table (XLM-R: 2 more than the longest sequence), or
                      ModernBERT's longest sequence */
    BlockConfig block;
    bool untied; /* the head has its own matrix */
    /* Zeros below are XLM-R and RoBERTa, which differ in their tokenizers only. */
    EncoderKind kind;
    int types;                /* rows of the type table, of which the first is used; 0: one */
    unsigned unbiased;        /* HEAD_DENSE | ... */
    float theta, local_theta; /* ModernBERT: bases of the frequencies (llama.h) */
} XlmrConfig;

enum { XLMR_FIRST_POSITION = 2 }; /* fairseq counts positions from the pad id + 1 */

/* The number of a sequence's first row. */
static inline int xlmr_first_position(const XlmrConfig *config) {
    return config->kind == ENCODER_XLMR ? XLMR_FIRST_POSITION : 0;
}

typedef struct Xlmr {
    XlmrConfig config;
    Params *params;
    Block *blocks;                  /* [layers] */
    Tensor words, positions, types; /* tables [V, D], [P, D], [1, D] */
    Tensor norm_w, norm_b;          /* over the embeddings (post-LN) or the last block (pre-LN) */
    Tensor head_w, head_b, head_norm_w, head_norm_b, vocab_w, vocab_b;
    Tensor first_w, first_b; /* ModernBERT: over the embeddings; it has no positions and types */
    Tensor turns[2];         /* ModernBERT: of global and local blocks, as in llama.h; owned */
} Xlmr;

/* Checks the configuration and declares the parameters under Hugging Face's names ("roberta....",
 * "lm_head...."); ModernBERT's angles are computed on params->device. The model must not move until
 * xlmr_free, which comes before the device is closed and must be called after a failure, too. */
int xlmr_declare(Xlmr *xlmr, const XlmrConfig *config, Params *params, Error *err);
void xlmr_free(Xlmr *xlmr);

static inline int xlmr_longest(const XlmrConfig *config) {
    return config->positions - xlmr_first_position(config);
}

/* The parameters whose rows are tokens, without ".weight": the embeddings, and the matrix of a head
 * of its own; and the full name of the head's bias. */
const char *xlmr_words_name(EncoderKind kind);
const char *xlmr_head_name(EncoderKind kind);
const char *xlmr_bias_name(EncoderKind kind);

/* The bytes of ModernBERT's angles. */
size_t xlmr_turns_bytes(const XlmrConfig *config);

/* Sequences end to end. Index arrays are on the host. */
typedef struct XlmrBatch {
    int tokens;                /* T */
    const int32_t *ids;        /* [T], -1 where the row is not a token */
    const int32_t *image_rows; /* [T], row of image_tokens, -1 at tokens; NULL without images */
    const int32_t *positions;  /* [T], from xlmr_first_position */
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

/* The LayerNorm over the embeddings; false if there is none. */
bool xlmr_embedding_norm(const Xlmr *xlmr, Tensor *w, Tensor *b);

/* Of a pass whose rows are these: the angles of global (0) or local (1) blocks. */
Rotary xlmr_rotary(const Xlmr *xlmr, const XlmrRows *rows, int local);

/* The parameter names of block `layer`, and their prefix. */
enum { XLMR_PREFIX_SIZE = 64 };
const BlockNames *xlmr_block_names(const XlmrConfig *config, int layer,
                                   char prefix[XLMR_PREFIX_SIZE]);

#endif
