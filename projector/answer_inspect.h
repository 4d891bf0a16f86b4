/* answer_inspect.h - top-k alternatives and attention of a decoded answer.
 *
 * After decoding, each distinct canvas of a hypothesis is evaluated once more, with inspection
 * (language/inspect.h). It costs nothing unless asked for, and no answer depends on it.
 *
 * A token's attention is read where the token was chosen: in the evaluation of the canvas before
 * the step in which it was last written. Its position was still a <mask> there, and the row's
 * attention led to the token. (In the finished canvas the row represents a given token, and its
 * attention says less about why it was written.)
 */
#ifndef EASYFIRST_PROJECTOR_ANSWER_INSPECT_H
#define EASYFIRST_PROJECTOR_ANSWER_INSPECT_H

#include "language/infill.h"

typedef struct InspectOptions {
    int top_k;      /* proposals to keep for every position and step; 0: none */
    bool attention; /* maps of the attention to the image's patches */
    bool layers;    /* with attention: for every layer, too */
    bool all;       /* of all hypotheses, not only of the best one of each request */
} InspectOptions;

/* The inspection of one hypothesis. Maps have a value for every patch of the image, in reading
 * order (grid x grid: patch (x, y) at y * grid + x): shares of the row's whole attention, mean over
 * all heads and layers. They sum to at most 1; the rest went to the text (and to the class token,
 * where the model keeps it). */
typedef struct AnswerInspection {
    int length, steps; /* as the DecodeResult's */
    int canvases;      /* distinct canvases that its steps started from */
    int *step_canvas;  /* [steps]: the canvas that step s + 1 started from; -1 if the network did
                          not run */
    int *written;      /* [length]: the step, from 1, in which the final token was written; 0:
                          none */
    int top_k;         /* k */
    Proposal *alternatives; /* [canvases, length, k], the likeliest first; NULL if k = 0. Without a
                          temperature the first is the step's proposal */
    int grid;               /* patches on a side; 0: no attention (not asked for, or no image) */
    int layers;             /* of layer_maps; 0 without */
    float *maps;            /* [length, grid * grid]: of each position in the step `written` */
    float *layer_maps;      /* [length, layers, grid * grid], mean over heads only; NULL without */
    float *answer_map;      /* [grid * grid]: mean of maps over the positions */
} AnswerInspection;

/* The k proposals of a position in step s (from 1); NULL if there are none for this step. */
const Proposal *answer_inspection_top_k(const AnswerInspection *inspection, int step, int position);

/* Inspects those of results [0, count), which need a trace, that are `wanted` (NULL: all); the
 * other inspections [count] are zeroed. The rows of an image are `class_rows` (0 or 1) and, after
 * them, `grid` x `grid` patches; both 0 without a vision tower. `decode` is what the results were
 * decoded with. */
int answers_inspect(AnswerInspection *inspections, Infill *infill, const DecodeSpec *specs,
                    const DecodeResult *results, const bool *wanted, int count, int32_t mask_id,
                    int grid, int class_rows, const DecodeOptions *decode,
                    const InspectOptions *options, Error *err);
void answer_inspection_free(AnswerInspection *inspection); /* zeroed is allowed */

#endif
