/* likelihood.h - how likely given texts are to a model after their prompts: language/likelihood.h's
 * bound for masked diffusion, the exact value for an autoregressive model, which is one with causal
 * attention.
 *
 * Such a model reads a text without a prompt, however long, in windows of its longest sequence, each
 * half a window after the one before, of which the tokens that are new count. If it has no token that
 * begins every sequence, the text's first token is not predicted.
 */
#ifndef EASYFIRST_PROJECTOR_LIKELIHOOD_H
#define EASYFIRST_PROJECTOR_LIKELIHOOD_H

#include "language/likelihood.h"
#include "projector/requests.h"

typedef struct LikelihoodRequest {
    const char *prompt; /* as an AnswerRequest's, and the image; "": none */
    int image;
    const char *text;        /* UTF-8 */
    const RecordTurn *turns; /* [turn_count], as an AnswerRequest's */
    int turn_count;
} LikelihoodRequest;

typedef struct LikelihoodSettings {
    LikelihoodOptions options;
    int batch_tokens; /* see InfillConfig */
    bool no_kv_cache;
} LikelihoodSettings;

typedef struct Likelihood {
    char *error;         /* why there is none, one line, owned; NULL if there is one */
    int code;            /* ... and its ErrorCode */
    int tokens, unknown; /* of the text, and those that the tokenizer does not know */
    int unpredicted;     /* further tokens, without a likelihood: 1 for a first one, else 0 */
    int dropped_turns;
    LikelihoodBound bound;
} Likelihood;

/* Whether the values are exact: the model is autoregressive. */
bool likelihood_exact(const Multimodal *model);

/* One result for each request; none depends on what else is asked. A text that is empty, is not
 * UTF-8, contains <mask>, or does not fit has an error of its own, and so has one whose bound is
 * not finite. *counts (may be NULL) is what was evaluated. */
int multimodal_likelihood(const Multimodal *model, Tensor image_tokens,
                          const LikelihoodRequest *requests, int count,
                          const LikelihoodSettings *settings, Likelihood *out, InfillCounts *counts,
                          Error *err);
void likelihoods_free(Likelihood *likelihoods, int count);

#endif
