/* problems.h - samples that could not be used: counted by kind, the first of each kind named. */
#ifndef EASYFIRST_DATA_PROBLEMS_H
#define EASYFIRST_DATA_PROBLEMS_H

#include <stdint.h>

#include "kernels/error.h"

enum { PROBLEM_KINDS = 24 };

typedef struct Problem {
    char kind[64];   /* "no such picture", "empty answer", ... */
    char first[400]; /* the first one, in words that name file and record */
    int64_t count;
} Problem;

typedef struct Problems {         /* zero-initialise */
    Problem kinds[PROBLEM_KINDS]; /* what does not fit is counted in the last */
    int kind_count;
    int64_t total;
} Problems;

/* Counts one more of a kind. */
void problems_add(Problems *problems, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void problems_merge(Problems *into, const Problems *from);

/* An error whose one line has the numbers and every kind with its first case (cut where there are
 * many), if more than `share` of `samples` are bad; else 0. */
int problems_check(const Problems *problems, int64_t samples, double share, Error *err);

#endif
