/* calculations.h - causal graphs (causal_graph.h) of the calculations in an answer, made without a
 * person's help.
 *
 * A calculation is a formula of at least two numbers, "=", and its result: "48/2 = 24". Where a text
 * has GSM8K's calculator marks, "48 clips / 2 = <<48/2=24>>24", these say which numbers a formula
 * has, and only what they mark is a calculation; a result without a mark is none.
 *
 * Segments, n counting the calculations from 1, with what they need first:
 *
 *   idea n      the words before it, from the sentence's beginning or from the calculation before
 *   formula n   up to "=", needs its idea, and the result of each earlier calculation whose number it
 *               has (of several equal results the latest)
 *   result n    needs its formula
 *   answer      the last number after the last calculation, if there is one: needs that one's result
 *
 * A missing idea or formula (a mark whose numbers are not in the text) is left out, and what needs
 * it needs what it would have needed.
 */
#ifndef EASYFIRST_DATA_SETS_CALCULATIONS_H
#define EASYFIRST_DATA_SETS_CALCULATIONS_H

#include "data/sets/causal_graph.h"

enum { CALCULATIONS_MOST = 64 }; /* in an answer; further ones are not looked at */

/* The graph of an answer; the marks are not in graph->answer. Returns 1 if there is no calculation
 * (*graph is then empty), 0 or -1. Errors: out of memory. The caller frees it with the others of a
 * CausalGraphs, or by causal_graph_free. */
int calculations_graph(CausalGraph *graph, const char *prompt, const char *answer, Error *err);

#endif
