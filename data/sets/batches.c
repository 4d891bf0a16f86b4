/* batches.c - see batches.h.
 *
 * An epoch's units are in one array of 8 bytes each: those with an image, then those without, each
 * part shuffled. A megabatch is a window of it, which is sorted in place and cut into steps; the
 * remainder, too little for a step, begins the next window. So each part, not each megabatch, has
 * one short step. Finally the steps are shuffled into a second array.
 */
#include "data/sets/batches.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"

enum { MEGABATCH = 50 };

/* Uses of random numbers: the first number of random_stream. */
enum { PURPOSE_UNITS = 0x62617463, PURPOSE_STEPS, PURPOSE_DRAWS, PURPOSE_SOURCE };

typedef struct Planner {
    const BatchUnit *units;
    int64_t count;
    const BatchConfig *config;
    int64_t epoch;
    int64_t *list;  /* [count], unit indices */
    int64_t *steps; /* where steps begin in the list */
    int64_t step_count, step_capacity;
    uint64_t *keys; /* [key_capacity], of the sorted window */
    int64_t *sorted;
    int64_t key_capacity;
} Planner;

static int out_of_memory(int64_t count, Error *err) {
    return error_set(err, "out of memory for the order of %lld units", (long long)count);
}

/* Uniform in 0..n-1. */
static int64_t random_below(uint64_t seed, uint64_t stream, int64_t index, int64_t n) {
    int64_t i = (int64_t)(random_uniform(seed, stream, (uint64_t)index) * (double)n);
    return i < n ? i : n - 1;
}

/* Fisher and Yates's shuffle. */
static void shuffle(int64_t *list, int64_t n, uint64_t seed, uint64_t stream) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = random_below(seed, stream, i, i + 1), kept = list[i];
        list[i] = list[j];
        list[j] = kept;
    }
}

