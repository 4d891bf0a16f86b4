/* infill.h - a language model, a set of prompts, and canvases to be evaluated after them.
 *
 * The sequence of a request is  <s> image tokens | prompt | canvas </s>  with positions counted
 * through, or with the canvas's counted from a fixed position. Attention is one of two patterns:
 *
 *   full          every token attends to every token (the paper; all released checkpoints)
 *   block-causal  the three parts are blocks: each attends to itself and to those before it
 *
 * With block-causal attention nothing before the canvas depends on it, so the keys and values of an
 * image are computed once for all its questions and those of a prompt once for all steps and
 * lengths, and a step evaluates the canvas's rows only. This is exact, not an approximation.
 * Canvases of any requests and lengths are evaluated in packed batches, without padding.
 */
#ifndef EASYFIRST_LANGUAGE_INFILL_H
#define EASYFIRST_LANGUAGE_INFILL_H

#include "language/decode.h"
#include "language/length.h"
#include "language/inspect.h"
#include "language/xlmr.h"

typedef enum AttentionPattern { ATTENTION_FULL, ATTENTION_BLOCK_CAUSAL } AttentionPattern;

/* Their names in easyfirst.json, in options and in results. */
#define ATTENTION_CHOICES "full|block-causal"
const char *attention_name(AttentionPattern pattern);

/* The pattern of that name; false, and *pattern unchanged, if there is none. */
bool attention_find(const char *name, AttentionPattern *pattern);

typedef struct InfillPrompt {
    const int32_t *ids; /* [count], without <s>; must outlive the Infill */
    int count;
    int image; /* index of an image, -1 for none */
} InfillPrompt;

typedef struct InfillConfig {
    const Xlmr *model;
    Device *device;
    AttentionPattern pattern;
    int answer_position; /* place in the sequence that a canvas's first token is told to have; 0:
                            where it stands, behind its prompt */
    bool no_kv_cache;    /* blocks: evaluate whole sequences each time; for comparison */
    int32_t mask_id;     /* never proposed */
    int32_t vocab_limit; /* nor are the ids from here on */
    int batch_tokens;    /* rows of a forward at most (one sequence always fits); 0: 4096 */
    const InfillPrompt *prompts;
    int prompt_count;
    Tensor image_tokens; /* [images * image_rows, D], device; TENSOR_NONE without images */
    int image_rows;
    bool keep_hidden; /* blocks: infill_lengths will be called; keep what it needs */
} InfillConfig;

/* What the evaluations cost, counted. */
typedef struct InfillCounts {
    int64_t forwards, canvases, rows; /* rows that went through the blocks in evaluations ... */
    int64_t prefix_rows;              /* ... and, once each, for prompts and images */
    int64_t inspections; /* canvases evaluated by infill_inspect, counted nowhere else */
} InfillCounts;

typedef struct Infill Infill;

/* Under `blocks` this computes the keys and values of the images and prompts. *infill is NULL on
 * failure. A prompt that leaves no room for an answer of one token is no failure: nothing is
 * computed for it, infill_longest_answer is below 1. */
int infill_open(Infill **infill, const InfillConfig *config, Error *err);
void infill_close(Infill *infill); /* NULL is allowed */

/* Tokens that a prompt may have beside `head` rows of <s> and image and `answer` tokens with
 * </s>, in a model that reads `longest`; less than 0 if the answer does not fit at all. */
int infill_prompt_room(int longest, int answer_position, int head, int answer);

/* The longest answer that fits behind a prompt; below 1 if none does. */
int infill_longest_answer(const Infill *infill, int request);

/* The length predictor over all prompts: logits [prompts, classes] on the host; of no meaning for a
 * prompt that leaves no room. */
int infill_lengths(Infill *infill, const LengthPredictor *length, float *logits, Error *err);

/* Takes the memory for evaluations: no canvas is longer than longest_canvas (nor than its request's
 * infill_longest_answer), and canvas_rows is the sum of N + 1 over all canvases that will be
 * evaluated in one call. Once, before the first of them. */
int infill_reserve(Infill *infill, int longest_canvas, int64_t canvas_rows, Error *err);

/* A DecodeEvaluate: `infill` is the Infill, a canvas's request is the index of its prompt. A canvas
 * that is longer than its request's infill_longest_answer is an error. */
int infill_evaluate(void *infill, const DecodeCanvas *canvases, int count, float temperature,
                    uint64_t seed, Proposal *out, Error *err);

/* Evaluates canvases with a look inside: rows [sum of the lengths], the canvases' one after the
 * other, say what is wanted of each row, `top_k` of it where that is alternatives. Maps are over
 * the image_rows rows of the request's image; rows of requests without one get none. After
 * infill_reserve; the memory for the look itself is taken and given back here. */
int infill_inspect(Infill *infill, const DecodeCanvas *canvases, int count, const InspectRow *rows,
                   int top_k, Error *err);

/* Rows of a request's image, 0 without one; and the model's layers. */
int infill_image_rows(const Infill *infill, int request);
int infill_layers(const Infill *infill);

InfillCounts infill_counts(const Infill *infill);

#endif
