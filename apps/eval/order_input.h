/* order_input.h - the input of `eval order`: prompts from files of several formats, and files of
 * traces.
 *
 * Formats, recognized by content: GQA's official questions and LLaVA's lines of questions
 * (data/sets/gqa.h); records of LLaVA's conversations and lines of {"inputs", "targets"}
 * (data/sets/records.h), every turn of which is asked separately; annotated answers
 * (data/sets/causal_graph.h), which the caller distinguishes.
 */
#ifndef EASYFIRST_APPS_EVAL_ORDER_INPUT_H
#define EASYFIRST_APPS_EVAL_ORDER_INPUT_H

#include <stdbool.h>

#include "data/sets/causal_graph.h"
#include "data/sets/skipped.h"

typedef struct OrderPrompt {
    char *id;
    char *text;       /* as the file has it */
    char *image;      /* path within the folder of images; NULL: none */
    char *target;     /* the answer in the file; NULL: it has none */
    bool is_question; /* to be put into the model's prompt template for questions */
} OrderPrompt;

typedef struct OrderPrompts { /* zero-initialize */
    OrderPrompt *items;       /* [count] */
    size_t count, capacity;
} OrderPrompts;

/* Adds the prompts of a file until there are `limit` (0: all). Entries that cannot be asked are
 * counted in *skipped. Errors: a file that cannot be read or has none of the formats. */
int order_prompts_read(OrderPrompts *prompts, const char *path, int64_t limit, Skipped *skipped,
                       Error *err);

/* Adds those of annotated answers. */
int order_prompts_graphs(OrderPrompts *prompts, const CausalGraphs *graphs, int64_t limit,
                         Error *err);

void order_prompts_free(OrderPrompts *prompts);

/* The files that a path names: itself, or those of a folder that end in ".json", in the order of
 * their names. The caller's to free with order_paths_free. */
int order_paths(char ***paths, int *count, const char *path, Error *err);
void order_paths_free(char **paths, int count);

#endif
