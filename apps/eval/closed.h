/* closed.h - closed questions of GQA: those whose valid answers are few and known.
 *
 * GQA's file of choices, {id: {"valid": [...], "plausible": [...]}}, has for each question all
 * answers that its text allows: yes and no, the two things of "A or B?", the colors. It says
 * nothing about the image.
 */
#ifndef EASYFIRST_APPS_EVAL_CLOSED_H
#define EASYFIRST_APPS_EVAL_CLOSED_H

#include "apps/eval/items.h"
#include "data/sets/text_table.h"

typedef struct ClosedQuestions { /* zero-initialize */
    TextTable texts;
    const char **choices; /* of all items, one item's after the other's; point into texts */
    int64_t count;        /* items that have choices */
} ClosedQuestions;

/* Gives the items that have at most `most` valid answers in the file these as their choices, each
 * once. Errors: an unreadable file, and one in which no item has so few. */
int closed_questions_read(ClosedQuestions *closed, const char *path, int most, EvalItems *items,
                          Error *err);
void closed_questions_free(ClosedQuestions *closed); /* the items have no choices from here on */

#endif
