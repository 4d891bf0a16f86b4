/* order_graph.h - whether an answer was written in an order that its causal graph allows.
 *
 * A segment is written when the last of its tokens is (`last` of order.h). An edge "a before b" is
 * respected strictly if a was written in an earlier step than b, laxly if not in a later one: a
 * step may write several places at once, none before the other. The order is a topological sort of
 * the graph if all edges are respected.
 *
 * Chance: the same steps, given to the answer's tokens in random order. In random order, too, a
 * segment of many tokens is complete later than one of a single token, so chance is not 0.5.
 */
#ifndef EASYFIRST_DATA_METRICS_ORDER_GRAPH_H
#define EASYFIRST_DATA_METRICS_ORDER_GRAPH_H

#include <stdbool.h>

#include "data/sets/causal_graph.h"
#include "data/metrics/order.h"

enum { ORDER_SHUFFLES = 2000 };

typedef struct OrderGraphResult {
    int missing;     /* segment that is not in the answer; -1: none */
    bool unfinished; /* some places are masked at the end */
    int *times;      /* [segment_count] steps; owned; with what follows only if nothing is missing
                        and the answer is finished */
    int strict, lax; /* edges respected */
    bool sort_strict, sort_lax;                 /* all of them */
    double chance_strict, chance_lax;           /* expected number of edges by chance ... */
    double chance_sort_strict, chance_sort_lax; /* ... and the probability of all */
} OrderGraphResult;

/* `text` is the answer, whose token i is the bytes [ends[i - 1], ends[i]) and was written in step
 * lasts[i], 0 for never. Free `times`. */
int order_graph(const CausalGraph *graph, const char *text, const size_t *ends, const int *lasts,
                int length, uint64_t seed, OrderGraphResult *result, Error *err);

#endif
