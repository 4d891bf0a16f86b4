/* trace.h - how one answer was filled in, step by step: what `show` draws in the terminal, as a
 * page and as a figure, what it keeps in a file and plays again, and what the order of filling is
 * measured from.
 *
 * A trace holds all hypotheses that were tried for one question, each with all of its steps. It is
 * made while the answer is being filled (trace_begin, trace_step for every step, trace_finish),
 * from finished answers (trace_from_answers), or from a file (trace_read_json); the three give the
 * same.
 *
 * JSON. One object; it has everything that `--json` prints for an answer (apps/cli/report.h), under
 * the same names, so that a reader of the one reads the other:
 *
 *   image         text; not there: no image
 *   question      text, or "prompt": text; exactly one of the two
 *   line          whole number, if the prompt came from a file's line (ignored when read)
 *   answer        text of the best hypothesis
 *   score, length, tokens    of the best hypothesis; tokens as its last step has them
 *   steps         how many the best hypothesis has, at least 1
 *   evaluations   runs of the network for all hypotheses
 *   strategy      text, as --strategy takes it
 *   seed          whole number, 0 to 2^63 - 1
 *   prompt_tokens whole number
 *   dropped_tokens    how many of the prompt's first tokens were left out; not there: none
 *   hypotheses    list, at least one, of {"text", "length", "sample", "score", "evaluations"} and
 *     trace       its steps, but for the best one, whose steps are the "trace" below
 *     attention   if it was asked for: a list of "length" lists of grid x grid numbers, row by
 *                 row from the upper left corner: how much each answer position looked at each
 *                 patch of the image
 *   trace         list of steps: {"step": from 1, "evaluated": whether the network ran, "cells"}
 *
 * and beside it
 *
 *   model         text: the model's folder, or its parts; may be missing
 *   best          index of the best hypothesis, from 0; missing: the one of the highest score
 *   geometry      {"width", "height": of the image in pixels, upright; "size": edge in pixels
 *                 of the square that the vision tower saw; "grid": patches along an edge of it;
 *                 "left", "top", "scale_x", "scale_y": the square's point (x, y) is the image's
 *                 point (left + scale_x x, top + scale_y y)}; may be missing
 *
 * A cell, one for each position of the answer, is {"id", "piece", "score", "masked", "proposal",
 * "proposal_piece", "proposal_score"}: what stands there after the step with its log-probability
 * (null if masked), and what the network proposed. It may have "top_k": [{"id", "piece",
 * "score"}], the next likeliest words at this step, the likeliest first. In a piece "▁" stands for
 * the space in front of a word. Numbers are written with so many digits that every float comes
 * back.
 */
#ifndef EASYFIRST_APPS_SHOW_TRACE_H
#define EASYFIRST_APPS_SHOW_TRACE_H

#include <jansson.h>

#include "projector/multimodal.h"

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
    int sample;          /* tells hypotheses of one length apart */
    int evaluations;     /* runs of the network because of it */
    double score;        /* mean log-probability of its tokens; of 9 digits, as in JSON */
    char *text;          /* owned; "" until the trace is finished */
    int steps;           /* that are there */
    int planned;         /* that there will be */
    int capacity;        /* steps that `entries` and `evaluated` have room for */
    TraceEntry *entries; /* [steps, length] */
    bool *evaluated;     /* [steps] */
    float *attention;    /* [length, grid * grid] of the trace's image, or NULL */
} TraceHypothesis;

/* How the image was put before the vision tower; width 0: not known. See PreprocessMap. */
typedef struct TraceGeometry {
    int width, height, size, grid;
    PreprocessMap map;
} TraceGeometry;

typedef struct TracePieces TracePieces;

typedef struct Trace {
    char *image;    /* its name, as given; NULL: none */
    char *question; /* or the prompt */
    bool is_prompt;
    char *model; /* NULL: not known */
    char *strategy;
    uint64_t seed;
    int prompt_tokens, dropped_tokens;
    TraceGeometry geometry;
    TraceHypothesis *hypotheses;
    int count;
    int best;      /* index; -1 until the trace is finished */
    bool finished; /* texts, scores and `best` are there */
    TracePieces *pieces;
} Trace;

/* What is known before the first step. Texts are copied; those that are no UTF-8 get U+FFFD for
 * what is wrong. */
typedef struct TraceAbout {
    const char *image; /* NULL: none */
    const char *question;
    bool is_prompt;
    const char *model; /* NULL: not known */
    const DecodeOptions *options;
} TraceAbout;

/* An empty trace: no hypotheses yet. On failure, here and below, there is nothing in it that
 * trace_free would not free; that is always allowed. */
int trace_begin(Trace *trace, const TraceAbout *about, Error *err);

/* Appends one step, as a DecodeCallback is told it, for a run with one request: `step->hypothesis`
 * is the index of its hypothesis here, too. Steps of a hypothesis come in order. */
int trace_step(Trace *trace, const Tokenizer *tokenizer, const DecodeStep *step, Error *err);

/* Adds what is known at the end: texts, scores, the best; from answer `index`, whose steps were
 * appended. Hypotheses that failed are left out. */
int trace_finish(Trace *trace, const Answers *answers, int index, const Tokenizer *tokenizer,
                 Error *err);

/* All three in one, from answers that kept their steps (AnswerOptions.trace). */
int trace_from_answers(Trace *trace, const TraceAbout *about, const Answers *answers, int index,
                       const Tokenizer *tokenizer, Error *err);

/* Notes how an image of width x height pixels was put before a tower whose features are a grid of
 * grid x grid patches. */
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

/* Whether a step (from 0) leaves other tokens than the one before it; the first comes
 * after masks. */
bool trace_changes(const TraceHypothesis *h, int step);

/* A finished trace as JSON (NULL without memory), released by the caller; and as a line in a file,
 * which appears whole or not at all; "-" is standard output, which the caller flushes. */
json_t *trace_json(const Trace *trace);
int trace_write_json(const Trace *trace, const char *path, Error *err);

/* Reads such a file ("-" is standard input), of at most 256 MiB; files of several lines are
 * refused: one answer is one trace. Everything is checked: kinds, ranges, sizes that belong
 * together, that scores are finite, that an id has one piece, that texts are UTF-8 without NUL.
 * Errors name the file, the place in it, what was found and what was expected. Unknown members are
 * ignored. */
int trace_read_json(Trace *trace, const char *path, Error *err);

void trace_free(Trace *trace);

#endif
