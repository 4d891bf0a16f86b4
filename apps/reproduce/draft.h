/* draft.h - what the makers of the small forms' data share: files under way, numbers drawn by set and
 * record, tokenizers of whole words. Private to apps/reproduce.
 */
#ifndef EASYFIRST_APPS_REPRODUCE_DRAFT_H
#define EASYFIRST_APPS_REPRODUCE_DRAFT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/error.h"

/* ---- Files. ---- */

/* A file's text in memory. */
typedef struct Draft {
    FILE *out;
    char *text;
    size_t size;
} Draft;

int draft_begin(Draft *draft, Error *err);
/* Writes it as FOLDER/NAME and frees it. */
int draft_end(Draft *draft, const char *folder, const char *name, Error *err);

/* Makes it, unless it exists. */
int data_folder_make(const char *folder, Error *err);

/* ---- Numbers by chance. ---- */

/* What a record is made with: its numbers depend on its set and its index alone. Sets are 10 apart,
 * for those of validation and test. */
typedef struct Draw {
    uint64_t stream, index;
} Draw;

enum {
    SET_NUMBERS = 1,
    SET_NEWS,
    SET_KINDS,
    SET_PLACES,
    SET_PROBLEMS,
    SET_GRAPHS,
    SET_FACTS,
};

Draw draw_for(int set, int record);
/* From 0 to count - 1. */
int draw(Draw *d, int count);
/* The numbers from 0 to count - 1 in random order. */
void draw_order(Draw *d, int *numbers, int count);

#define COUNT(words)  ((int)(sizeof(words) / sizeof *(words)))
#define ANY(d, words) ((words)[draw(d, COUNT(words))])

/* ---- Tokenizers. ---- */

/* A byte-level tokenizer.json in FOLDER/NAME in which each of the words ("17", "wrote") is one token, and
 * all else is spelled in ASCII. after_space: the words are those after a space, and a text's first word
 * is as any other. */
int word_tokenizer_write(const char *folder, const char *name, const char *const *words, int count,
                         bool after_space, Error *err);

/* ---- Sets in files of their own. ---- */

int graph_data_write(const char *folder, Error *err);
int fact_data_write(const char *folder, Error *err);

#endif
