/* decode.h - decoding by masked diffusion: the easy words first.
 *
 * An answer of N tokens starts as N masks. In each of T steps the model proposes a token and its
 * log-probability (its score) for every answer position; the strategy keeps the most confident
 * proposals and masks the rest again, so that a written token can be erased. This file does not
 * depend on the network: it calls an evaluate function with canvases and gets proposals.
 *
 * The strategies are those of arXiv 2308.12219 (and 2302.05737, reparameterized decoding).
 *
 * reparam-<uncond|cond>-<deterministic|stochasticTAU>-<linear|cosine>, in step t = 1..T:
 *
 * - rate = cos(pi/2 * t/T) or 1 - t/T; k = floor(N * rate), and 0 at t = T.
 *
 * - L = the positions whose proposal scores lie strictly below the (k+1)-th smallest one: ties can
 *   leave fewer than k. Stochastic ranking first adds TAU x rate x Gumbel noise, in double.
 *
 * - Each position has a flag noisy, true at first. uncond: not_v1 = not_v2 = L. cond: not_v2 = L,
 *   not_v1 = L and proposal == token there and its score < the stored score.
 *
 * - (noisy ? not_v2 : not_v1) becomes <mask> with stored score -inf; noisy and not not_v2 takes the
 *   proposal and its score; a clean position that is not masked keeps what it has.
 *
 * - noisy' = (noisy or not_v1) and not_v2, which is true exactly where the canvas now has a <mask>.
 *
 * cmlm: every masked position takes its proposal with probability 1 / (T - t + 1).
 *
 * ar: the leftmost masked position takes its proposal; always N steps, regardless of T. In an
 * autoregressive model a token that ends the text (DecodeRun.stops) ends the answer, too.
 *
 * In cmlm and ar, too, the stored score is that of the proposal that was written.
 *
 * Approximate decoding: fewer evaluations, other answers. Both of these write several tokens in a
 * step, never erase one, and are done after N steps at the latest:
 *
 * confidenceX: every masked position whose proposal has a probability of at least X takes it, and
 * in any case the one with the best score (the leftmost of equals).
 *
 * entropyX: the masked positions take their proposals in the order of their scores, the best first,
 * as long as the surprise (-score, the min-entropy) of those before, summed up over this step, is
 * at most X: the first in any case. After arXiv 2505.24857, whose bound is on the entropy.
 *
 * The strategies of LLaDA and Dream, which write some masked positions in every step and never
 * change a written one; their <mask> is never proposed. "The best n" are by rank, the leftmost of
 * equals:
 *
 * llada-[blockB-]<lowconf|random>[-noend][-endlast] (LLaDA, arXiv 2502.09992): the answer in blocks
 * of B open positions from left to right, the last one may be shorter; without B it is one block.
 * Each block has T / blocks steps, the first T mod blocks one more; T is at least the number of
 * blocks. In step s = 1..S of a block of M positions the best n of its masked ones are written,
 * n = M / S and one more while s <= M mod S. The rank is the proposal's score (lowconf: those of
 * low confidence stay masked) or a random number (random). noend: the end token (ends[0]) is never
 * proposed and left out of the softmax. endlast: proposals of the end tokens (ends) have the rank
 * -infinity (LLaDA's published code leaves their logits out of the softmax instead, after the
 * proposals are chosen, so that theirs get probability 0 and the others' grow). LLaDA draws a token at a temperature as the largest exp(logit) / (-log u)^temperature,
 * u uniform: the logarithm of that, divided by the temperature, is logit / temperature -
 * log(-log u), which is how every strategy here draws (the proposals' noise, in double).
 *
 * dream-<origin|maskgit_plus|topk_margin|entropy>[-stochasticTAU] (Dream, arXiv 2508.15487): with
 * times t falling evenly from 1 to 0.001 in T steps, a step from t to s writes the best n of all M
 * masked positions, n = floor(M (1 - s / t)), computed in integers, and the last one all. The rank
 * is the confidence: the proposal's probability (maskgit_plus), the largest probability minus the
 * second one (topk_margin) or minus the entropy (entropy), all under softmax(logits / temperature)
 * at a temperature; stochastic adds TAU x Gumbel noise, which draws n without replacement from
 * softmax(confidence / TAU) (there alg_temp). origin: each masked position is written with
 * probability 1 - s / t instead, in the last step 1.
 *
 * early_stop n, with any strategy: the proposed answer is the canvas with the proposals in its
 * masks. Once it has been the same in n steps that follow each other, it is the answer: the last of
 * these steps writes it, and later ones change and evaluate nothing.
 *
 * prefix_cache n, with any strategy, for models whose prompt attends to the canvas: only the steps 1,
 * n + 1, 2n + 1 ... are evaluated as a whole. They keep the keys and values of what is before the
 * canvas, and the steps after them evaluate their canvas after these (dLLM-cache, arXiv 2506.06295;
 * Fast-dLLM, arXiv 2505.22618). With n = 1 that is every step, and the answers are the exact ones.
 *
 * guidance W, with any strategy (classifier-free, unsupervised: Nie et al., arXiv 2410.18514, as
 * LLaDA decodes): the logits of a canvas are u + (W + 1) (c - u), in f32, with c those after the
 * prompt and u those after as many <mask> in its place. Proposals, scores and confidences are of
 * these. Each canvas takes two evaluations, which both count. It excludes prefix_cache.
 *
 * Infilling. Some positions of an answer may be fixed: given tokens, which every canvas shows to the
 * model. They are never masked, nothing is proposed for them, they take no noise and their stored
 * score is 0 (probability 1). N, in the schedules, in the rules above and in the number of steps,
 * counts the open positions only, the ranking is among these, and a hypothesis's score is their
 * mean. Noise is drawn by a position's place in the whole canvas. An answer without any open
 * position is refused: there is nothing to decode.
 *
 * A hypothesis is one answer being filled: one length, one sample. Hypotheses advance together, one
 * step at a time, so that all their canvases can be evaluated as one batch; none depends on the
 * others.
 *
 * The canvas cache. Proposals by argmax are a pure function of the canvas: the hypotheses of one
 * request and one length share a cache of evaluated canvases and their proposals, so that a step
 * whose canvas is not new costs no evaluation and gives the same result. With prefix_cache they are
 * a function of the canvas and of the one that the prefix was computed with: each hypothesis has a
 * cache of its own, and a canvas is known as long as that one is the same. A step that recomputes
 * the prefix evaluates nothing only if its canvas is that one. So the cache, and what else is
 * decoded, changes no answer. Proposals drawn at a temperature are not cached. An answer is settled when nothing is masked and k = 0 from here on
 * (or the strategy is cmlm): no proposal can have an effect, so nothing is evaluated.
 *
 * Noise is a function of (seed, length, sample, step, purpose, position) alone: neither the
 * request's index nor what else is decoded changes an answer. Its stream is random_stream(length,
 * sample, step, purpose) with steps from 1 and the purposes of DecodeNoise.
 */
