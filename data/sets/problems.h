/* problems.h - samples that could not be used: counted by kind, the first of each kind named.
 *
 * A sample (of training data: a record) counts once in `total`, however much is wrong with it; the
 * kinds count each thing that was found. Notes are kinds beside: something of a sample was left out
 * or shortened as the settings say, and the sample is not bad.
 */
#ifndef EASYFIRST_DATA_SETS_PROBLEMS_H
#define EASYFIRST_DATA_SETS_PROBLEMS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

enum { PROBLEM_KINDS = 32 };

typedef struct Problem {
    char kind[64];   /* "no such image", "empty answer", ... */
    char first[400]; /* the first one, in words that name file and record */
    int64_t count;
    bool note; /* does not make its samples bad ones */
} Problem;

typedef struct Problems {         /* zero-initialise */
    Problem kinds[PROBLEM_KINDS]; /* what does not fit is counted in the last */
    int kind_count;
    int64_t total; /* bad samples */
} Problems;

/* Counts a bad sample and this reason; another reason, of a sample that is counted already;
 * a note. */
void problems_add(Problems *problems, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void problems_more(Problems *problems, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void problems_note(Problems *problems, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void problems_merge(Problems *into, const Problems *from);

/* An error whose one line has the numbers and every kind with its first case (cut where there are
 * many), if more than `share` of `samples` are bad; else 0. */
int problems_check(const Problems *problems, int64_t samples, double share, Error *err);

#endif
