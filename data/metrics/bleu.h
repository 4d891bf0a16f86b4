/* bleu.h - corpus BLEU (Papineni et al., 2002), equal to sacrebleu's (Post, 2018).
 *
 *   BLEU = BP x exp(mean over n = 1..4 of ln p_n),   BP = min(1, exp(1 - ref_len / hyp_len))
 *
 * p_n is the share, in percent, of the hypotheses' n-grams that are in a reference (clipped to the
 * reference with most of it), over the whole corpus; ref_len adds up, for each line, the reference
 * length nearest to the hypothesis's (the shorter of two).
 */
#ifndef EASYFIRST_DATA_METRICS_BLEU_H
#define EASYFIRST_DATA_METRICS_BLEU_H

#include "data/metrics/references.h"
#include "data/metrics/resample.h"
#include "data/metrics/tokenize.h"

enum { BLEU_ORDER = 4 };

/* Smoothing of a precision of 0 (Chen and Cherry, 2014): */
typedef enum BleuSmooth {
    BLEU_EXP,   /* the k-th of them is 100 / (2^k total): mteval's */
    BLEU_NONE,  /* none: the score is 0 */
    BLEU_FLOOR, /* its count is smooth_value instead; 0.1 */
    BLEU_ADD_K, /* smooth_value is added to counts and totals of n > 1; 1 */
    BLEU_SMOOTH_COUNT,
} BleuSmooth;

/* Zeros are sacrebleu's defaults. */
typedef struct BleuOptions {
    Tokenize tokenize;
    BleuSmooth smooth;
    double smooth_value; /* 0: the default of the kind of smoothing */
    bool lowercase;
    bool effective_order; /* mean over the orders that the hypotheses have: for single lines */
} BleuOptions;

typedef struct BleuScore {
    double score; /* 0..100 */
    double precisions[BLEU_ORDER];
    double bp, ratio; /* ratio = hyp_len / ref_len, 0 without references' words */
    int64_t counts[BLEU_ORDER], totals[BLEU_ORDER]; /* before smoothing */
    int64_t hyp_len, ref_len;                       /* words */
    int references;                                 /* of each line; -1: differs */
} BleuScore;

/* Scores references->count hypotheses. Errors: nothing to score, a line without any reference, out
 * of memory. */
int bleu_corpus(const char *const *hypotheses, const References *references,
                const BleuOptions *options, BleuScore *score, Error *err);

/* The same counts of each line, for resampling: their sums give the score. `options` must live as
 * long as *stats. */
int bleu_stats(const char *const *hypotheses, const References *references,
               const BleuOptions *options, LineStats *stats, Error *err);

extern const char *const bleu_smooth_names[]; /* "exp", "none", "floor", "add-k" */
bool bleu_smooth_find(const char *name, BleuSmooth *smooth);

enum { SIGNATURE_SIZE = 128, BLEU_LINE_SIZE = 256 };

/* "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" */
void bleu_signature(const BleuScore *score, const BleuOptions *options, char out[SIGNATURE_SIZE]);

/* "BLEU = 34.10 66.1/41.5/28.2/19.6 (BP = 0.978 ratio = 0.979 hyp_len = 128 ref_len = 131)" */
void bleu_line(const BleuScore *score, char out[BLEU_LINE_SIZE]);

#endif
