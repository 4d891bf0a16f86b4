/* figure.h - a trace as a figure for a paper: SVG, positions x steps.
 *
 * Question and answer, and below them a row for each position of the best hypothesis, a column for
 * each step, colored by the probability of the token there; masks stay empty, a cross marks where a
 * token was erased. The final tokens are at the right. Fonts are named by generic family, so that
 * every SVG viewer has them; the file has no script, no style sheet and no external reference. */
#ifndef EASYFIRST_APPS_SHOW_FIGURE_H
#define EASYFIRST_APPS_SHOW_FIGURE_H

#include "apps/trace/trace.h"

/* Writes the figure of a finished trace to a file, which appears whole or not at all; "-" is
 * standard output, which the caller flushes. The same trace gives the same bytes. */
int figure_write(const Trace *trace, const char *path, Error *err);

/* The same as text, terminated; the caller's to free. NULL on failure. */
char *figure_text(const Trace *trace, size_t *size, Error *err);

#endif
