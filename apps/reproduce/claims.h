/* claims.h - what a paper's table says of two of its rows, and whether the numbers here confirm it.
 *
 * "claims" of a table: {"text": "...", "greater": LABEL, "less": LABEL}, labels of rows as in the table;
 * judged for each size that both rows have.
 */
#ifndef EASYFIRST_APPS_REPRODUCE_CLAIMS_H
#define EASYFIRST_APPS_REPRODUCE_CLAIMS_H

#include "apps/reproduce/outcome.h"

typedef enum Verdict { VERDICT_OPEN, VERDICT_CONFIRMED, VERDICT_CONTRADICTED } Verdict;
extern const char *const verdict_names[]; /* NULL-terminated */

typedef struct Claim {
    const char *text;
    const PlanCell *greater, *less;
    Verdict verdict;
    double difference, low, high; /* greater - less, and its 95 % interval; NaN: not known */
    bool paired;                  /* by paired bootstrap over the same questions */
    const char *why;              /* why nothing can be said; NULL */
} Claim;

typedef struct Claims {
    Claim *items;
    int count;
} Claims;

/* The claims of a plan, each with its size: confirmed or contradicted if the interval of the difference
 * is on one side of zero. Where the two evaluations asked the same questions it is that of the paired
 * bootstrap; else that of two independent numbers, whose half widths add in squares. claims_free is due
 * in any case. */
int claims_judge(Claims *claims, const Plan *plan, const Outcome *outcomes, Error *err);
void claims_free(Claims *claims);

#endif
