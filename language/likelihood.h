/* likelihood.h - how likely a text is to a masked diffusion model: a bound by sampling masks.
 *
 * Of a text of L tokens after a prompt,
 *
 *   -log p(text | prompt) <= E over l of (L / l) E over masks of l tokens of
 *                            sum over the masked tokens of -log p(token | prompt, unmasked tokens)
 *
 * with l uniform in 1..L and all sets of l tokens as likely: the form of LLaDA's equation 6 (Nie et
 * al., arXiv 2502.09992, with Ou et al., arXiv 2406.03736), whose variance is below that of masking
 * each token with a random probability. p is the softmax over the whole vocabulary, <mask> included,
 * as in their code. It is the likelihood of the tokens given their number.
 *
 * The masks. A text with 2^L - 1 <= samples gets each mask once, weighted, and the bound is exact;
 * so it is with the usual 128 samples up to 7 tokens. For longer texts the samples are drawn in
 * groups of 8 (of half of them where there are fewer than 16), whose l are evenly spread from a
 * random beginning, as theirs are: with b samples in a group l = (k + floor(j L / b)) mod L + 1 for
 * j = 0..b - 1, k uniform in 0..L - 1, which is exactly uniform. Groups are independent, so that
 * their spread gives the standard error.
 *
 * Random numbers are a function of (seed, prompt, text): a text's bound depends neither on what else
 * is computed nor on its place in a file.
 *
 * Autoregressive models give the exact likelihood, by the chain rule.
 */
#ifndef EASYFIRST_LANGUAGE_LIKELIHOOD_H
#define EASYFIRST_LANGUAGE_LIKELIHOOD_H

#include "language/infill.h"

enum { LIKELIHOOD_SAMPLES = 128, LIKELIHOOD_MOST = 1000000 };

/* The masks of one text. */
typedef struct MaskPlan {
    int length, samples;
    bool exact; /* the samples are all masks */
    uint64_t seed, stream;
} MaskPlan;

MaskPlan mask_plan(int length, int samples, uint64_t seed, uint64_t stream);

/* Sets masked [length], at least one of which is true; returns the factor of the sum of the masked
 * tokens' losses: the bound is the sum over all samples. */
double mask_plan_sample(const MaskPlan *plan, int sample, bool *masked);

/* Samples of group `group`, from *first on; 0 beyond the last one. */
int mask_plan_group(const MaskPlan *plan, int group, int *first);

/* The stream of a text after a prompt. */
uint64_t likelihood_stream(const int32_t *prompt, int prompt_count, const int32_t *text,
                           int length);

typedef struct LikelihoodText {
    int request; /* of the Infill */
    const int32_t *tokens;
    int length;
    uint64_t stream;
    double *shares; /* [length]: each token's part of the bound, in nats; NULL: not wanted */
} LikelihoodText;

typedef struct LikelihoodBound {
    double nats;     /* not finite if the model is damaged */
    double variance; /* of nats, by the choice of the masks; 0: exact; NaN: not known, of one
                        sample */
    int evaluations;
} LikelihoodBound;

typedef struct LikelihoodOptions {
    int samples; /* 0: LIKELIHOOD_SAMPLES */
    uint64_t seed;
    const int *cancel; /* see DecodeRun; may be NULL */
} LikelihoodOptions;

/* The bounds of all texts, in packed batches. Calls infill_reserve. No token of a text is <mask>.
 * Evaluations count as inspections. */
int infill_likelihoods(Infill *infill, const LikelihoodText *texts, int count,
                       const LikelihoodOptions *options, LikelihoodBound *out, Error *err);

/* The losses, -log p, of the masked tokens of a text: losses [length] are set where masked. After
 * infill_reserve. */
int infill_losses(Infill *infill, const LikelihoodText *text, const bool *masked, float *losses,
                  Error *err);

/* ---- Autoregressive models. ---- */

typedef struct CausalText {
    const int32_t *ids; /* [count]: all of a sequence, the model's first token included */
    int count, scored;  /* the last `scored` are the text, fewer than count */
} CausalText;

/* -log p of each text's tokens, in nats; `counts` (may be NULL) counts canvases, forwards, rows. */
int causal_likelihoods(const LanguageModel *model, Device *device, const CausalText *texts,
                       int count, int batch_tokens, double *nats, InfillCounts *counts, Error *err);

#endif
