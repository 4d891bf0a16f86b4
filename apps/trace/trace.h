/* trace.h - how one answer was filled in, step by step: `show` draws it in the terminal, as a page
 * and as a figure, and saves and replays it; `eval order` measures the decoding order from it.
 *
 * A trace holds all hypotheses that were tried for one question, each with all of its steps. It is
 * made while the answer is decoded (trace_begin, trace_step for every step, trace_finish), from
 * finished answers (trace_from_answers), or from a file (trace_read_json); all three give the same
 * trace.
 *
 * JSON. One object; it has everything that `--json` prints for an answer (apps/cli/report.h), under
 * the same names, so that a reader of the one reads the other:
 *
 *   image         text; not there: no image
 *   question      text, or "prompt": text; exactly one of the two
 *   line          whole number, if the prompt came from a file's line (ignored when read)
 *   template      text with gaps that the answer fills in (projector/template.h); not there: none
 *   answer        text of the best hypothesis
 *   score, length, tokens    of the best hypothesis; tokens as its last step has them, with
 *                 "fixed": true where the template gives them
 *   steps         how many the best hypothesis has, at least 1
 *   evaluations   runs of the network for all hypotheses
 *   strategy      text, as --strategy takes it
 *   seed          whole number, 0 to 2^63 - 1
 *   prompt_tokens whole number
 *   dropped_tokens    how many of the prompt's first tokens were left out; not there: none
 *   hypotheses    list, at least one, of {"text", "length", "sample", "score", "evaluations"} and
 *     trace       its steps, but for the best one, whose steps are the "trace" below
 *     fixed       positions (from 0, ascending) whose tokens the template gives: they are there
 *                 from the beginning, with a log-probability of 0; not there: none
 *     attention   if it was asked for: a list of "length" lists of grid x grid numbers, row by
 *                 row from the upper left corner: how much each answer position looked at each
 *                 patch of the image
 *   trace         list of steps: {"step": from 1, "evaluated": whether the network ran, "cells"}
 *
 * and in addition
 *
 *   model         text: the model's folder, or its parts; may be missing
 *   best          index of the best hypothesis, from 0; missing: the one of the highest score
 *   geometry      {"width", "height": of the image in pixels, upright; "size": edge in pixels
 *                 of the square that the vision tower saw; "grid": patches along an edge of it;
 *                 "left", "top", "scale_x", "scale_y": the square's point (x, y) is the image's
 *                 point (left + scale_x x, top + scale_y y)}; may be missing
 *
 * A cell, one for each position of the answer, is {"id", "piece", "score", "masked", "proposal",
 * "proposal_piece", "proposal_score"}: the token after the step with its log-probability (null if
 * masked), and the network's proposal. It may have "top_k": [{"id", "piece", "score"}], the next
 * likeliest tokens at this step, the likeliest first. In a piece "▁" means a space before a word.
 * Numbers have enough digits to restore every float exactly.
 */
#ifndef EASYFIRST_APPS_TRACE_TRACE_H
#define EASYFIRST_APPS_TRACE_TRACE_H

#include <jansson.h>

#include "projector/answers.h"

typedef struct TraceAlternative {
    int32_t id;
    const char *piece; /* the trace's */
    float score;       /* log-probability */
} TraceAlternative;

/* One position after one step. Pieces are the trace's. */
typedef struct TraceEntry {
    int32_t id;
    const char *piece;
    float score; /* log-probability, at most 0 but for rounding; -INFINITY if masked */
    bool masked;
    int32_t proposal; /* what the network proposed in this step */
    const char *proposal_piece;
    float proposal_score;
    int alternative_count;
    TraceAlternative *alternatives; /* [alternative_count], owned; NULL without */
} TraceEntry;

typedef struct TraceHypothesis {
    int length;          /* positions, at least 1 */
    int sample;          /* distinguishes hypotheses of one length */
    int evaluations;     /* runs of the network because of it */
    double score;        /* mean log-probability of its tokens; of 9 digits, as in JSON */
    char *text;          /* owned; "" until the trace is finished */
    int steps;           /* so far */
    int planned;         /* steps in total */
    int capacity;        /* steps that `entries` and `evaluated` have room for */
    TraceEntry *entries; /* [steps, length] */
    bool *evaluated;     /* [steps] */
    bool *fixed;         /* [length]: whose tokens a template gives, in all steps; NULL: none */
    float *attention;    /* [length, grid * grid] of the trace's image, or NULL */
} TraceHypothesis;

