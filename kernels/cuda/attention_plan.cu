/* Splits attention's spans into the work of single thread blocks. Host code only.
 *
 * For queries, an item is some rows of one span. Keys may be shared by several spans, whose
 * gradients all add to the same rows. So the key rows are cut wherever any range begins or ends;
 * between two cuts all rows belong to the same spans, and a piece of such rows loops over these
 * spans' queries, in their order, before it adds to dk and dv once. No row belongs to two pieces:
 * no atomics are needed, and every sum has one order. The keys of causal spans, and of those with a
 * window, are also cut every TILE_KEYS rows, and a piece omits the queries that see none of it.
 */
#include "kernels/cuda/attention.cuh"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The last plan, as kept and sent to the device: this, the spans that it was made from, the
 * lists. */
typedef struct PlanHead {
    int32_t item_rows, step_rows, span_count;
    int32_t item_count, key_tile_count, step_count, words;
    size_t items, key_tiles, steps, bytes; /* offsets from here */
} PlanHead;

/* Builds a plan in memory of `capacity` bytes; beyond that it only counts. */
typedef struct Planner {
    const AttentionSpan *spans;
    int count;
    char *memory;
    size_t capacity, used;
} Planner;

static bool span_is_empty(const AttentionSpan *span) {
    return span->q_begin == span->q_end;
}

/* Not all queries see the same keys. */
static bool span_varies(const AttentionSpan *span) {
    return span->causal || span->window;
}

bool attention_windowed(const AttentionSpan *spans, int count) {
    for (int s = 0; s < count; s++)
        if (spans[s].window) return true;
    return false;
}

/* The first key of a span's query, possibly negative. */
static int first_of(const AttentionSpan *span, int keys, int row) {
    if (!span->window) return INT_MIN / 2;
    return keys - (span->q_end - span->q_begin) + row - span->window;
}

static int pieces_of(int64_t rows, int piece) {
    return (int)((rows + piece - 1) / piece);
}

/* Allocates n elements and returns their offset. */
static size_t planner_take(Planner *p, size_t n, size_t size) {
    const size_t at = (p->used + 15) / 16 * 16;
    p->used = at + n * size;
    return at;
}

static bool planner_fits(const Planner *p) {
    return p->used <= p->capacity;
}

static AttentionItem item_of(const AttentionSpan *span) {
    AttentionItem item = {};
    int used = 0;
    for (int r = 0; r < span->range_count; r++) {
        const int begin = span->range[r].begin, length = span->range[r].end - begin;
        if (length == 0) continue;
        item.shift[used] = begin - item.keys;
        item.keys += length;
        item.until[used++] = item.keys;
    }
    for (int r = used; r < ATTENTION_RANGES; r++)
        item.until[r] = item.until[used - 1], item.shift[r] = item.shift[used - 1];
    return item;
}

static void plan_items(Planner *p, PlanHead *head) {
    for (int s = 0; s < p->count; s++)
        head->item_count += pieces_of(p->spans[s].q_end - p->spans[s].q_begin, head->item_rows);
    head->items = planner_take(p, (size_t)head->item_count, sizeof(AttentionItem));
    if (!planner_fits(p)) return;
    AttentionItem *to = (AttentionItem *)(p->memory + head->items);
    for (int s = 0; s < p->count; s++) {
        const AttentionSpan *span = &p->spans[s];
        if (span_is_empty(span)) continue;
        AttentionItem item = item_of(span);
        const int keys = item.keys;
        for (int q = span->q_begin; q < span->q_end; q += head->item_rows) {
            const int row = q - span->q_begin;
            item.q_begin = q;
            item.rows = span->q_end - q < head->item_rows ? span->q_end - q : head->item_rows;
            item.keys = attention_seen(span, keys, row + item.rows - 1);
            item.seen = attention_seen(span, keys, row);
            item.first = first_of(span, keys, row);
            *to++ = item;
        }
        if (pieces_of(keys, 32) > head->words) head->words = pieces_of(keys, 32);
    }
}

