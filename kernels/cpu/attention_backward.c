/* attention_backward.c - divides attention's backward pass among threads: one head of keys of
 * a group of spans each.
 *
 * Spans that share keys add to the same rows of dk and dv. One thread processes them all, in order,
 * so that the order of each sum does not depend on the number of threads. Spans with disjoint keys,
 * of different sequences, may go to different threads; they are found if the spans are sorted by
 * their keys. Heads that share keys and values are processed by one thread, too.
 */
#include "kernels/cpu/cpu.h"

#include <omp.h>

enum { PARALLEL_WORK = 1 << 19 }; /* as in attention.c; a gradient is five matmuls, not two */

static bool span_is_empty(const AttentionSpan *span) {
    return span->q_begin == span->q_end;
}

/* The range from the first to the last key row. */
static void key_hull(const AttentionSpan *span, int32_t *begin, int32_t *end) {
    *begin = INT32_MAX, *end = 0;
    for (int r = 0; r < span->range_count; r++) {
        if (span->range[r].begin == span->range[r].end) continue;
        if (span->range[r].begin < *begin) *begin = span->range[r].begin;
        if (span->range[r].end > *end) *end = span->range[r].end;
    }
}

/* Group g is the spans first[g] ... first[g + 1] - 1: a new one begins where all earlier keys are
 * below all later ones. `least` is scratch; both hold count + 1. */
static int groups_of(int32_t *first, int32_t *least, const AttentionSpan *spans, int count) {
    least[count] = INT32_MAX;
    for (int i = count - 1; i >= 0; i--) {
        int32_t begin, end;
        key_hull(&spans[i], &begin, &end);
        least[i] = !span_is_empty(&spans[i]) && begin < least[i + 1] ? begin : least[i + 1];
    }
    int groups = 0;
    int32_t largest = 0;
    for (int i = 0; i < count; i++) {
        if (i == 0 || largest <= least[i]) first[groups++] = i;
        int32_t begin, end;
        key_hull(&spans[i], &begin, &end);
        if (!span_is_empty(&spans[i]) && end > largest) largest = end;
    }
    first[groups] = count;
    return groups;
}

int cpu_attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                           Tensor lse, Tensor q, Tensor k, Tensor v, int heads, float scale,
                           const AttentionSpan *spans, int count, const Dropout *dropout,
                           Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    const int head_width = (int)(q.shape[1] / heads);
    const int key_heads = (int)(k.shape[1] / head_width), shared = heads / key_heads;
    int most = 0; /* keys */
    int64_t work = 0;
    for (int i = 0; i < count; i++) {
        const int keys = attention_keys(&spans[i]);
        if (keys > most) most = keys;
        work += (int64_t)(spans[i].q_end - spans[i].q_begin) * keys;
    }
    const int threads = work * q.shape[1] < PARALLEL_WORK ? 1 : device->threads;

    const size_t scratch = (kernels->attention_backward_scratch(most, head_width) + 15) / 16 * 16;
    const size_t scratch_bytes = (size_t)threads * scratch * sizeof(float);
    void *workspace;
    TRY(cpu_workspace(device, &workspace, scratch_bytes + 2 * ((size_t)count + 1) * sizeof(int32_t),
                      err));
    int32_t *first = (int32_t *)((char *)workspace + scratch_bytes);
    const int groups = groups_of(first, first + count + 1, spans, count);
    const AttentionUnit common = {.heads = heads,
                                  .head_width = head_width,
                                  .scale = scale,
                                  .out = out,
                                  .lse = lse,
                                  .q = q,
                                  .k = k,
                                  .v = v,
                                  .dropout = dropout && dropout->p > 0 ? dropout : NULL};
    const AttentionGradient gradient = {.dq = dq, .dk = dk, .dv = dv, .dout = dout};
#pragma omp parallel num_threads(threads)
    {
        float *own = (float *)workspace + (size_t)omp_get_thread_num() * scratch;
        AttentionUnit unit = common;
#pragma omp for collapse(2) schedule(dynamic)
        for (int i = 0; i < groups; i++)
            for (int g = 0; g < key_heads; g++)
                for (int j = 0; j < (first[i + 1] - first[i]) * shared; j++) {
                    const AttentionSpan *span = &spans[first[i] + j / shared];
                    if (span_is_empty(span)) continue;
                    unit.span = span;
                    unit.key_head = g;
                    unit.head = g * shared + j % shared;
                    unit.q_begin = 0;
                    unit.q_end = span->q_end - span->q_begin;
                    kernels->attention_backward(&unit, &gradient, own);
                }
    }
    return 0;
}
