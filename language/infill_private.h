/* infill_private.h - an Infill, for the files that implement infill.h: its slots, the prefix's keys
 * and values, forward passes.
 */
#ifndef EASYFIRST_LANGUAGE_INFILL_PRIVATE_H
#define EASYFIRST_LANGUAGE_INFILL_PRIVATE_H

#include "language/infill.h"
#include "language/infill_rows.h"
#include "language/row_pool.h"

/* The block of an image and what is before it (<s>, image_lead), or of a lone <s>: shared by all
 * prompts after it. */
typedef struct Head {
    bool placed;   /* it has rows of the cache, from `begin` */
    bool computed; /* ... which hold its keys and values */
    int32_t begin;
    int prompts;   /* slots that are after it */
    uint64_t used; /* when a prompt came last: the oldest one makes way first */
} Head;

typedef struct Slot {
    bool taken;
    InfillPrompt prompt; /* empty if it leaves no space for an answer */
    int32_t begin;       /* its cache row */
    int longest;         /* the longest answer; below 1 if none fits */
    int twin;            /* of a guided prompt: the slot of the one without words; -1 */
} Slot;

struct Infill {
    InfillConfig config;
    Arena arena;
    Arena lengths; /* of the length predictor; an engine keeps it from one call to the next */
    Rows rows;
    bool reuse;
    KvCache cache;
    int32_t *kept; /* [hypotheses], where the keys and values of each one's prefix are
                           (infill_keep_prefixes); else NULL */
    Tensor hidden; /* [prefix_rows, D], final hidden states of the prefix, if kept: for
                           lengths, and with shifted predictions for the rows before canvases */
    bool repeat;   /* infill_inspect: such rows are evaluated again, in spans of their own, whose
                     attention can be read */
    RowPool pool;  /* the cache's rows of images and prompts; canvases come after pool.rows */
    Head *heads;   /* [images + 2]; entry 0 is "no image", the last one "nothing at all" */
    Slot *slots;   /* [slot_count], twice as many as prompts where these may be guided */
    int slot_count;
    int32_t *masks; /* [language_longest], the ids of twins */
    int *pending;   /* blocks that are placed and not computed: heads, then slots, by index */
    int pending_count;
    uint64_t clock; /* counts placements */
    int images;
    InfillCounts counts;
};

/* Whose head has no rows: the image of twins in a model whose first token is a part of prompts. */
static inline int no_head(const Infill *f) {
    return f->images;
}

/* <s>, image_lead and the image's rows; and with the prompt. */
int head_rows(const Infill *infill, int image);
int prefix_length(const Infill *infill, int slot);

/* Where the keys of a prompt's head and its own are; rows of the cache. */
static inline int32_t head_begin(const Infill *f, int slot) {
    return f->heads[f->slots[slot].prompt.image + 1].begin;
}

/* A whole sequence in the batch: one span with full attention, or, block-causal without the KV
 * cache, one for each block. `canvas` may be NULL. */
void push_sequence(Infill *infill, int slot, const DecodeCanvas *canvas);
void push_head(Infill *infill, int image);
void push_prompt(Infill *infill, int slot);

/* Whether a canvas's rows are evaluated alone, after cached keys and values. */
static inline bool after_cached(const Infill *f, const DecodeCanvas *canvas) {
    return f->reuse || (f->kept && canvas->after_kept);
}

/* A canvas as it is evaluated, after cached keys and values or in a whole sequence; and its rows. */
void push_evaluation(Infill *infill, const DecodeCanvas *canvas);
int evaluation_rows(const Infill *infill, const DecodeCanvas *canvas);

/* Whether a canvas is evaluated twice; and the second one, which is after <mask> instead of the
 * prompt. Its picked rows come in pairs then: the canvas's, then the twin's. */
static inline bool canvas_guided(const DecodeCanvas *canvas) {
    return canvas->choice && canvas->choice->guidance > 0;
}
static inline DecodeCanvas canvas_twin(const Infill *f, const DecodeCanvas *canvas) {
    DecodeCanvas twin = *canvas;
    twin.request = f->slots[canvas->request].twin;
    return twin;
}

/* Each canvas must fit after its own prompt. */
int check_canvases(const Infill *infill, const DecodeCanvas *canvases, int count, Error *err);

/* The head's input: rows of `hidden`, and, where picked[i] is negative, row -1 - picked[i] of the
 * kept hidden states. [count, D] in the arena. */
int take_features(Infill *infill, Tensor hidden, const int32_t *picked, int count, Tensor *features,
                  Error *err);

/* Runs the assembled rows; *hidden is in the arena, which the caller resets. `hook` may be NULL. */
int run_rows(Infill *infill, int64_t cache_begin, const AttentionHook *hook, Tensor *hidden,
             Error *err);

/* The proposals of the picked rows [begin, begin + rows), all chosen as the target's are, from
 * logits on the host, into rows.tokens, scores and confidences (infill_choice.c). */
int infill_choose(Infill *infill, Tensor features, const RowsTarget *target, int begin, int rows,
                  Error *err);

/* ---- The prefix (infill_prefix.c). ---- */

/* Memory for the slots, and with a cache for the rows of their blocks. */
int prefix_open(Infill *infill, int slots, int32_t rows, Error *err);
void prefix_close(Infill *infill);

/* Places the block of an image (-1: none); false: there is no space. */
bool place_head(Infill *infill, int image);

/* A prompt by itself, and the twin of the guided one in this slot. */
bool place_slot(Infill *infill, const InfillPrompt *prompt, int *slot);
bool place_twin(Infill *infill, int slot);

/* A cache of the prefix's rows and `canvas_rows` more; what an earlier one held is kept. */
int cache_open(Infill *infill, int64_t canvas_rows, Error *err);

/* Keeps the keys and values of the prefix of a whole sequence that was evaluated, whose rows of the
 * batch begin there. */
int prefix_keep(Infill *infill, const DecodeCanvas *canvas, int begin, Error *err);

#endif
