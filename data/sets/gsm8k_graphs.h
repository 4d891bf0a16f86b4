/* gsm8k_graphs.h - the lines of a GSM8K file as answers with causal graphs, for causal_graph.c. */
#ifndef EASYFIRST_DATA_SETS_GSM8K_GRAPHS_H
#define EASYFIRST_DATA_SETS_GSM8K_GRAPHS_H

#include "data/sets/causal_graph.h"

/* Returns 1 if the file's first line is no {"question", "answer"}, and *graphs is then as it was; else 0 or
 * -1. Lines that cannot be used, or have no calculation, are counted in graphs->left_out. Errors: a
 * file that cannot be read, or without a usable line. */
int gsm8k_graphs_read(CausalGraphs *graphs, const char *path, Error *err);

#endif