static int compare_rows(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* At most so many cuts, and one more. */
static size_t cuts_most(const Planner *p) {
    size_t most = (size_t)p->count * ATTENTION_RANGES * 2 + 1;
    for (int s = 0; s < p->count; s++)
        if (span_varies(&p->spans[s]))
            most += (size_t)(attention_keys(&p->spans[s]) / TILE_KEYS + ATTENTION_RANGES);
    return most;
}

/* The rows where a range with queries begins or ends, and those within one whose queries see
 * different keys that begin a tile; sorted and unique. */
static int plan_cuts(const Planner *p, int32_t *cut) {
    int n = 0, kept = 0;
    for (int s = 0; s < p->count; s++)
        for (int r = 0; r < p->spans[s].range_count && !span_is_empty(&p->spans[s]); r++) {
            if (p->spans[s].range[r].begin == p->spans[s].range[r].end) continue;
            cut[n++] = p->spans[s].range[r].begin;
            cut[n++] = p->spans[s].range[r].end;
            for (int row = p->spans[s].range[r].begin + TILE_KEYS;
                 span_varies(&p->spans[s]) && row < p->spans[s].range[r].end; row += TILE_KEYS)
                cut[n++] = row;
        }
    qsort(cut, (size_t)n, sizeof *cut, compare_rows);
    for (int i = 0; i < n; i++)
        if (kept == 0 || cut[kept - 1] != cut[i]) cut[kept++] = cut[i];
    return kept;
}

/* For each range, iterates over its pieces between cuts and adds the steps of the range's span to
 * each: counts them in next[piece], or writes them at steps + next[piece] and advances it. */
static void plan_visits(const Planner *p, int step_rows, const int32_t *cut, int cuts,
                        int32_t *next, KeyStep *steps) {
    for (int s = 0; s < p->count; s++) {
        const AttentionSpan *span = &p->spans[s];
        const int keys = attention_keys(span);
        int place = 0;
        for (int r = 0; r < span->range_count && !span_is_empty(span); r++) {
            const int32_t begin = span->range[r].begin, end = span->range[r].end;
            if (begin == end) continue;
            const int32_t *found =
                (const int32_t *)bsearch(&begin, cut, (size_t)cuts, sizeof *cut, compare_rows);
            for (int i = (int)(found - cut); cut[i] < end; i++) {
                /* Of the piece's keys in the span. */
                const int first = place + cut[i] - begin, end_key = place + cut[i + 1] - begin;
                for (int q = span->q_begin; q < span->q_end; q += step_rows) {
                    const int rows = span->q_end - q < step_rows ? span->q_end - q : step_rows;
                    const int row = q - span->q_begin;
                    const int from = first_of(span, keys, row);
                    if (attention_seen(span, keys, row + rows - 1) <= first || from >= end_key)
                        continue;
                    const int seen =
                        span_varies(span) ? attention_seen(span, keys, row) : INT_MAX / 2;
                    const KeyStep step = {q, rows, place - begin, seen, from, {0, 0, 0}};
                    if (steps) steps[next[i]] = step;
                    next[i]++;
                }
            }
            place += end - begin;
        }
    }
}

static void plan_keys(Planner *p, PlanHead *head) {
    const size_t most = cuts_most(p);
    const size_t cut_at = planner_take(p, most, sizeof(int32_t)),
                 next_at = planner_take(p, most, sizeof(int32_t));
    if (!planner_fits(p)) return;
    int32_t *cut = (int32_t *)(p->memory + cut_at), *next = (int32_t *)(p->memory + next_at);
    const int cuts = plan_cuts(p, cut);
    memset(next, 0, (size_t)cuts * sizeof *next);
    plan_visits(p, head->step_rows, cut, cuts, next, NULL);
    for (int i = 0; i + 1 < cuts; i++)
        if (next[i]) head->key_tile_count += pieces_of(cut[i + 1] - cut[i], TILE_KEYS);
    head->key_tiles = planner_take(p, (size_t)head->key_tile_count, sizeof(KeyTile));
    if (!planner_fits(p)) return;
    KeyTile *to = (KeyTile *)(p->memory + head->key_tiles);
    for (int i = 0; i + 1 < cuts; i++) {
        for (int32_t row = cut[i]; next[i] && row < cut[i + 1]; row += TILE_KEYS) {
            const int rows = cut[i + 1] - row < TILE_KEYS ? cut[i + 1] - row : TILE_KEYS;
            const KeyTile tile = {row, rows, head->step_count, next[i]};
            *to++ = tile;
        }
        const int32_t here = next[i];
        next[i] = head->step_count;
        head->step_count += here;
    }
    head->steps = planner_take(p, (size_t)head->step_count, sizeof(KeyStep));
    if (planner_fits(p))
        plan_visits(p, head->step_rows, cut, cuts, next, (KeyStep *)(p->memory + head->steps));
}

/* Builds a plan in `memory`; returns the bytes needed, more than `capacity` if it did not fit. */
static size_t plan_make(char *memory, size_t capacity, const AttentionSpan *spans, int count,
                        int item_rows, int step_rows) {
    Planner p = {spans, count, memory, capacity, 0};
    PlanHead head;
    memset(&head, 0, sizeof head); /* including padding: plans are compared as bytes */
    head.item_rows = item_rows, head.step_rows = step_rows, head.span_count = count;
    planner_take(&p, 1, sizeof head);
    const size_t spans_at = planner_take(&p, (size_t)count, sizeof *spans);
    plan_items(&p, &head);
    if (step_rows) plan_keys(&p, &head);
    head.bytes = p.used;
    if (!planner_fits(&p)) return p.used;
    memcpy(memory, &head, sizeof head);
    memcpy(memory + spans_at, spans, (size_t)count * sizeof *spans);
    return p.used;
}

/* Whether the plan on the device was made from these spans. */
static bool plan_is_of(const HostCopy *copy, const AttentionSpan *spans, int count, int item_rows,
                       int step_rows) {
    const PlanHead *head = (const PlanHead *)copy->host;
    if (copy->bytes == 0 || head->item_rows != item_rows || head->step_rows != step_rows ||
        head->span_count != count)
        return false;
    Planner p = {};
    planner_take(&p, 1, sizeof *head);
    const char *held = (const char *)copy->host + planner_take(&p, (size_t)count, sizeof *spans);
    return memcmp(held, spans, (size_t)count * sizeof *spans) == 0;
}

int attention_plan(Device *device, AttentionPlan *plan, const AttentionSpan *spans, int count,
                   int item_rows, int step_rows, Error *err) {
    /* A model may have both kinds of layers in turn. */
    CudaState *state = cuda_state(device);
    HostCopy *copy = attention_windowed(spans, count) ? &state->windows : &state->spans;
    const void *made = copy->host, *on_device;
    size_t bytes = copy->bytes;
    if (!plan_is_of(copy, spans, count, item_rows, step_rows)) {
        void *memory = NULL;
        for (size_t capacity = 4096;; capacity = bytes) {
            TRY(cuda_staging(device, &memory, capacity, err));
            bytes = plan_make((char *)memory, capacity, spans, count, item_rows, step_rows);
            if (bytes <= capacity) break;
        }
        made = memory;
    }
    TRY(cuda_host_copy(device, copy, &on_device, made, bytes, err));
    const PlanHead *head = (const PlanHead *)made;
    plan->item_count = head->item_count, plan->key_tile_count = head->key_tile_count;
    plan->words = head->words;
    plan->items = (const AttentionItem *)((const char *)on_device + head->items);
    plan->key_tiles = (const KeyTile *)((const char *)on_device + head->key_tiles);
    plan->steps = (const KeyStep *)((const char *)on_device + head->steps);
    return 0;
}

Drop attention_drop(const Dropout *dropout) {
    Drop drop = {0, 0, 0, 1, false};
    if (!dropout || !(dropout->p > 0)) return drop;
    drop.on = true;
    drop.seed = dropout->seed, drop.stream = dropout->stream;
    /* (word + 1/2) / 2^32 >= p in integers, as in random_uniform and on the CPU. */
    drop.threshold = (uint32_t)fmax(ceil((double)dropout->p * 0x1p32 - 0.5), 0);
    drop.factor = 1 / (1 - dropout->p);
    return drop;
}
