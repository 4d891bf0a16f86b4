/* attention.c - divides attention among threads: units of one head and some queries of a span.
 *
 * A unit first packs its head's keys and values, which costs about as much as ten queries. So a
 * span's queries are split only if there are too few units for all threads.
 */
#include "kernels/cpu/cpu.h"

#include <omp.h>

enum {
    UNITS_PER_THREAD = 3,   /* so that the wait for the last thread is short */
    QUERIES_MIN = 64,       /* at least, in a split unit: packing is then at most a seventh */
    PARALLEL_WORK = 1 << 20 /* multiply-adds that take one thread as long as waking the others */
};

typedef struct Sharing {
    int64_t queries; /* of all spans */
    int64_t work;    /* sum of queries times keys over all spans */
    int longest;     /* queries of the longest span */
    int keys;        /* maximum over the spans */
    int piece;       /* queries in a unit, approximately */
} Sharing;

static Sharing sharing_of(const AttentionSpan *spans, int count, int heads, int threads) {
    Sharing s = {0};
    for (int i = 0; i < count; i++) {
        int queries = spans[i].q_end - spans[i].q_begin, keys = attention_keys(&spans[i]);
        s.queries += queries;
        s.work += (int64_t)queries * keys;
        if (queries > s.longest) s.longest = queries;
        if (keys > s.keys) s.keys = keys;
    }
    int64_t piece = threads == 1 ? s.longest : s.queries * heads / (threads * UNITS_PER_THREAD);
    s.piece = piece < QUERIES_MIN ? QUERIES_MIN : piece < s.longest ? (int)piece : s.longest;
    return s;
}

/* The number of pieces that `queries` queries are split into. */
static int pieces_of(int queries, int piece) {
    return (queries + piece - 1) / piece;
}

int cpu_attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                          int heads, float scale, const AttentionSpan *spans, int count,
                          const Dropout *dropout, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int head_width = (int)(q.shape[1] / heads);
    const int key_heads = (int)(k.shape[1] / head_width), shared = heads / key_heads;
    Sharing s = sharing_of(spans, count, heads, device->threads);
    const int threads = s.work * q.shape[1] < PARALLEL_WORK ? 1 : device->threads;
    if (threads == 1) s.piece = s.longest > QUERIES_MIN ? s.longest : QUERIES_MIN;
    const int pieces = pieces_of(s.longest, s.piece);

    const size_t scratch = (kernels->attention_scratch(s.keys, head_width) + 15) / 16 * 16;
    void *workspace;
    TRY(cpu_workspace(device, &workspace, (size_t)threads * scratch * sizeof(float), err));
    const AttentionUnit common = {.heads = heads,
                                  .head_width = head_width,
                                  .scale = scale,
                                  .out = out,
                                  .lse = lse,
                                  .q = q,
                                  .k = k,
                                  .v = v,
                                  .dropout = dropout && dropout->p > 0 ? dropout : NULL};
#pragma omp parallel num_threads(threads)
    {
        float *own = (float *)workspace + (size_t)omp_get_thread_num() * scratch;
        AttentionUnit unit = common;
#pragma omp for collapse(3) schedule(dynamic)
        for (int i = 0; i < count; i++)
            for (int h = 0; h < heads; h++)
                for (int p = 0; p < pieces; p++) {
                    const int64_t queries = spans[i].q_end - spans[i].q_begin;
                    const int here = pieces_of((int)queries, s.piece);
                    if (p >= here) continue;
                    unit.span = &spans[i];
                    unit.head = h;
                    unit.key_head = h / shared;
                    unit.q_begin = (int)(queries * p / here);
                    unit.q_end = (int)(queries * (p + 1) / here);
                    kernels->attention(&unit, own);
                }
    }
    return 0;
}
