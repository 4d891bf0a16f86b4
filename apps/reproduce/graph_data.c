/* graph_data.c - star graphs with their paths, "2,8|5,2|5,9|9,3/5,8=5,2,8": edges / start, goal = path.
 *
 * Edges lead away from the start, in random order; the goal is the end of a random arm. Which split a
 * graph is of depends on its start, goal and edges in whatever order: no test graph is in training.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/reproduce/draft.h"
#include "kernels/random.h"

enum {
    NODES_FEW = 12,
    NODES = 14,
    ARMS_MOST = 4,
    NODES_MOST = 8, /* of an arm */
    EDGES_MOST = ARMS_MOST * 3
};
enum { GRAPHS_TEST = 2000, TEST_SHARE = 16 };

typedef struct Graph {
    int path[NODES_MOST];
    int edges[EDGES_MOST][2]; /* shuffled */
    int length, edge_count;
} Graph;

static Graph graph_draw(Draw *d, int arms, int length) {
    int nodes[NODES], order[EDGES_MOST];
    Graph g = {.length = length, .edge_count = arms * (length - 1)};
    draw_order(d, nodes, arms > 2 ? NODES : NODES_FEW);
    draw_order(d, order, g.edge_count);
    const int goal = draw(d, arms);
    g.path[0] = nodes[0];
    for (int arm = 0; arm < arms; arm++)
        for (int i = 1, from = nodes[0]; i < length; i++) {
            const int edge = arm * (length - 1) + i - 1, to = nodes[1 + edge];
            g.edges[order[edge]][0] = from, g.edges[order[edge]][1] = to;
            if (arm == goal) g.path[i] = to;
            from = to;
        }
    return g;
}

static bool graph_tests(const Graph *g) {
    uint64_t sum = random_stream((uint64_t)g->path[0], (uint64_t)g->path[g->length - 1],
                                 (uint64_t)g->length, 0);
    for (int i = 0; i < g->edge_count; i++)
        sum += random_stream((uint64_t)g->edges[i][0], (uint64_t)g->edges[i][1], 1, 0);
    return random_stream(sum, 0, 0, 0) % TEST_SHARE == 0;
}

static void graph_put(FILE *out, const Graph *g) {
    for (int i = 0; i < g->edge_count; i++)
        fprintf(out, "%s%d,%d", i ? "|" : "", g->edges[i][0], g->edges[i][1]);
    fprintf(out, "/%d,%d=", g->path[0], g->path[g->length - 1]);
    for (int i = 0; i < g->length; i++) fprintf(out, "%s%d", i ? "," : "", g->path[i]);
    fputc('\n', out);
}

static int write_graphs(const char *folder, int arms, int length, bool test, int count,
                        Error *err) {
    Draft draft;
    char name[64];
    TRY(draft_begin(&draft, err));
    for (int i = 0; i < count; i++) {
        Draw d = draw_for(SET_GRAPHS + 10 * (arms + 8 * length + 64 * test), i);
        Graph g;
        do g = graph_draw(&d, arms, length);
        while (graph_tests(&g) != test);
        graph_put(draft.out, &g);
    }
    snprintf(name, sizeof name, "star-%dx%d-%s.txt", arms, length, test ? "test" : "train");
    return draft_end(&draft, folder, name, err);
}

/* The graph of the paper's figure 7. */
static int write_example(const char *folder, Error *err) {
    Draft draft;
    TRY(draft_begin(&draft, err));
    fputs("4,3|3,1|4,7|7,9|4,5|5,8|4,6|6,2/4,1=4,3,1\n", draft.out);
    return draft_end(&draft, folder, "star-figure7.txt", err);
}

static int write_tokenizer(const char *folder, Error *err) {
    char numbers[NODES][12];
    const char *words[NODES];
    for (int i = 0; i < NODES; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%d", i);
        words[i] = numbers[i];
    }
    return word_tokenizer_write(folder, "star-tokenizer", words, NODES, false, err);
}

int graph_data_write(const char *folder, Error *err) {
    static const struct {
        int arms, length, train, test;
    } kinds[] = {{1, 8, 40000, 0},
                 {1, 4, 6000, 0},
                 {2, 4, 40000, GRAPHS_TEST},
                 {4, 4, 40000, GRAPHS_TEST},
                 {4, 3, 1600, GRAPHS_TEST}};
    for (int i = 0; i < COUNT(kinds); i++) {
        TRY(write_graphs(folder, kinds[i].arms, kinds[i].length, false, kinds[i].train, err));
        if (kinds[i].test)
            TRY(write_graphs(folder, kinds[i].arms, kinds[i].length, true, kinds[i].test, err));
    }
    TRY(write_example(folder, err));
    return write_tokenizer(folder, err);
}
