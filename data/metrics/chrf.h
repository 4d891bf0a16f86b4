/* chrf.h - chrF (Popović, 2015) and chrF++ (Popović, 2017), equal to sacrebleu's.
 *
 * F-score of character n-grams (1..6, without white space), with chrF++ also of word n-grams
 * (1..2), counted over the whole corpus; precision and recall are means over the orders, recall
 * weighs beta^2 = 4 times. Of several references the best-scoring one counts for each line.
 */
#ifndef EASYFIRST_DATA_METRICS_CHRF_H
#define EASYFIRST_DATA_METRICS_CHRF_H

#include "data/metrics/references.h"
#include "data/metrics/resample.h"
#include "data/metrics/unicode.h"

enum {
    CHRF_CHAR_ORDER = 6,
    CHRF_WORD_ORDER = 2,
    CHRF_BETA = 2,
    CHRF_ORDERS = CHRF_CHAR_ORDER + CHRF_WORD_ORDER
};

/* Zeros are sacrebleu's defaults. */
typedef struct ChrfOptions {
    bool words; /* chrF++ */
    bool lowercase;
    bool whitespace; /* white space counts as characters */
    bool eps;        /* the older scripts' smoothing: mean of the orders' F-scores, missing orders
                        included; else only orders that both sides have (effective order) */
} ChrfOptions;

typedef struct ChrfScore {
    double score; /* 0..100 */
    /* n-grams of the hypotheses, of the references, and of both; characters' orders first */
    int64_t hypothesis[CHRF_ORDERS], reference[CHRF_ORDERS], match[CHRF_ORDERS];
    int references; /* of each line; -1: differs */
} ChrfScore;

/* As bleu_corpus. */
int chrf_corpus(const char *const *hypotheses, const References *references,
                const ChrfOptions *options, ChrfScore *score, Error *err);

/* As bleu_stats. */
int chrf_stats(const char *const *hypotheses, const References *references,
               const ChrfOptions *options, LineStats *stats, Error *err);

enum { CHRF_TEXT_SIZE = 128 };

const char *chrf_name(const ChrfOptions *options); /* "chrF2", "chrF2++" */

/* "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no" */
void chrf_signature(const ChrfScore *score, const ChrfOptions *options, char out[CHRF_TEXT_SIZE]);

/* "chrF2 = 58.31" */
void chrf_line(const ChrfScore *score, const ChrfOptions *options, char out[CHRF_TEXT_SIZE]);

#endif
