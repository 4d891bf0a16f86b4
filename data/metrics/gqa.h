/* gqa.h - GQA's metrics, equal to those of the official evaluation script.
 *
 * The balanced questions are scored. An answer is right if it equals the gold answer byte for byte;
 * a question without a prediction is wrong and stays in the denominator (the official script would
 * stop there). A metric that cannot be computed has a reason instead of a value.
 *
 * Files are read as streams. Kept in memory are the ids of all questions and predictions, each
 * distinct answer once, some 100 bytes for a scored question, and with grounding the boxes of the
 * questions' images.
 */
#ifndef EASYFIRST_DATA_METRICS_GQA_H
#define EASYFIRST_DATA_METRICS_GQA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/metrics/resample.h"
#include "data/sets/skipped.h"
#include "kernels/error.h"

typedef struct GqaFiles {
    const char *predictions;   /* official or LLaVA's answers */
    const char *questions;     /* official, or LLaVA's: file or folder */
    const char *all_questions; /* for consistency; NULL: what is in `questions` */
    const char *choices;       /* for validity and plausibility; NULL */
    const char *scene_graphs;  /* for grounding, together with `attentions`; NULL */
    const char *attentions;    /* NULL */
    bool outcomes;             /* keep what came of each question */
} GqaFiles;

typedef enum GqaMetricKind {
    GQA_BINARY, /* accuracy where types.structural is not "query" */
    GQA_OPEN,   /* and where it is */
    GQA_ACCURACY,
    GQA_EXACT_MATCH,  /* lmms-eval's: lower-cased, without ASCII's punctuation */
    GQA_CONSISTENCY,  /* accuracy on the questions entailed by a question answered right */
    GQA_VALIDITY,     /* answers in the scope of the question */
    GQA_PLAUSIBILITY, /* and that are plausible */
    GQA_GROUNDING,    /* share of attention in the regions that question and answer name */
    GQA_DISTRIBUTION, /* weighted chi-square of answers / 100: lower is better, not a percentage */
    GQA_METRICS
} GqaMetricKind;

typedef struct GqaMetric {
    bool present;
    double value;  /* percent, but for the distribution */
    int64_t count; /* of questions it is a mean over */
    bool sure;     /* it has an interval: gqa_confidence */
    Interval interval;
    char absent[120]; /* why, if it is not present: "no choices file", ... */
} GqaMetric;

/* "accuracy", "exact_match", ... */
const char *gqa_metric_name(GqaMetricKind kind);

typedef enum GqaTableKind {
    GQA_BY_STRUCTURAL, /* types.structural, in alphabetical order */
    GQA_BY_SEMANTIC,
    GQA_BY_STEPS,        /* numbers ascend */
    GQA_BY_WORDS,        /* of the question */
    GQA_BY_ANSWER_WORDS, /* of the gold answer; not of the official script */
    GQA_TABLES
} GqaTableKind;

typedef struct GqaRow {
    char *name;   /* "attr", "3" */
    double value; /* accuracy, percent */
    int64_t count;
} GqaRow;

typedef struct GqaTable {
    GqaRow *rows; /* [count]; none: the questions lack this field */
    int count;
} GqaTable;

const char *gqa_table_name(GqaTableKind kind);

/* Whether the questions are testdev_balanced, with its published number of questions of
 * each type. */
typedef enum GqaCheck { GQA_NOT_TESTDEV, GQA_CHECK_EQUAL, GQA_CHECK_DIFFERENT } GqaCheck;

/* What came of a scored question. */
typedef struct GqaOutcome {
    char *id, *structural, *semantic, *detailed; /* the types NULL: none */
    char *gold, *prediction;                     /* NULL: none */
    float values[GQA_METRICS];                   /* 0..1; NaN: it does not count in this metric */
} GqaOutcome;

typedef struct GqaScore {
    GqaMetric metrics[GQA_METRICS];
    GqaTable tables[GQA_TABLES];
    int64_t questions;   /* scored: balanced */
    int64_t unbalanced;  /* not balanced, not scored */
    int64_t predictions; /* distinct questions answered */
    int64_t unanswered;  /* of the scored ones */
    int64_t unknown;     /* predictions for questions that are in none of the files */
    GqaCheck check;
    char check_text[400]; /* which counts differ */
    Skipped skipped;      /* of all files */
    GqaOutcome *outcomes; /* [outcome_count] in the order of the file; with GqaFiles.outcomes */
    size_t outcome_count;
} GqaScore;

/* Scores the files. Errors: a file that cannot be read, or has no question that is scored. What is
 * wrong with single entries is counted and named in score->skipped. On failure *score is empty.
 */
int gqa_score(GqaScore *score, const GqaFiles *files, Error *err);
void gqa_score_free(GqaScore *score);

/* Sets the intervals of the metrics that are means over questions, all but the distribution; needs
 * outcomes. */
int gqa_confidence(GqaScore *score, const ResampleOptions *options, Error *err);

#endif