#ifndef EASYFIRST_LANGUAGE_DECODE_H
#define EASYFIRST_LANGUAGE_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef enum DecodeStrategy {
    DECODE_REPARAM,
    DECODE_CMLM,
    DECODE_AR,
    DECODE_CONFIDENCE,
    DECODE_ENTROPY,
    DECODE_LLADA,
    DECODE_DREAM
} DecodeStrategy;
typedef enum DecodeSchedule { DECODE_COSINE, DECODE_LINEAR } DecodeSchedule;

typedef enum DecodeDream {
    DREAM_ORIGIN,
    DREAM_MASKGIT_PLUS,
    DREAM_TOPK_MARGIN,
    DREAM_ENTROPY
} DecodeDream;

/* What a proposal's confidence is; all of softmax(logits / temperature), 1 for temperature 0. */
typedef enum DecodeMeasure {
    DECODE_NO_MEASURE,
    DECODE_PROBABILITY, /* of the proposed token */
    DECODE_MARGIN,      /* the largest minus the second one; of a single token 1 */
    DECODE_NEG_ENTROPY, /* the sum of p log p */
} DecodeMeasure;

/* How the proposals of a canvas are chosen, beyond temperature and noise. */
typedef struct DecodeChoice {
    DecodeMeasure measure;
    int32_t never;  /* never proposed, and left out of the softmax, like <mask>; -1: none */
    float guidance; /* W > 0: from logits u + (W + 1) (c - u) instead of c; see below */
} DecodeChoice;

typedef enum DecodeNoise {
    DECODE_NOISE_PROPOSAL, /* drawing proposals at a temperature; index row * vocabulary + id */
    DECODE_NOISE_RANKING,  /* stochastic: random_gumbel, index = position; llada-random:
                              random_uniform */
    DECODE_NOISE_WRITING,  /* cmlm: a position is written if random_uniform < 1 / (T - t + 1);
                              dream-origin: < 1 - s / t */
} DecodeNoise;

