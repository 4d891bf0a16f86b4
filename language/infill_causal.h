/* infill_causal.h - evaluates the canvases of an autoregressive model, which are written from left
 * to right: the keys and values of every written row are kept, so that a step computes one row for
 * each canvas (its first step, the prompt's rows).
 *
 * Of a canvas only the leftmost masked position is proposed, by the row before it. The proposals of
 * the others are not those of the model: written positions get their own token, later ones the same
 * proposal again. They are for the strategy ar, which looks at none of these.
 */
#ifndef EASYFIRST_LANGUAGE_INFILL_CAUSAL_H
#define EASYFIRST_LANGUAGE_INFILL_CAUSAL_H

#include "language/infill.h"

typedef struct InfillCausal InfillCausal;

/* For hypotheses whose requests are prompts of `infill`, which has ATTENTION_CAUSAL, and must
 * outlive it, as must the specs. All memory is allocated here. *causal is NULL on failure. */
int infill_causal_open(InfillCausal **causal, Infill *infill, const DecodeSpec *specs, int count,
                       Error *err);
void infill_causal_close(InfillCausal *causal); /* NULL is allowed */

/* The same for hypotheses that come and go: at most so many at a time, whose prompts and canvases
 * have at most `rows` rows together. */
int infill_causal_open_slots(InfillCausal **causal, Infill *infill, int hypotheses, int32_t rows,
                             Error *err);

/* Takes rows for the hypotheses of a request, a slot of `infill`; false: there is no space for them
 * now, and nothing is taken. Its canvases' `hypothesis` is the index in specs. */
bool infill_causal_place(InfillCausal *causal, const DecodeSpec *specs, int count);

/* Frees the rows of a request; nothing if it has none. */
void infill_causal_remove(InfillCausal *causal, int request);

/* A DecodeEvaluate of canvases of these hypotheses. A canvas without any row before its masked
 * position is an error. Counted in infill_counts. */
int infill_causal_evaluate(void *causal, const DecodeCanvas *canvases, int count, float temperature,
                           uint64_t seed, Proposal *out, Error *err);

/* The same for several at once, in shared forward passes. */
int infill_causal_evaluate_all(InfillCausal *causal, const DecodeBatch *batches, int count,
                               Error *err);

#endif
