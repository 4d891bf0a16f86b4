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

/* A DecodeEvaluate of canvases of these hypotheses. A canvas without any row before its masked
 * position is an error. Counted in infill_counts. */
int infill_causal_evaluate(void *causal, const DecodeCanvas *canvases, int count, float temperature,
                           uint64_t seed, Proposal *out, Error *err);

#endif