enum { DECODE_STEPS = 50, DECODE_LEAST_STEPS = 10 }; /* the paper's; see iterations */

typedef struct DecodeOptions {
    DecodeStrategy strategy;
    bool conditional;        /* reparam: cond instead of uncond */
    bool stochastic;         /* reparam, dream: noise in the ranking, scaled by tau */
    float tau;               /* >= 0 */
    DecodeSchedule schedule; /* reparam */
    int iterations;          /* T, 1 to 1000000; the paper's: 50, multiple choice 1. 0: as many as
                                the answer has tokens, but from DECODE_LEAST_STEPS to
                                DECODE_STEPS */
    float temperature;       /* 0: argmax; else sampled from softmax(logits / temperature) */
    uint64_t seed;
    bool no_canvas_cache;  /* evaluate every step, even of cached or settled canvases: slower */
    float bound;           /* confidence: the least probability, 0 to 1; entropy: the most surprise,
                             >= 0, in nats */
    int early_stop;        /* steps with the same proposed answer that end it; 0: never */
    int prefix_cache;      /* steps for which the prefix's keys and values are used; 0: they are not
                             kept */
    int block;             /* llada: open positions of a block; 0: all are one */
    bool random_remasking; /* llada: random instead of lowconf */
    bool end_never, end_last; /* llada: noend, endlast */
    DecodeDream dream;        /* dream */
    float guidance; /* W, 0 to 100: how far proposals are moved away from those without a prompt; 0:
                       not */
} DecodeOptions;

/* Whether these options may give other answers than the strategies of the papers do. */
bool decode_approximate(const DecodeOptions *options);

/* reparam-uncond-deterministic-cosine, 50 iterations, argmax, seed 0. */
DecodeOptions decode_options_default(void);

/* The number of steps for an answer of `open` open tokens. */
int decode_steps(const DecodeOptions *options, int open);

/* Sets strategy, conditional, stochastic, tau, schedule, bound, and the fields of llada and dream
 * from a name as above, e.g. "reparam-cond-stochastic0.5-linear", "cmlm", "confidence0.9",
 * "llada-block32-lowconf". Errors name the invalid part and leave the options unchanged. */
int decode_strategy_parse(DecodeOptions *options, const char *name, Error *err);

/* The name that parses to the same strategy; at most 128 bytes. */
void decode_strategy_name(char *out, size_t size, const DecodeOptions *options);

/* Whether a canvas without masks is settled from this step on: neither this nor a later step can
 * change it. */
bool decode_settled(const DecodeOptions *options, int open, int step, int steps);

/* A hypothesis to decode. */
typedef struct DecodeSpec {
    int request; /* which prompt, the caller's index; passed to evaluate */
    int length;  /* N >= 1 */
    int sample;  /* from 0: distinguishes hypotheses of one request and length; part of the noise's
                    key */
    float prior; /* added to the score only when hypotheses are compared (decode_best) */
    const int32_t *fixed; /* [length]: the given token of each position, <mask> where it is open;
                             NULL: all are open. Must live as long as the run */
} DecodeSpec;

/* N: how many of its positions are open. */
int decode_open(const DecodeSpec *spec, int32_t mask_id);

/* One canvas to be evaluated. */
typedef struct DecodeCanvas {
    int hypothesis; /* index of its spec */
    int request, length;
    const int32_t *tokens; /* [length], <mask> where nothing is written */
    uint64_t noise;        /* random stream for drawing proposals (DECODE_NOISE_PROPOSAL) */
    const int32_t *fixed;  /* the spec's: proposals of fixed positions are not looked at, so they
                              need not be written; NULL: none */
    bool after_kept; /* prefix_cache: evaluate it after the keys and values of this hypothesis's
                              last canvas without after_kept */
    const DecodeChoice *choice; /* NULL: no measure, and only <mask> is never proposed */
    float *confidence;          /* [length], where the choice's measure is written; else NULL */
} DecodeCanvas;

typedef struct Proposal {
    int32_t token; /* never <mask> */
    float score;   /* its log-probability under the softmax without temperature, <mask> left out */
} Proposal;

/* Evaluates `count` >= 1 canvases; writes the proposals of all positions, canvas after canvas, to
 * `out`. `temperature` and `seed` are the options'; at a temperature the proposal of a row is the
 * id with the largest logit / temperature + random_gumbel(seed, noise, row * vocabulary + id).
 * Returns 0, or -1 with a message, which ends the run. A proposal of <mask> or of a negative id, a
 * score that is NaN or +infinity or a confidence that is not finite ends only the hypothesis that it
 * was made for. */