/* How the image was preprocessed for the vision tower; width 0: not known. See PreprocessMap. */
typedef struct TraceGeometry {
    int width, height, size, grid;
    PreprocessMap map;
} TraceGeometry;

typedef struct TracePieces TracePieces;

typedef struct Trace {
    char *image;           /* its name, as given; NULL: none */
    char *question;        /* or the prompt */
    char *answer_template; /* of the answer; NULL: none */
    bool is_prompt;
    char *model; /* NULL: not known */
    char *strategy;
    uint64_t seed;
    int prompt_tokens, dropped_tokens;
    TraceGeometry geometry;
    TraceHypothesis *hypotheses;
    int count;
    int best;      /* index; -1 until the trace is finished */
    bool finished; /* texts, scores and `best` are set */
    TracePieces *pieces;
} Trace;

/* What is known before the first step. Texts are copied; invalid UTF-8 becomes U+FFFD. */
typedef struct TraceAbout {
    const char *image; /* NULL: none */
    const char *question;
    bool is_prompt;
    const char *model; /* NULL: not known */
    const DecodeOptions *options;
    const char *answer_template; /* NULL: none */
} TraceAbout;

/* An empty trace: no hypotheses yet. After a failure, here and below, trace_free is allowed. */
int trace_begin(Trace *trace, const TraceAbout *about, Error *err);

/* Appends one step, as passed to a DecodeCallback, of a run with one request: `step->hypothesis` is
 * the index of its hypothesis here, too. Steps of a hypothesis come in order. */
int trace_step(Trace *trace, const Tokenizer *tokenizer, const DecodeStep *step, Error *err);

/* Adds texts, scores and the best hypothesis of answer `index`, whose steps were appended.
 * Hypotheses that failed are left out. */
int trace_finish(Trace *trace, const Answers *answers, int index, const Tokenizer *tokenizer,
                 Error *err);

/* All three in one, from answers that kept their steps (AnswerOptions.trace). */
int trace_from_answers(Trace *trace, const TraceAbout *about, const Answers *answers, int index,
                       const Tokenizer *tokenizer, Error *err);

/* Records how an image of width x height pixels was preprocessed for a tower with grid x grid
 * patches. */
int trace_geometry(Trace *trace, int width, int height, const PreprocessConfig *config, int grid,
                   Error *err);

/* Copies attention [length, grid * grid] into a hypothesis, after trace_geometry. Values must be
 * finite and not negative. */
int trace_attention(Trace *trace, int hypothesis, const float *attention, Error *err);

/* Copies alternatives into the entry of a hypothesis, step (from 0) and position. Their pieces are
 * the tokenizer's; their scores must not be NaN. */
int trace_alternatives(Trace *trace, int hypothesis, int step, int position,
                       const Proposal *alternatives, int count, const Tokenizer *tokenizer,
                       Error *err);

/* [length] of a hypothesis after a step, from 0. */
static inline const TraceEntry *trace_entries(const TraceHypothesis *h, int step) {
    return h->entries + (size_t)step * (size_t)h->length;
}

/* What was asked: the question or prompt, or, where that is empty, the template. */
static inline const char *trace_heading(const Trace *trace) {
    return *trace->question || !trace->answer_template ? trace->question : trace->answer_template;
}

static inline bool trace_fixed(const TraceHypothesis *h, int position) {
    return h->fixed && h->fixed[position];
}

/* How many positions are not fixed, and how many of these have a token. */
int trace_open_count(const TraceHypothesis *h);
int trace_filled(const TraceHypothesis *h, const TraceEntry *entries);

/* Whether a step (from 0) changes any token; the first is compared with all masks but for the fixed
 * tokens. */
bool trace_changes(const TraceHypothesis *h, int step);

/* A finished trace as JSON (NULL: out of memory), released by the caller; and as a line in a file,
 * written atomically; "-" is standard output, which the caller flushes. */
json_t *trace_json(const Trace *trace);
int trace_write_json(const Trace *trace, const char *path, Error *err);

/* Reads such a file ("-" is standard input), of at most 256 MiB; files of several lines are
 * refused: one answer is one trace. Everything is checked: types, ranges, matching sizes, finite
 * scores, one piece for each id, texts in UTF-8 without NUL. Errors name the file, the place in it,
 * what was found and what was expected. Unknown members are ignored. */
int trace_read_json(Trace *trace, const char *path, Error *err);

void trace_free(Trace *trace);

#endif
