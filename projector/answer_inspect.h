/* answer_inspect.h - looking back at how an answer was filled: alternatives and attention.
 *
 * After the decoding the canvases of a hypothesis are evaluated once more, each different one once,
 * this time with a look inside (language/inspect.h). Nothing of this costs anything where it was
 * not asked for, and no answer depends on it.
 *
 * Attention belongs to a word, so it is read where the word was decided: in the evaluation of the
 * canvas as it stood before the step in which the word was last written. There its place was still
 * a <mask>, and the row's attention is what chose the word. (In the finished canvas the row
 * represents a word that is given; where it looks then says less about why it was written.)
 */
#ifndef EASYFIRST_PROJECTOR_ANSWER_INSPECT_H
#define EASYFIRST_PROJECTOR_ANSWER_INSPECT_H

#include "language/infill.h"

typedef struct InspectOptions {
    int top_k;      /* how many proposals of every position and step to keep; 0: none */
    bool attention; /* maps of the attention to the image's patches */
    bool layers;    /* with attention: for every layer, too */
    bool all;       /* of all hypotheses, not of the best one of each request only */
} InspectOptions;

/* A look at one hypothesis. Maps have a number for every patch of the image, in reading order
 * (grid x grid: patch (x, y) at y * grid + x): shares of the row's whole attention, mean over all
 * heads and layers. They sum to at most 1; the rest went to the text (and to the class token, where
 * the model keeps it). */
typedef struct AnswerInspection {
    int length, steps; /* as the DecodeResult's */
    int canvases;      /* different canvases that its steps started from */
    int *step_canvas;  /* [steps]: which of them step s + 1 started from; -1 if it was settled */
    int *written;      /* [length]: the step, from 1, in which the word that stands there in the
                          end was written; 0 if none is */
    int top_k;         /* k */
    Proposal *alternatives; /* [canvases, length, k], the likeliest first; NULL if k = 0. Without a
                          temperature the first is the step's proposal */
    int grid;               /* patches on a side; 0: no attention (not asked for, or no image) */
    int layers;             /* of layer_maps; 0 without */
    float *maps;            /* [length, grid * grid]: of each position in the step `written` */
    float *layer_maps;      /* [length, layers, grid * grid], mean over heads only; NULL without */
    float *answer_map;      /* [grid * grid]: mean of maps over the positions */
} AnswerInspection;

/* What a position was written from or would have become in step s (from 1): k proposals, or NULL if
 * there are none for this step. */
const Proposal *answer_inspection_top_k(const AnswerInspection *inspection, int step, int position);

/* Looks at results [0, count) with a trace, of which `wanted` says which (NULL: all); looks [count]
 * takes them, zeroed for the others. The rows of an image are `class_rows` (0 or 1) and, after
 * them, `grid` x `grid` patches; both 0 without a vision tower. `decode` is what the results were
 * decoded with. */
int answers_inspect(AnswerInspection *inspections, Infill *infill, const DecodeSpec *specs,
                    const DecodeResult *results, const bool *wanted, int count, int32_t mask_id,
                    int grid, int class_rows, const DecodeOptions *decode,
                    const InspectOptions *options, Error *err);
void answer_inspection_free(AnswerInspection *inspection); /* zeroed is allowed */

#endif
