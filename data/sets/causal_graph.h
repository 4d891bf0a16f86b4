/* causal_graph.h - answers annotated with what depends on what: causal graphs (Pearl 1998) of
 * answers, as arXiv 2308.12219 uses them to ask whether an answer was written in a logical order.
 *
 * A file is one JSON object, or an array of them:
 *
 *   {"prompt": "A box has 4 rows of 6 eggs. 5 break. How many are left?",
 *    "answer": "There are 4 * 6 = 24 eggs. After 5 break, 24 - 5 = 19 are left.",
 *    "segments": [{"name": "idea 1",   "text": "There are"},
 *                 {"name": "formula 1", "text": "4 * 6 ="},
 *                 {"name": "result 1", "text": "24"}, ...],
 *    "edges": [["idea 1", "formula 1"], ["formula 1", "result 1"], ...]}
 *
 *   prompt    text as given to the model; or "question" (put into the model's prompt template),
 *             with
 *   image     path of its image within the folder of images, for a question; may be missing
 *   answer    the annotated answer
 *   segments  parts of the answer that do not overlap; each has a name and either "text", which
 *             occurs in the answer (its first occurrence after the previous segment of the list,
 *             not within a number or an ASCII word), or "begin" and "end", characters (code points)
 *             counted from 0, end excluded. Words that belong to no segment do not matter.
 *   edges     [before, after]: what `after` says depends on what `before` says
 *   note      anything; other members are ignored, too
 *
 * The graph must be acyclic. It may have 1,000 segments and 10,000 edges.
 *
 * A file of GSM8K ({"question", "answer"}, an object a line, with calculator marks) is read, too: the
 * graphs are then made from the marks (calculations.h), and the prompts are those of training.
 */
#ifndef EASYFIRST_DATA_SETS_CAUSAL_GRAPH_H
#define EASYFIRST_DATA_SETS_CAUSAL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

typedef struct CausalSegment {
    char *name;
    size_t begin, end; /* bytes of the annotated answer */
} CausalSegment;

typedef struct CausalEdge {
    int before, after; /* segments */
} CausalEdge;

typedef struct CausalGraph {
    char *prompt;     /* or the question */
    bool is_question; /* to be put into the model's prompt template */
    char *image;      /* NULL: none */
    char *answer;
    CausalSegment *segments; /* [segment_count], at least 2, in the order of the file */
    int segment_count;
    CausalEdge *edges; /* [edge_count], at least 1 */
    int edge_count;
} CausalGraph;

typedef struct CausalGraphs {
    CausalGraph *items; /* [count], at least 1 */
    size_t count, capacity;
    size_t left_out; /* GSM8K: lines without calculations, or that cannot be used */
} CausalGraphs;

/* Reads a file of at most 16 MiB. Everything is checked; errors have the file, the graph's number,
 * and what is wrong by name: segments that are not in the answer, overlap, or have duplicate names;
 * edges between unknown segments, duplicate edges, or a cycle, which is listed. On failure *graphs
 * is empty. */
int causal_graphs_read(CausalGraphs *graphs, const char *path, Error *err);
void causal_graphs_free(CausalGraphs *graphs);
void causal_graph_free(CausalGraph *graph); /* what is in it; it is empty then */

/* Makes room for one more. It is not counted yet. */
int causal_graphs_grow(CausalGraphs *graphs, Error *err);

/* Finds the segments in an answer that may be worded differently: begins and ends [segment_count]
 * in bytes. The annotated answer itself (ignoring white space around it) has all; in another one,
 * segments are searched by their texts, in the order of the annotated answer, each after the one
 * before it, not within a number or an ASCII word. Returns -1 if all were found, else the index of
 * the first that was not. */
int causal_graph_match(const CausalGraph *graph, const char *answer, size_t *begins, size_t *ends);

#endif