static int compare_unsigned(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int compare_signed(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* ---- Steps. ---- */

/* A step's contents so far and its limits. */
typedef struct Fill {
    int64_t units, tokens, sequences;
} Fill;

static void fill(Fill *f, const BatchUnit *u) {
    f->units++, f->tokens += u->tokens, f->sequences += u->sequences;
}

/* Whether it holds `steps` steps' worth already, */
static bool filled(const Fill *f, const BatchConfig *c, int64_t steps) {
    return (c->tokens > 0 && f->tokens >= steps * c->tokens) ||
           (c->sequences > 0 && f->sequences >= steps * c->sequences);
}

/* and whether one unit more would exceed one step. */
static bool too_much(const Fill *f, const BatchConfig *c, const BatchUnit *u) {
    return f->units && ((c->tokens > 0 && f->tokens + u->tokens > c->tokens) ||
                        (c->sequences > 0 && f->sequences + u->sequences > c->sequences));
}

static int step_push(Planner *p, int64_t begin, Error *err) {
    if (p->step_count == p->step_capacity) {
        int64_t capacity = p->step_capacity ? 2 * p->step_capacity : 64;
        int64_t *steps = realloc(p->steps, (size_t)capacity * sizeof *steps);
        if (!steps) return error_set(err, "out of memory for %lld steps", (long long)capacity);
        p->steps = steps;
        p->step_capacity = capacity;
    }
    p->steps[p->step_count++] = begin;
    return 0;
}

/* Cuts list[begin, end) into steps. If more units follow, a last step that is not full is not cut
 * off; *next is where the remainder begins. */
static int cut_steps(Planner *p, int64_t begin, int64_t end, bool more, int64_t *next, Error *err) {
    Fill f = {0};
    int64_t first = begin;
    for (int64_t i = begin; i < end; i++) {
        const BatchUnit *u = &p->units[p->list[i]];
        if (too_much(&f, p->config, u)) {
            TRY(step_push(p, first, err));
            first = i;
            f = (Fill){0};
        }
        fill(&f, u);
    }
    if (first < end && (!more || filled(&f, p->config, 1))) {
        TRY(step_push(p, first, err));
        first = end;
    }
    *next = first;
    return 0;
}

/* Sorts list[begin, end) by length; units of one length keep their (shuffled) order. */
static int sort_window(Planner *p, int64_t begin, int64_t end, Error *err) {
    int64_t n = end - begin;
    if (n > UINT32_MAX) return error_set(err, "megabatches of %lld units: too large", (long long)n);
    if (n > p->key_capacity) {
        free(p->keys), free(p->sorted);
        p->key_capacity = n;
        p->keys = malloc((size_t)n * sizeof *p->keys);
        p->sorted = malloc((size_t)n * sizeof *p->sorted);
    }
    if (!p->keys || !p->sorted) return out_of_memory(n, err);
    for (int64_t i = 0; i < n; i++)
        p->keys[i] = (uint64_t)p->units[p->list[begin + i]].tokens << 32 | (uint64_t)i;
    qsort(p->keys, (size_t)n, sizeof *p->keys, compare_unsigned);
    for (int64_t i = 0; i < n; i++) p->sorted[i] = p->list[begin + (int64_t)(uint32_t)p->keys[i]];
    memcpy(p->list + begin, p->sorted, (size_t)n * sizeof *p->sorted);
    return 0;
}

/* Cuts the units of one modality, list[begin, end), into steps of similar lengths. */
static int group(Planner *p, int64_t begin, int64_t end, Error *err) {
    const BatchConfig *c = p->config;
    int64_t megabatch = c->megabatch > 0 ? c->megabatch : MEGABATCH;
    while (begin < end) {
        /* At least one step's worth, so that at least one step is cut off. */
        int64_t stop = begin;
        Fill f = {0};
        while (stop < end && !filled(&f, c, megabatch)) fill(&f, &p->units[p->list[stop++]]);
        TRY(sort_window(p, begin, stop, err));
        TRY(cut_steps(p, begin, stop, stop < end, &begin, err));
    }
    return 0;
}

/* ---- Mixtures. ---- */

/* The units of each source: members[begin[s]..begin[s + 1]). */
typedef struct Mixture {
    int64_t *members, *begin; /* [count], [sources + 1] */
    int64_t *drawn;           /* [sources]: units drawn so far, in all epochs */
    double *bounds;           /* [sources]: sums of the weights up to each */
    int last;                 /* the last source with a weight */
    uint64_t stream;          /* of the draws */
} Mixture;

static void mixture_free(Mixture *m) {
    free(m->members), free(m->begin), free(m->drawn), free(m->bounds);
}

static int mixture_open(Mixture *m, const Planner *p, Error *err) {
    const BatchConfig *c = p->config;
    size_t sources = (size_t)c->sources;
    m->members = malloc((size_t)p->count * sizeof *m->members);
    m->begin = calloc(sources + 1, sizeof *m->begin);
    m->drawn = calloc(sources, sizeof *m->drawn);
    m->bounds = calloc(sources, sizeof *m->bounds);
    if (!m->members || !m->begin || !m->drawn || !m->bounds) return out_of_memory(p->count, err);
    for (int64_t i = 0; i < p->count; i++) m->begin[p->units[i].source + 1]++;
    m->stream = random_stream(PURPOSE_DRAWS, 0, 0, 0);
    double sum = 0;
    for (int s = 0; s < c->sources; s++) {
        double weight = c->weights[s];
        if (!(weight >= 0 && isfinite(weight)))
            return error_set(err, "source %d of the mixture has weight %g, expected 0 or more",
                             s + 1, weight);
        if (weight > 0 && m->begin[s + 1] == 0)
            return error_set(err,
                             "source %d of the mixture has weight %g but no usable sample: leave "
                             "it out or give it weight 0",
                             s + 1, weight);
        if (weight > 0) m->last = s;
        m->bounds[s] = sum += weight;
        m->begin[s + 1] += m->begin[s];
    }
    if (!(sum > 0 && isfinite(sum)))
        return error_set(err, "the weights of the mixture's %d sources add up to %g", c->sources,
                         sum);
    /* `drawn` counts the placed units here. */
    for (int64_t i = 0; i < p->count; i++) {
        int s = p->units[i].source;
        m->members[m->begin[s] + m->drawn[s]++] = i;
    }
    memset(m->drawn, 0, sources * sizeof *m->drawn);
    return 0;
}

/* The source of draw n, counted over all epochs. */
static int draw_source(const Mixture *m, const BatchConfig *c, int64_t n) {
    double x = random_uniform(c->seed, m->stream, (uint64_t)n) * m->bounds[m->last];
    int low = 0, high = m->last;
    while (low < high) {
        int middle = (low + high) / 2;
        if (x < m->bounds[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Shuffles a source's units for its n-th round. */
static void begin_round(Mixture *m, const BatchConfig *c, int s, int64_t n) {
    int64_t *members = m->members + m->begin[s], count = m->begin[s + 1] - m->begin[s];
    qsort(members, (size_t)count, sizeof *members, compare_signed);
    shuffle(members, count, c->seed, random_stream(PURPOSE_SOURCE, (uint64_t)s, (uint64_t)n, 0));
}

/* An epoch's draws into the list. The position in each source is found by repeating the draws of
 * all earlier epochs: no state is kept. */
static int draw_epoch(Planner *p, Error *err) {
    const BatchConfig *c = p->config;
    Mixture m = {0};
    int status = mixture_open(&m, p, err);
    if (status == 0) {
        int64_t first = p->epoch * p->count;
        for (int64_t n = 0; n < first; n++) m.drawn[draw_source(&m, c, n)]++;
        for (int s = 0; s < c->sources; s++) {
            int64_t count = m.begin[s + 1] - m.begin[s];
            if (m.drawn[s] && m.drawn[s] % count) begin_round(&m, c, s, m.drawn[s] / count);
        }
        for (int64_t i = 0; i < p->count; i++) {
            int s = draw_source(&m, c, first + i);
            int64_t count = m.begin[s + 1] - m.begin[s], place = m.drawn[s]++ % count;
            if (place == 0) begin_round(&m, c, s, (m.drawn[s] - 1) / count);
            p->list[i] = m.members[m.begin[s] + place];
        }
    }
    mixture_free(&m);
    return status;
}

/* ---- An epoch. ---- */

/* Moves units with an image to the front, keeping the order; returns how many. */
static int64_t split_modality(const Planner *p, int64_t *to) {
    int64_t images = 0, other = 0;
    for (int64_t i = 0; i < p->count; i++) other += p->units[p->list[i]].image;
    const int64_t count = other;
    for (int64_t i = 0; i < p->count; i++)
        to[p->units[p->list[i]].image ? images++ : other++] = p->list[i];
    return count;
}

/* The steps in random order, to plan->order and plan->step_begin. */
static int shuffle_steps(const Planner *p, BatchPlan *plan, Error *err) {
    int64_t *which = malloc((size_t)p->step_count * sizeof *which);
    if (!which) return error_set(err, "out of memory for %lld steps", (long long)p->step_count);
    for (int64_t i = 0; i < p->step_count; i++) which[i] = i;
    if (!p->config->in_order)
        shuffle(which, p->step_count, p->config->seed,
                random_stream(PURPOSE_STEPS, (uint64_t)p->epoch, 0, 0));
    int64_t at = 0;
    for (int64_t i = 0; i < p->step_count; i++) {
        int64_t s = which[i], end = s + 1 < p->step_count ? p->steps[s + 1] : p->count;
        int64_t n = end - p->steps[s];
        memcpy(plan->order + at, p->list + p->steps[s], (size_t)n * sizeof *p->list);
        plan->step_begin[i] = at;
        at += n;
    }
    plan->step_begin[p->step_count] = at;
    plan->steps = p->step_count;
    free(which);
    return 0;
}

static int plan_list(Planner *p, BatchPlan *plan, Error *err) {
    const BatchConfig *c = p->config;
    for (int64_t i = 0; i < p->count; i++) p->list[i] = i;
    if (c->in_order) {
        int64_t end;
        return cut_steps(p, 0, p->count, false, &end, err);
    }
    if (c->weights)
        TRY(draw_epoch(p, err));
    else
        shuffle(p->list, p->count, c->seed, random_stream(PURPOSE_UNITS, (uint64_t)p->epoch, 0, 0));
    if (c->mixed) {
        int64_t end;
        return cut_steps(p, 0, p->count, false, &end, err);
    }
    int64_t images = split_modality(p, plan->order);
    memcpy(p->list, plan->order, (size_t)p->count * sizeof *p->list);
    TRY(group(p, 0, images, err));
    return group(p, images, p->count, err);
}

static int check(const BatchUnit *units, int64_t count, const BatchConfig *c, int64_t epoch,
                 Error *err) {
    if (count < 1) return error_set(err, "no sample to make training steps of");
    if (epoch < 0) return error_set(err, "epoch %lld, expected 0 or more", (long long)epoch);
    if (c->tokens < 1 && c->sequences < 1)
        return error_set(err,
                         "steps of %lld tokens and %d sequences, expected a positive number "
                         "of one of them",
                         (long long)c->tokens, c->sequences);
    for (int64_t i = 0; i < count; i++) {
        const BatchUnit *u = &units[i];
        if (u->tokens < 0 || u->sequences < 1)
            return error_set(err,
                             "unit %lld has %d tokens and %d sequences, expected at least 0 "
                             "and 1",
                             (long long)i, u->tokens, u->sequences);
        if (c->weights && (u->source < 0 || u->source >= c->sources))
            return error_set(err, "unit %lld is of source %d, but the mixture has %d", (long long)i,
                             u->source + 1, c->sources);
    }
    return 0;
}

int batches_plan(BatchPlan *plan, const BatchUnit *units, int64_t count, const BatchConfig *config,
                 int64_t epoch, Error *err) {
    *plan = (BatchPlan){0};
    TRY(check(units, count, config, epoch, err));
    Planner p = {.units = units, .count = count, .config = config, .epoch = epoch};
    p.list = malloc((size_t)count * sizeof *p.list);
    plan->order = malloc((size_t)count * sizeof *plan->order);
    int status = p.list && plan->order ? plan_list(&p, plan, err) : out_of_memory(count, err);
    if (status == 0) {
        plan->step_begin = malloc((size_t)(p.step_count + 1) * sizeof *plan->step_begin);
        status = plan->step_begin ? shuffle_steps(&p, plan, err) : out_of_memory(count, err);
    }
    free(p.list), free(p.steps), free(p.keys), free(p.sorted);
    if (status) batches_free(plan);
    return status;
}

void batches_free(BatchPlan *plan) {
    free(plan->order), free(plan->step_begin);
    *plan = (BatchPlan){0};
}
