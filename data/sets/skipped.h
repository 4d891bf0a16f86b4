/* skipped.h - samples that could not be used: counted by kind, the first of each kind named.
 *
 * A sample (of training data: a record) counts once in `total`, however much is wrong with it; the
 * kinds count each thing that was found. Notes are kinds beside: something of a sample was left out
 * or shortened as the settings say, and the sample is not bad.
 */
#ifndef EASYFIRST_DATA_SETS_SKIPPED_H
#define EASYFIRST_DATA_SETS_SKIPPED_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

enum { SKIPPED_KINDS = 32 };

typedef struct SkippedKind {
    char kind[64];   /* "no such image", "empty answer", ... */
    char first[400]; /* the first one, in words that name file and record */
    int64_t count;
    bool note; /* does not make its samples bad ones */
} SkippedKind;

typedef struct Skipped {              /* zero-initialise */
    SkippedKind kinds[SKIPPED_KINDS]; /* what does not fit is counted in the last */
    int kind_count;
    int64_t total; /* bad samples */
} Skipped;

/* Counts a bad sample and this reason; another reason, of a sample that is counted already;
 * a note. */
void skipped_add(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_more(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_note(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_merge(Skipped *into, const Skipped *from);

/* An error whose one line has the numbers and every kind with its first case (cut where there are
 * many), if more than `share` of `samples` are bad; else 0. */
int skipped_check(const Skipped *skipped, int64_t samples, double share, Error *err);

#endif
