/* expand.h - {placeholders} in the texts of a table; "{{" and "}}" are single braces. */
#ifndef EASYFIRST_APPS_REPRODUCE_EXPAND_H
#define EASYFIRST_APPS_REPRODUCE_EXPAND_H

#include <jansson.h>

#include "kernels/error.h"

typedef struct Expansion {
    const char *size;   /* {size} */
    const json_t *vars; /* more names: a text, or texts by size; NULL: none */
    char *runs, *files, *bundled, *causal;
} Expansion;

/* Sets {runs} and {files}, and finds {bundled} and {causal}. */
int expansion_places(Expansion *expansion, const char *runs, const char *files, Error *err);
void expansion_free(Expansion *expansion);

const char *expand_size(const Expansion *expansion);

/* The caller's to free. NULL with a message: a name that is not known, or has no value for the
 * size. */
char *expand_text(const Expansion *expansion, const char *text, Error *err);

#endif
