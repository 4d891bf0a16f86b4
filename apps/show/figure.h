/* figure.h - a trace as a figure for a paper: SVG, positions x steps.
 *
 * Question and answer, and below them a row for each position of the best hypothesis, a column for
 * each step, coloured by the probability of what stands there; masks stay empty, a cross marks
 * where a word was erased. The words of the end stand at the right. Fonts are named by generic
 * family, so that every program that reads SVG has them; there is no script, no style sheet and no
 * reference to anything outside. */
#ifndef EASYFIRST_APPS_SHOW_FIGURE_H
#define EASYFIRST_APPS_SHOW_FIGURE_H

#include "apps/show/trace.h"

/* Writes the figure of a finished trace to a file, which appears whole or not at all; "-" is
 * standard output, which the caller flushes. The same trace gives the same bytes. */
int figure_write(const Trace *trace, const char *path, Error *err);

/* The same as text, terminated; the caller's to free. NULL on failure. */
char *figure_text(const Trace *trace, size_t *size, Error *err);

#endif
