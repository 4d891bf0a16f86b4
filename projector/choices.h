/* choices.h - which of given answers the model finds the likeliest.
 *
 * The score of a choice of N tokens is the model's own log-likelihood of it after the prompt,
 *
 *   log p(N) + sum over t = 1..N of log p(x[i_t] | x[i_1], .. x[i_t-1], <mask> elsewhere),
 *
 * the length predictor's log-probability of N (0 without a predictor: every length is as likely) and
 * the chain rule over the choice's tokens in the order in which the decoder would write them: of
 * those that are still masked, the next one is that with the largest probability (ties: the
 * leftmost). The network gives every token of a partly masked answer a probability, so that the
 * chain rule holds for any order (order-agnostic autoregression: Uria, Murray, Larochelle, ICML
 * 2014; Hoogeboom et al., ICLR 2022; for masked diffusion Ou et al., arXiv 2406.03736). The bound
 * that these are trained with is its mean over all orders; the easy-first order is the one that
 * decoding follows, needs no random numbers, and N evaluations. A choice of one token needs one, in
 * which all choices of one token are scored: their softmax over the vocabulary, exactly.
 *
 * The sum is a likelihood, and so choices of different lengths compare; the mean of the tokens'
 * log-probabilities is not one: it prefers long choices, whose last tokens are certain.
 *
 * By likelihood instead (CHOICE_BY_LIKELIHOOD), the score is log p(N) minus LLaDA's bound on the
 * negative log-likelihood of the tokens (language/likelihood.h): the mean over all orders, exact for
 * short choices and sampled for longer ones. The score of a token is its part of that sum.
 *
 * Probabilities are the softmax of the scores over the choices.
 */
#ifndef EASYFIRST_PROJECTOR_CHOICES_H
#define EASYFIRST_PROJECTOR_CHOICES_H

#include "language/likelihood.h"
#include "projector/requests.h"

enum { CHOICES_MOST = 1 << 20 }; /* of one request */

typedef struct ChoiceRequest {
    const char *prompt; /* as an AnswerRequest's, and the image */
    int image;
    const char *const *choices; /* [count], UTF-8 */
    size_t count;
    const RecordTurn *turns; /* [turn_count], as an AnswerRequest's */
    int turn_count;
} ChoiceRequest;

typedef enum ChoiceBy { CHOICE_BY_DENOISING, CHOICE_BY_LIKELIHOOD } ChoiceBy;

/* Their names in options and results. */
extern const char *const choice_by_names[]; /* "denoising", "likelihood" */

typedef struct ChoiceOptions {
    int batch_tokens; /* see InfillConfig */
    bool no_kv_cache;
    const int *cancel; /* see DecodeRun; may be NULL */
    LongPrompts long_prompts;
    ChoiceBy by;
    int samples; /* by likelihood: masks for each choice; 0: LIKELIHOOD_SAMPLES */
    uint64_t seed;
} ChoiceOptions;

typedef struct ChoiceScore {
    int length;
    int32_t *tokens;     /* [length] */
    double *scores;      /* [length]: log-probability of each when it was written; or its part */
    double length_score; /* log p(length); 0 without a length predictor */
    double score;        /* the log-likelihood */
    double probability;  /* among the request's choices */
} ChoiceScore;

/* What came of one request. */
typedef struct ChoiceAnswer {
    Answer answer;       /* its error, or `count` and `best`, of the choices; text is NULL */
    ChoiceScore *scores; /* [count], in the order of the choices */
    int evaluations;     /* canvases evaluated for it: one that several choices share counts once */
} ChoiceAnswer;

typedef struct Choices {
    ChoiceAnswer *items; /* in the order of the requests */
    int count;
    InfillCounts counts;
    double tokenize_s, prefix_s, decode_s; /* as the Answers' */
} Choices;

/* The longest choice of a request, in tokens. An error says which choice the model cannot write
 * (one that is empty, is not UTF-8, has characters or special tokens that no answer has, does not
 * fit, or is longer than the predictor knows), or that two are the same to it. */
int choices_check(const Multimodal *model, const ChoiceRequest *request, int *longest, Error *why);

/* Scores the choices of all requests, in packed batches; none depends on what else is asked. Errors
 * are those of multimodal_answer. */
int multimodal_choose(const Multimodal *model, Tensor image_tokens, const ChoiceRequest *requests,
                      int count, const ChoiceOptions *options, Choices *choices, Error *err);
void choices_free(Choices *choices);

#endif
