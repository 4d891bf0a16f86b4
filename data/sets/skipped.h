/* skipped.h - counts samples that could not be used, by kind, and names the first of each kind.
 *
 * A sample (of training data: a record) counts once in `total`, however much is wrong with it; the
 * kinds count each thing found. Notes are further kinds: something of a sample was left out or
 * shortened as configured, and the sample is not bad.
 */
#ifndef EASYFIRST_DATA_SETS_SKIPPED_H
#define EASYFIRST_DATA_SETS_SKIPPED_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

enum { SKIPPED_KINDS = 32 };

typedef struct SkippedKind {
    char kind[64];   /* "no such image", "empty answer", ... */
    char first[400]; /* the first one, with its file and record */
    int64_t count;
    bool note; /* does not count as bad */
} SkippedKind;

typedef struct Skipped {              /* zero-initialize */
    SkippedKind kinds[SKIPPED_KINDS]; /* further kinds are counted in the last */
    int kind_count;
    int64_t total; /* bad samples */
} Skipped;

/* add counts a bad sample and its reason; more, another reason of a sample already counted; note, a
 * note. */
void skipped_add(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_more(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_note(Skipped *skipped, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void skipped_merge(Skipped *into, const Skipped *from);

/* Fails if more than `share` of `samples` are bad; the message has the numbers and every kind with
 * its first case (shortened if there are many). */
int skipped_check(const Skipped *skipped, int64_t samples, double share, Error *err);

#endif