typedef int (*DecodeEvaluate)(void *model, const DecodeCanvas *canvases, int count,
                              float temperature, uint64_t seed, Proposal *out, Error *err);

/* One position after one step. */
typedef struct TraceCell {
    int32_t token;     /* the current token; the mask id if masked */
    float score;       /* stored log-probability; -inf if masked */
    Proposal proposal; /* what the model proposed in this step; if settled or fixed, the current
                          token */
} TraceCell;

/* A step of one hypothesis, as passed to the callback: in every step, for each unfinished
 * hypothesis in turn. */
typedef struct DecodeStep {
    int hypothesis;  /* index of its spec */
    int request;     /* the spec's; of multimodal_answer, the index of the caller's request */
    int of_request;  /* of multimodal_answer: index among the request's hypotheses */
    int step, steps; /* step is 1..steps */
    int length;
    bool evaluated;         /* false: the canvas was in the cache, or settled */
    const TraceCell *cells; /* [length], valid during the call */
    const int32_t *fixed;   /* the spec's: [length], <mask> where open; NULL: all are open */
} DecodeStep;
typedef void (*DecodeCallback)(void *user, const DecodeStep *step);

typedef struct DecodeResult {
    int length, open; /* tokens, and those that were not fixed */
    int steps;        /* that were done: decode_steps, fewer if it failed */
    char *error;      /* why it failed, one line; NULL on success */
    int32_t *tokens;  /* [length] */
    float *scores;    /* [length], stored log-probabilities; 0 where fixed */
    double score;     /* the mean over open positions; -infinity if it failed */
    int evaluations;  /* canvases evaluated for this hypothesis: one that several share counts for
                          the first */
    TraceCell *trace; /* [steps, length], or NULL unless a trace was requested */
    bool *evaluated;  /* [steps], whether that step evaluated; NULL without a trace */
} DecodeResult;

typedef struct DecodeRun {
    const DecodeOptions *options;
    const DecodeSpec *specs;
    int count;
    int32_t mask_id; /* -1: the model has none, and the strategy is ar */
    DecodeEvaluate evaluate;
    void *model;
    DecodeCallback callback; /* may be NULL */
    void *user;
    const int *cancel; /* read with __atomic_load_n before each step: non-zero ends the run, which
                          fails with "cancelled"; may be NULL */
    bool trace;        /* keep every step in the results */
    int32_t ends[2];   /* the tokens that end a text and a turn, -1 where there is none; ... */
    int end_count;     /* ... how many are given */
    const int32_t *stops; /* [stop_count]: ar: once one of these is written, so are the positions
                             after it, with the same token and score 0, and nothing more is
                             evaluated; for autoregressive models */
    int stop_count;
} DecodeRun;

/* Decodes all hypotheses. *results is an array of run->count, in the order of the specs, owned by
 * the caller (decode_results_free); NULL after an error. Every step collects the canvases of all
 * hypotheses that are neither settled nor cached and calls evaluate once, or not at all if there
 * are none. All memory is allocated before the first step. */
int decode_run(const DecodeRun *run, DecodeResult **results, Error *err);
void decode_results_free(DecodeResult *results, int count);

/* ---- The same step by step, for runs that share evaluations with others. ---- */

typedef struct Decoder Decoder;

/* Canvases whose proposals are to be chosen alike, canvas after canvas into `out`: the arguments of
 * a DecodeEvaluate. */
typedef struct DecodeBatch {
    const DecodeCanvas *canvases;
    int count;
    float temperature;
    uint64_t seed;
    Proposal *out;
} DecodeBatch;

/* All memory is allocated here. `run` is copied, what it points to must outlive the decoder; its
 * evaluate and cancel are not used. */
int decoder_open(Decoder **decoder, const DecodeRun *run, Error *err);
void decoder_close(Decoder *decoder); /* NULL is allowed */

/* Whether all steps are done. */
bool decoder_done(const Decoder *decoder);

/* Begins the next step: what is to be evaluated for it, which may be nothing; and, once that is
 * done, ends it. */
DecodeBatch decoder_begin(Decoder *decoder);
int decoder_finish(Decoder *decoder, Error *err);

/* When all steps are done: the results, which the caller takes over. NULL if there are none. */
DecodeResult *decoder_results(Decoder *decoder);

/* The index of the best result by score + prior among those whose spec has this request (ties: the
 * first); -1 if there is none. */
int decode_best(const DecodeResult *results, const DecodeSpec *specs, int count, int request);

#endif
