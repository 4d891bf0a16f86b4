/* infill.h - evaluates canvases with a language model, after a set of prompts.
 *
 * The sequence of a request is <s> image tokens | prompt | canvas </s> with consecutive positions,
 * or with the canvas's counted from a fixed position; models with other special tokens have those
 * instead of <s> and </s>, or none. A chat template's tokens before an image come after <s>
 * (image_lead). Attention is one of three patterns:
 *
 *   full          every token attends to every token (the paper; all released checkpoints)
 *   block-causal  the three parts are blocks: each attends to itself and to those before it
 *   causal        every token attends to itself and to those before it: autoregressive models, whose
 *                 canvases are written from left to right (infill_causal.h)
 *
 * With block-causal attention nothing before the canvas depends on it, so the keys and values of an
 * image are computed once for all its questions and those of a prompt once for all steps and
 * lengths, and a step evaluates the canvas's rows only. This is exact, not an approximation. With
 * shifted predictions the row before the canvas predicts its first token: its output is kept, too.
 * With full attention a prompt's keys and values change with the canvas. They can be kept for later
 * steps all the same (infill_keep_prefixes), as an approximation.
 *
 * Canvases of any requests and lengths are evaluated in packed batches, without padding.
 */
#ifndef EASYFIRST_LANGUAGE_INFILL_H
#define EASYFIRST_LANGUAGE_INFILL_H

#include "language/decode.h"
#include "language/length.h"
#include "language/inspect.h"
#include "language/language.h"

typedef enum AttentionPattern {
    ATTENTION_FULL,
    ATTENTION_BLOCK_CAUSAL,
    ATTENTION_CAUSAL
} AttentionPattern;

/* Their names in easyfirst.json, in options and in results. */
extern const char *const attention_names[]; /* "full", "block-causal", "causal" */
const char *attention_name(AttentionPattern pattern);

/* The pattern of that name; false, with *pattern unchanged, if there is none. */
bool attention_find(const char *name, AttentionPattern *pattern);

typedef struct InfillPrompt {
    const int32_t *ids; /* [count], without <s>; must outlive the Infill */
    int count;
    int image;   /* index of an image, -1 for none */
    bool guided; /* canvases may have a choice with guidance: the same prompt without words, <mask>
                    in place of its tokens and image, takes a slot and rows, too */
} InfillPrompt;

typedef struct InfillConfig {
    LanguageModel model;
    Device *device;
    AttentionPattern pattern;
    int answer_position; /* position, from 0, that a canvas's first token is given; 0: its place
                            after the prompt */
    bool no_kv_cache;    /* block-causal: evaluate whole sequences each time; for comparison */
    int32_t mask_id;     /* never proposed */
    int32_t vocab_limit; /* nor are ids >= vocab_limit */
    int batch_tokens;    /* maximum rows of a forward pass (one sequence always fits); 0: 4096 */
    const InfillPrompt *prompts;
    int prompt_count;
    Tensor image_tokens; /* [images * image_rows, D], device; TENSOR_NONE without images */
    int image_rows;
    bool keep_hidden;    /* infill_lengths will be called; block-causal: keep what it needs */
    int slots;           /* > 0: no prompts yet, but so many at a time at most (infill_place); all
                            memory is allocated by infill_open, none by infill_reserve */
    int64_t prefix_rows; /* ... and for so many rows of prompts and images together */
    const int32_t *image_lead; /* [image_lead_count]: tokens between <s> and an image; they must
                                  outlive the Infill */
    int image_lead_count;
} InfillConfig;

/* The cost of the evaluations so far. */
typedef struct InfillCounts {
    int64_t forwards, canvases, rows; /* rows that went through the blocks in evaluations ... */
    int64_t prefix_rows;              /* ... and, once each, for prompts and images */
    int64_t inspections; /* canvases evaluated by infill_inspect, counted nowhere else ... */
    int64_t inspection_forwards, inspection_rows; /* ... and its forward passes and their rows */
} InfillCounts;

typedef struct Infill Infill;

/* With block-causal attention this computes the keys and values of the images and prompts. *infill
 * is NULL on failure. A prompt that leaves no space for an answer of one token is not an error:
 * nothing is computed for it, and infill_longest_answer is below 1. */
