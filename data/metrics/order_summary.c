#include "data/metrics/order_summary.h"

#include <math.h>
#include <stdlib.h>

void order_summary_free(OrderSummary *summary) {
    free(summary->points);
    *summary = (OrderSummary){0};
}

typedef struct Part {
    double sum, weight;
} Part;

static Part pairs_part(const OrderPairs *pairs) {
    return (Part){pairs->first, (double)pairs->pairs};
}

static Part mean_part(double value) {
    return isnan(value) ? (Part){0, 0} : (Part){value, 1};
}

/* One answer's terms of a ratio. */
static Part answer_part(const OrderAnswer *a, OrderNumber number) {
    const OrderCounts *c = &a->counts;
    switch (number) {
    case ORDER_EASY_FIRST:
        return pairs_part(&a->pairs[EASY_BOTH]);
    case ORDER_FIXED_FIRST:
        return pairs_part(&a->pairs[EASY_FIXED]);
    case ORDER_COPIED_FIRST:
        return pairs_part(&a->pairs[EASY_COPIED]);
    case ORDER_SEEN_FIRST:
        return pairs_part(&a->seen_pairs);
    case ORDER_ERASED:
        return (Part){(double)c->erased, (double)c->written};
    case ORDER_ERASURES:
        return (Part){(double)c->erasures, 1};
    case ORDER_WITH_ERASURE:
        return (Part){c->erasures > 0, 1};
    case ORDER_RETURNS:
        return (Part){(double)c->returns, (double)c->rewrites};
    case ORDER_KENDALL:
        return mean_part(a->kendall);
    case ORDER_SPEARMAN:
        return mean_part(a->spearman);
    case ORDER_SEVERAL:
        return (Part){(double)c->several_steps, (double)c->writing_steps};
    case ORDER_STEP_WRITES:
        return (Part){(double)c->writes, (double)c->writing_steps};
    case ORDER_NUMBERS:
        break;
    }
    return (Part){0, 0};
}

/* sums and weights: memory for one number per answer. */
static int ratio_make(OrderRatio *ratio, const OrderSet *set, OrderNumber number, uint64_t seed,
                      double *sums, double *weights, Error *err) {
    *ratio = (OrderRatio){.value = NAN};
    size_t n = 0;
    for (size_t i = 0; i < set->count; i++) {
        Part part = answer_part(&set->answers[i], number);
        if (!(part.weight > 0)) continue;
        sums[n] = part.sum, weights[n++] = part.weight;
        ratio->sum += part.sum, ratio->weight += part.weight;
    }
    ratio->answers = (int64_t)n;
    if (n) ratio->value = ratio->sum / ratio->weight;
    return order_interval(sums, weights, n, seed, &ratio->interval, err);
}

static int make_points(OrderSummary *s, const OrderSet *set, Error *err) {
    for (size_t i = 0; i < set->count; i++)
        if (set->answers[i].steps > s->point_count) s->point_count = set->answers[i].steps;
    s->points = calloc((size_t)s->point_count + 1, sizeof *s->points);
    if (!s->points) return error_set(err, "out of memory for %d steps", s->point_count);
    for (int p = 0; p < s->point_count; p++) {
        OrderPoint *point = &s->points[p];
        int64_t standing = 0;
        for (size_t i = 0; i < set->count; i++) {
            const OrderAnswer *a = &set->answers[i];
            int step = p < a->steps ? p : a->steps - 1;
            point->answers += p < a->steps;
            point->filled += a->filled[step];
            if (isnan(a->confidence[step])) continue;
            point->confidence += a->confidence[step], standing++;
        }
        point->filled /= (double)set->count;
        point->confidence = standing ? point->confidence / (double)standing : NAN;
    }
    return 0;
}

static void add_answer(OrderSummary *s, const OrderAnswer *a) {
    OrderCounts *to = &s->counts;
    const OrderCounts *c = &a->counts;
    to->places += c->places, to->written += c->written, to->unfinished += c->unfinished;
    to->erased += c->erased, to->writes += c->writes, to->erasures += c->erasures;
    to->rewrites += c->rewrites, to->returns += c->returns, to->steps += c->steps;
    to->writing_steps += c->writing_steps, to->several_steps += c->several_steps;
    for (int w = 0; w < a->word_count; w++) s->classes[a->words[w].class]++;
    for (int e = 0; e < EASY_COUNT; e++)
        s->pairs[e] += a->pairs[e].pairs, s->ties[e] += a->pairs[e].ties;
    for (int e = 0; e < EASY_COUNT; e++) s->chance[e] += a->pairs[e].chance;
    s->seen_ties += a->seen_pairs.ties, s->seen_chance += a->seen_pairs.chance;
    if (isnan(a->kendall)) return;
    int bin = (int)floor((a->kendall + 1) / 2 * ORDER_BINS);
    s->bins[bin < 0 ? 0 : bin >= ORDER_BINS ? ORDER_BINS - 1 : bin]++;
}

int order_summary(const OrderSet *set, uint64_t seed, OrderSummary *s, Error *err) {
    *s = (OrderSummary){0};
    for (size_t i = 0; i < set->count; i++) add_answer(s, &set->answers[i]);
    for (int e = 0; e < EASY_COUNT; e++)
        s->chance[e] = s->pairs[e] ? s->chance[e] / (double)s->pairs[e] : NAN;
    s->seen_chance = s->pairs[EASY_BOTH] ? s->seen_chance / (double)s->pairs[EASY_BOTH] : NAN;
    TRY(make_points(s, set, err));
    double *sums = malloc((set->count + 1) * sizeof *sums);
    double *weights = malloc((set->count + 1) * sizeof *weights);
    int status = sums && weights ? 0 : error_set(err, "out of memory for the order's numbers");
    for (int n = 0; n < ORDER_NUMBERS && status == 0; n++)
        status = ratio_make(&s->numbers[n], set, (OrderNumber)n, seed, sums, weights, err);
    free(sums), free(weights);
    return status;
}
