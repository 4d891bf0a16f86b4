/* references.h - the references of each line: any number of texts, stored line by line, so that one
 * line with thousands of references costs the others nothing. */
#ifndef EASYFIRST_DATA_METRICS_REFERENCES_H
#define EASYFIRST_DATA_METRICS_REFERENCES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct References {
    const char **texts; /* of line i: texts[begins[i] .. begins[i + 1]); the caller's texts */
    size_t *begins;     /* [count + 1] */
    int64_t count;      /* lines */
} References;

static inline int references_of(const References *r, int64_t line, const char *const **texts) {
    *texts = r->texts + r->begins[line];
    return (int)(r->begins[line + 1] - r->begins[line]);
}

/* From columns [column_count][count]: column c has one text, or NULL, for each line. On failure *r
 * is empty. */
int references_from_columns(References *r, const char *const *const *columns, int column_count,
                            int64_t count, Error *err);

/* The references of several files [part_count], all of as many lines, one after the other. */
int references_join(References *r, const References *const *parts, int part_count, Error *err);

void references_free(References *r);

#endif
