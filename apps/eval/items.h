/* items.h - what an evaluation asks, and what came of it. */
#ifndef EASYFIRST_APPS_EVAL_ITEMS_H
#define EASYFIRST_APPS_EVAL_ITEMS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "data/sets/gqa_answers.h"
#include "data/sets/skipped.h"

typedef struct EvalItem {
    const char *id;    /* no two items of a run have the same; the caller's, as the next two */
    const char *image; /* file below the folder of images; NULL: none */
    const char *text;  /* as the file has it; NULL: it has none */
    char *
        prompt; /* in the model's prompt template; owned; NULL: there is nothing that can be asked */
    int length;       /* of the answer in tokens; 0: predicted */
    int tokens;       /* of the prompt, as far as it is read; eval_run counts them */
    int dropped;      /* ... the first ones that are not read (--long-prompts keep-last) */
    bool skipped;     /* the prompt is too long, and is left out (--long-prompts skip) */
    char *answer;     /* owned; NULL: not answered (yet) */
    float *map;       /* [GQA_MAP_CELLS] where the model looked, owned; NULL: not asked for */
    const char *kind; /* why it cannot be answered, a constant; NULL if nothing is wrong */
    char *why;        /* the same in words that name it; owned */
} EvalItem;

typedef struct EvalItems {
    EvalItem *items; /* [count], in the order of the file */
    int64_t count;
} EvalItems;

void eval_items_free(EvalItems *items);

/* A number of a map as it is kept: six digits behind the point, so that what a batch may do to a
 * score in the seventh does not show, and the same from memory and from a file. */
float eval_map_value(double value);

/* The kind of an item that was skipped. */
#define EVAL_SKIPPED "prompt that is too long, skipped"

/* Notes why an item cannot be answered; the first reason stays. */
int eval_item_bad(EvalItem *item, const char *kind, Error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Adds up what is wrong with the items, in their order; returns how many have no answer. Skipped
 * ones do not count. */
int64_t eval_items_skipped(const EvalItems *items, Skipped *skipped);

/* What became of long prompts. */
typedef struct EvalLong {
    int64_t skipped;
    int64_t shortened, dropped; /* items, and tokens of them that were not read */
    const EvalItem *first;      /* skipped or shortened; NULL: none */
} EvalLong;
EvalLong eval_items_long(const EvalItems *items);

/* {kind: {"count", "first"}}; NULL without memory. */
json_t *eval_skipped_json(const Skipped *skipped);

#endif
