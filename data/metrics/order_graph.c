#include "data/metrics/order_graph.h"

#include <stdlib.h>
#include <string.h>

#include "data/metrics/order_words.h"
#include "kernels/random.h"

typedef struct Places {
    int first, end; /* tokens of a segment */
} Places;

/* The step in which each segment was complete; returns one that never was, or -1. */
static int segment_times(const Places *places, int count, const int *lasts, int *times) {
    for (int s = 0; s < count; s++) {
        times[s] = 0;
        for (int i = places[s].first; i < places[s].end; i++) {
            if (!lasts[i]) return s;
            if (lasts[i] > times[s]) times[s] = lasts[i];
        }
        if (!times[s]) return s;
    }
    return -1;
}

static void count_edges(const CausalGraph *g, const int *times, int *strict, int *lax) {
    *strict = *lax = 0;
    for (int e = 0; e < g->edge_count; e++) {
        int before = times[g->edges[e].before], after = times[g->edges[e].after];
        *strict += before < after, *lax += before <= after;
    }
}

static int first_unwritten(const int *lasts, int length) {
    for (int i = 0; i < length; i++)
        if (!lasts[i]) return i;
    return -1;
}

static void find_chance(const CausalGraph *g, const Places *places, int *lasts, int length,
                        int *times, uint64_t seed, OrderGraphResult *r) {
    int64_t strict_edges = 0, lax_edges = 0, strict_sorts = 0, lax_sorts = 0;
    for (int round = 0; round < ORDER_SHUFFLES; round++) {
        int strict, lax;
        order_shuffle(lasts, length, seed, random_stream((uint64_t)length, (uint64_t)round, 1, 0));
        segment_times(places, g->segment_count, lasts, times);
        count_edges(g, times, &strict, &lax);
        strict_edges += strict, lax_edges += lax;
        strict_sorts += strict == g->edge_count, lax_sorts += lax == g->edge_count;
    }
    r->chance_strict = (double)strict_edges / ORDER_SHUFFLES;
    r->chance_lax = (double)lax_edges / ORDER_SHUFFLES;
    r->chance_sort_strict = (double)strict_sorts / ORDER_SHUFFLES;
    r->chance_sort_lax = (double)lax_sorts / ORDER_SHUFFLES;
}

int order_graph(const CausalGraph *g, const char *text, const size_t *ends, const int *lasts,
                int length, uint64_t seed, OrderGraphResult *r, Error *err) {
    size_t count = (size_t)g->segment_count;
    size_t *spans = malloc(2 * count * sizeof *spans);
    Places *places = malloc(count * sizeof *places);
    int *scratch = malloc((count + (size_t)length) * sizeof *scratch);
    *r = (OrderGraphResult){.times = malloc(count * sizeof *r->times)};
    int status = 0;
    if (!spans || !places || !scratch || !r->times) {
        free(r->times), r->times = NULL;
        status = error_set(err, "out of memory for a causal graph");
    } else {
        r->missing = causal_graph_match(g, text, spans, spans + count);
        for (size_t s = 0; s < count && r->missing < 0; s++)
            order_places(ends, length, spans[s], spans[count + s], &places[s].first,
                         &places[s].end);
        if (r->missing < 0) r->missing = segment_times(places, (int)count, lasts, r->times);
        r->unfinished = first_unwritten(lasts, length) >= 0;
        if (r->missing < 0 && !r->unfinished) {
            count_edges(g, r->times, &r->strict, &r->lax);
            r->sort_strict = r->strict == g->edge_count, r->sort_lax = r->lax == g->edge_count;
            memcpy(scratch + count, lasts, (size_t)length * sizeof *lasts);
            find_chance(g, places, scratch + count, length, scratch, seed, r);
        }
    }
    free(spans), free(places), free(scratch);
    return status;
}