int infill_open(Infill **infill, const InfillConfig *config, Error *err);
void infill_close(Infill *infill); /* NULL is allowed */

/* The most tokens of a prompt after `head` rows (<s>, image_lead and the image) and before `answer` tokens
 * (with </s>, if the model has one), in a model whose longest sequence is `longest`; negative if the answer does not fit
 * at all. */
int infill_max_prompt(int longest, int answer_position, int head, int answer);

/* The longest answer that fits after a prompt; below 1 if none does. */
int infill_longest_answer(const Infill *infill, int request);

/* The length predictor over all prompts: logits [prompts, classes] on the host; undefined for a
 * prompt that leaves no space. */
int infill_lengths(Infill *infill, const LengthPredictor *length, float *logits, Error *err);

/* Allocates the memory for evaluations: no canvas may be longer than longest_canvas (nor than its
 * request's infill_longest_answer), and canvas_rows is the largest sum of N + 1 over the canvases
 * of one call. Call once, before the first evaluation. */
int infill_reserve(Infill *infill, int longest_canvas, int64_t canvas_rows, Error *err);

/* For DecodeOptions.prefix_cache, with full attention: keeps the keys and values of each
 * hypothesis's <s>, image and prompt whenever its canvas is evaluated as a whole, and evaluates
 * canvases with after_kept after these. After infill_reserve; allocates memory for the prefixes of
 * `count` specs, whose indices canvases have as their `hypothesis`, in place of those of an earlier
 * call. Not for canvases of several decoders. */
int infill_keep_prefixes(Infill *infill, const DecodeSpec *specs, int count, Error *err);

/* Whether a guided canvas of this length and its unconditional twin, which are evaluated together,
 * fit into a batch: they do after infill_reserve. */
bool infill_pair_fits(const Infill *infill, int request, int length);

/* <s>, image (with image_lead) and prompt of a request, in rows. */
int infill_prefix_length(const Infill *infill, int request);

/* A DecodeEvaluate: `infill` is the Infill, a canvas's request is the index of its prompt. A canvas
 * that is longer than its request's infill_longest_answer is an error. The vocabulary's scores are
 * computed for open positions only. */
int infill_evaluate(void *infill, const DecodeCanvas *canvases, int count, float temperature,
                    uint64_t seed, Proposal *out, Error *err);

/* The same for several at once, in shared forward passes. Of neighbors without temperature, or with
 * equal temperature and seed, the vocabulary's part is shared, too. */
int infill_evaluate_all(Infill *infill, const DecodeBatch *batches, int count, Error *err);

/* ---- Prompts that come and go (InfillConfig.slots). ---- */

/* Gives a prompt a slot, which is the `request` of its canvases. False: there is no space now; in
 * an empty Infill there is, if the prefix has rows for the longest sequence (for guidance, two). */
bool infill_place(Infill *infill, const InfillPrompt *prompt, int *slot);

/* The rows that infill_prefill, and infill_lengths_of if hidden states are kept, would compute for
 * it. */
int infill_prefill_rows(const Infill *infill, const InfillPrompt *prompt);

/* Computes the keys and values of what was placed. After a failure those prompts are to be
 * removed. */
int infill_prefill(Infill *infill, Error *err);

/* infill_lengths of some: logits [count, classes]. */
int infill_lengths_of(Infill *infill, const LengthPredictor *length, const int *slots, int count,
                      float *logits, Error *err);

/* Frees a slot. The keys and values of its image stay as long as there is space, for the next
 * prompt about it. */
void infill_remove(Infill *infill, int slot);

/* The image tokens of an image that no prompt is about have changed. */
void infill_forget_image(Infill *infill, int image);

/* Evaluates canvases, whose `fixed` is NULL, and inspects them: rows [sum of the lengths], canvas after canvas, say which
 * results to compute for each row, with `top_k` alternatives. Maps are over the image_rows rows of
 * the request's image; rows of requests without one get none. After infill_reserve; memory for the
 * inspection itself is allocated and freed here. */
int infill_inspect(Infill *infill, const DecodeCanvas *canvases, int count, const InspectRow *rows,
                   int top_k, Error *err);

/* The rows of a request's image, 0 without one; and the model's number of layers. */
int infill_image_rows(const Infill *infill, int request);
int infill_layers(const Infill *infill);

InfillCounts infill_counts(const Infill *infill);

#endif
