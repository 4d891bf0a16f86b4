/* items.h - the prompts of an evaluation and their answers. */
#ifndef EASYFIRST_APPS_EVAL_ITEMS_H
#define EASYFIRST_APPS_EVAL_ITEMS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "data/sets/gqa_answers.h"
#include "data/sets/skipped.h"

typedef struct EvalItem {
    const char *id;    /* no two items of a run have the same; the caller's, as the next two */
    const char *image; /* path within the folder of images; NULL: none */
    const char *text;  /* as the file has it; NULL: it has none */
    char *prompt;      /* in the model's prompt template; owned; NULL: cannot be asked */
    int length;        /* of the answer in tokens; 0: predicted */
    int tokens;        /* of the prompt, dropped ones excluded; set by eval_run */
    int dropped;       /* tokens at its start that are not read (--long-prompts keep-last) */
    bool skipped;      /* the prompt is too long, and is left out (--long-prompts skip) */
    char *answer;      /* owned; NULL: not answered (yet) */
    int answer_length; /* of it in tokens; 0: not known (an older run's) */
    double score;      /* mean log-probability of its tokens, as it is stored (eval_score_value) */
    float *map;        /* [GQA_MAP_CELLS] attention over the image, owned; NULL: not asked for */
    const char *kind;  /* why it cannot be answered, a constant; NULL: it can */
    char *why;         /* the same with names and numbers; owned */
    const char *const *choices; /* the answer is one of these; the caller's; NULL: denoised */
    size_t choice_count;
} EvalItem;

typedef struct EvalItems {
    EvalItem *items; /* [count], in the order of the file */
    int64_t count;
} EvalItems;

void eval_items_free(EvalItems *items);

/* A value of a map as it is stored: rounded to six decimals, which hides differences between
 * batches in the seventh, and gives the same value from memory and from a file. */
float eval_map_value(double value);

/* A mean log-probability as it is stored: rounded to four decimals, for the same reason. */
double eval_score_value(double score);

/* The kind of an item that was skipped. */
#define EVAL_SKIPPED "prompt that is too long, skipped"

/* Records why an item cannot be answered; the first reason stays. */
int eval_item_bad(EvalItem *item, const char *kind, Error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Counts the items without an answer by kind, in their order; returns how many. Skipped ones do not
 * count. */
int64_t eval_items_skipped(const EvalItems *items, Skipped *skipped);

/* Counts of prompts that were too long. */
typedef struct EvalLong {
    int64_t skipped;
    int64_t shortened, dropped; /* items, and tokens of them that were not read */
    const EvalItem *first;      /* skipped or shortened; NULL: none */
} EvalLong;
EvalLong eval_items_long(const EvalItems *items);

/* {kind: {"count", "first"}}; NULL: out of memory. */
json_t *eval_skipped_json(const Skipped *skipped);

#endif
