/* llama.h - decoders of LLaMA's kind (Touvron et al., 2023): LLaMA 2 and 3, Qwen2, and the masked
 * diffusion models LLaDA (Nie et al., 2025) and Dream, which have the same blocks.
 *
 * Token embeddings; pre-LN blocks with RMS norms, rotary positions and a gated feed-forward part; a
 * final RMS norm; the head, one matrix without a bias, which may be the token embeddings. There is
 * no table of positions: what a row attends to is the batch's, full attention for a diffusion
 * model, causal spans for an autoregressive one.
 */
#ifndef EASYFIRST_LANGUAGE_LLAMA_H
#define EASYFIRST_LANGUAGE_LLAMA_H

#include "language/xlmr.h"

/* Whose names the parameters have. */
typedef enum LlamaNaming {
    LLAMA_NAMES, /* model.layers.N.self_attn.q_proj.weight: LLaMA, Qwen2, Dream */
    LLADA_NAMES  /* model.transformer.blocks.N.q_proj.weight */
} LlamaNaming;

/* LLaMA 3.1's rope_scaling "llama3": positions beyond `original` by slower turns of the pairs whose
 * wave is longer than original / low; those shorter than original / high are unchanged, and those
 * between are interpolated. */
typedef struct RopeScaling {
    float factor; /* 0: none */
    float low, high;
    int original;
} RopeScaling;

typedef struct LlamaConfig {
    int vocab, layers;
    int positions; /* the longest sequence: rows of the table of turns */
    BlockConfig block;
    float theta; /* the base of the frequencies */
    RopeScaling scaling;
    bool tied; /* the head is the token embeddings */
    LlamaNaming naming;
} LlamaConfig;

/* The block of these sizes: pre-LN, RMS norms, rotary, gated by SiLU, without biases. */
BlockConfig llama_block(int width, int heads, int key_heads, int ffn, float eps);

typedef struct Llama {
    LlamaConfig config;
    Params *params;
    Block *blocks; /* [layers] */
    Tensor words;  /* table [V, D] */
    Tensor norm_w; /* after the last block */
    Tensor vocab_w;
    Tensor turns; /* [P, head width] f32 on the device, see rotary_forward; owned */
} Llama;

/* Checks the configuration, declares the parameters under the public checkpoints' names, and makes
 * the table of turns on params->device. The model must not move until llama_free, which comes
 * before the device is closed and must be called after a failure, too. */
int llama_declare(Llama *llama, const LlamaConfig *config, Params *params, Error *err);
void llama_free(Llama *llama);

/* The bytes of the table of turns. */
size_t llama_turns_bytes(const LlamaConfig *config);

/* Cosines and sines of the turns of positions [0, count): to [count, head width], as
 * rotary_forward's table. Angles are rounded as by the public implementations: frequency and
 * product in f32. */
void llama_turns(const LlamaConfig *config, float *to, int count);

/* A batch is XLM-R's (xlmr.h), with positions from 0. Rows of an image are the projector's. */

size_t llama_work_bytes(const Llama *llama, int tokens);

/* Hidden states after the final norm: *hidden [T, D] in the compute type, in the arena, as are all
 * intermediate results (the caller resets it). `hook` may be NULL. */
int llama_forward(const Llama *llama, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                  const LayerHook *hook, Error *err);

/* The rows (host, [count], indices into hidden) to *features [count, D] c, in the arena; then call
 * vocab_propose or vocab_logits with llama->vocab_w and no bias. */
int llama_head(const Llama *llama, Arena *arena, Tensor hidden, const int32_t *rows, int count,
               Tensor *features, Error *err);
size_t llama_head_bytes(const Llama *llama, int rows);

/* ---- Shared with training (llama_train.h). ---- */

/* x [T, D] f32 receives the embeddings of tokens and images. *rows stays in the arena until the
 * caller resets it. */
int llama_embed(const Llama *llama, Arena *arena, const XlmrBatch *batch, Tensor x, XlmrRows *rows,
                Error *err);
size_t llama_rows_bytes(int tokens);

/* The parameter names of block `layer`, and their prefix. */
enum { LLAMA_PREFIX_SIZE = 64 };
const BlockNames *llama_block_names(const LlamaConfig *config, int layer,
                                    char prefix[LLAMA_PREFIX_SIZE]);

#endif
