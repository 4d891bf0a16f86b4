/* markup.h - HTML and SVG, built in memory, then written to a file at once. */
#ifndef EASYFIRST_APPS_SHOW_MARKUP_H
#define EASYFIRST_APPS_SHOW_MARKUP_H

#include <stdio.h>

#include "kernels/error.h"

typedef struct Markup {
    FILE *out;  /* what is written here ... */
    char *text; /* ... is here after markup_end, terminated; the caller's to free */
    size_t size;
} Markup;

int markup_begin(Markup *markup, Error *err);

/* Returns -1 without a text if `failed` (whose message is in *err already) or out of memory. */
int markup_end(Markup *markup, int failed, Error *err);

/* Writes a text, which must be UTF-8, escaped for an element or an attribute between double quotes.
 * Characters that XML does not allow become U+FFFD. */
void markup_put(FILE *out, const char *text);

/* Writes a text, which it frees, to a file, atomically, or to standard output ("-"). A NULL text,
 * from a call that failed, only returns -1. */
int markup_write(char *text, size_t size, const char *path, Error *err);

#endif
