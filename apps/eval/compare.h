/* compare.h - two evaluations of the same questions: differences with intervals and p values,
 * questions won and lost. */
#ifndef EASYFIRST_APPS_EVAL_COMPARE_H
#define EASYFIRST_APPS_EVAL_COMPARE_H

#include "apps/eval/scored.h"

/* A metric of some questions. */
typedef struct CompareRow {
    char *group; /* "file", or a type's name ("semantic"); NULL: all questions, or their mean */
    char *name;  /* of the file or type; NULL */
    int metric;
    int64_t count;           /* questions that count in it, in either */
    int64_t won, lost, same; /* of the second against the first; with the first metric only */
    Paired paired;
    double p_holm; /* of a group's row: paired.p_random, corrected for that many rows of its group
                      and metric by Holm's method; NaN: there is none */
} CompareRow;

typedef struct Comparison {
    Scored sides[2]; /* the second one's lines in the order of the first */
    json_t *results[2];
    CompareRow *rows; /* [row_count] */
    int row_count;
    int64_t won, lost, same; /* by the task's first metric */
    bool other_prompts;      /* prompts may differ */
} Comparison;

/* Reads both folders and compares them. Errors: evaluations of different tasks or of different
 * questions (the first that differs is named); with `other_prompts` ids and targets must be the same. */
int compare_open(Comparison *comparison, const char *first, const char *second, bool other_prompts,
                 const ResampleOptions *options, Error *err);
void compare_free(Comparison *comparison);

/* By the first metric: 1 if the second side's answer to question i is better, -1 worse, 0. */
int compare_winner(const Comparison *comparison, int64_t i);

/* "model_id", of its settings. */
const char *compare_model(const Comparison *comparison, int side);

#endif
