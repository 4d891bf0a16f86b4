/* lines.h - the steps of a trace as plain lines, for files, pipes and plain terminals.
 *
 *   step   1   1/8  __ __ __ [planes] __ __ __ __
 *   step  42   6/8  There are __ planes __ visible in the [image].   erased: "two"
 */
#ifndef EASYFIRST_APPS_SHOW_LINES_H
#define EASYFIRST_APPS_SHOW_LINES_H

#include <stdio.h>

#include "apps/show/text.h"
#include "apps/trace/trace.h"

/* A mask as text. */
#define SHOW_MASK "__"

/* Appends a token's piece, in which "▁" means a space before a word; the space is left out where
 * the token is the `first`. `mark` goes between space and word. */
int styled_piece(StyledText *text, const char *piece, const char *mark, bool first, uint8_t style,
                 Error *err);

/* Prints a step (from 0) of a hypothesis, unless it changes nothing and `all` is not set. */
int show_line(FILE *out, const TraceHypothesis *h, int step, bool all, Error *err);

/* All steps of a finished trace's best hypothesis, and its answer. */
int show_lines(FILE *out, const Trace *trace, bool all, Error *err);

/* The answer as a line, control characters replaced. */
int show_answer_line(FILE *out, const Trace *trace, Error *err);

#endif
