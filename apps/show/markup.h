/* markup.h - markup as it is written: HTML and SVG in memory, then a file at once. */
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

/* With `failed` (whose message is in *err already), or where memory did not suffice, there is no
 * text and the value is -1. */
int markup_end(Markup *markup, int failed, Error *err);

/* Writes a text, which must be UTF-8, so that it stands for itself in an element or in an attribute
 * between double quotes. The characters that XML does not allow become U+FFFD. */
void markup_put(FILE *out, const char *text);

/* Writes a text, which it frees, to a file that appears whole or not at all, or, as "-", to
 * standard output. A text of NULL is what failed before: only -1. */
int markup_write(char *text, size_t size, const char *path, Error *err);

#endif
