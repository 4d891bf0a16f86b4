#include "data/metrics/order.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/random.h"

static int32_t token_at(const OrderSteps *s, int step, int place) {
    return step < 0 ? ORDER_MASKED : s->tokens[(size_t)step * (size_t)s->length + (size_t)place];
}

/* Counts one place over all steps. */
static OrderToken place_count(const OrderSteps *s, int place) {
    OrderToken token = {0};
    int32_t erased = ORDER_MASKED; /* and not yet written again */
    for (int step = 0; step < s->steps; step++) {
        int32_t before = token_at(s, step - 1, place), now = token_at(s, step, place);
        if (now == before) continue;
        if (before != ORDER_MASKED) token.erasures++, token.last = 0, erased = before;
        if (now == ORDER_MASKED) continue;
        token.writes++, token.last = step + 1;
        if (!token.first) token.first = step + 1;
        if (erased != ORDER_MASKED) token.rewrites++, token.returns += erased == now;
        erased = ORDER_MASKED;
    }
    return token;
}

void order_count(const OrderSteps *s, OrderToken *tokens, OrderCounts *counts) {
    for (int i = 0; i < s->length; i++) {
        OrderToken t = tokens[i] = place_count(s, i);
        counts->places++;
        counts->written += t.writes > 0;
        counts->unfinished += t.last == 0;
        counts->erased += t.erasures > 0;
        counts->writes += t.writes, counts->erasures += t.erasures;
        counts->rewrites += t.rewrites, counts->returns += t.returns;
    }
    for (int step = 0; step < s->steps; step++) {
        int written = 0;
        for (int i = 0; i < s->length; i++) {
            int32_t now = token_at(s, step, i);
            written += now != ORDER_MASKED && now != token_at(s, step - 1, i);
        }
        counts->steps++;
        counts->writing_steps += written > 0;
        counts->several_steps += written > 1;
    }
}

/* ---- Rank correlations. ---- */

double order_kendall(const int *x, const int *y, int n) {
    int64_t agree = 0, x_differ = 0, y_differ = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            int dx = (x[i] > x[j]) - (x[i] < x[j]), dy = (y[i] > y[j]) - (y[i] < y[j]);
            agree += dx * dy, x_differ += dx != 0, y_differ += dy != 0;
        }
    if (!x_differ || !y_differ) return NAN;
    return (double)agree / sqrt((double)x_differ * (double)y_differ);
}

/* Twice the rank of x[i], counted from the middle of all ranks: exact in integers. */
static int64_t centered_rank(const int *x, int n, int i) {
    int64_t rank = 0;
    for (int j = 0; j < n; j++) rank += (x[j] < x[i]) - (x[j] > x[i]);
    return rank;
}

double order_spearman(const int *x, const int *y, int n) {
    double xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < n; i++) {
        double a = (double)centered_rank(x, n, i), b = (double)centered_rank(y, n, i);
        xy += a * b, xx += a * a, yy += b * b;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

/* ---- Chance. ---- */

void order_shuffle(int *items, int count, uint64_t seed, uint64_t stream) {
    for (int i = count - 1; i > 0; i--) {
        int j = (int)(random_uniform(seed, stream, (uint64_t)i) * (i + 1));
        if (j > i) j = i; /* rounding */
        int item = items[i];
        items[i] = items[j], items[j] = item;
    }
}

/* ---- The bootstrap. ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q) {
    double at = q * (n - 1);
    int below = (int)at;
    if (below >= n - 1) return sorted[n - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

int order_interval(const double *sums, const double *weights, size_t n, uint64_t seed,
                   OrderInterval *interval, Error *err) {
    *interval = (OrderInterval){NAN, NAN};
    if (n < 2) return 0;
    double *ratios = malloc(ORDER_RESAMPLES * sizeof *ratios);
    if (!ratios) return error_set(err, "out of memory for a confidence interval");
    for (int r = 0; r < ORDER_RESAMPLES; r++) {
        uint64_t stream = random_stream((uint64_t)n, (uint64_t)r, 0, 0);
        double sum = 0, weight = 0;
        for (size_t i = 0; i < n; i++) {
            size_t drawn = (size_t)(random_uniform(seed, stream, i) * (double)n);
            if (drawn >= n) drawn = n - 1; /* rounding */
            sum += sums[drawn], weight += weights[drawn];
        }
        ratios[r] = sum / weight;
    }
    qsort(ratios, ORDER_RESAMPLES, sizeof *ratios, compare);
    interval->low = quantile(ratios, ORDER_RESAMPLES, 0.025);
    interval->high = quantile(ratios, ORDER_RESAMPLES, 0.975);
    free(ratios);
    return 0;
}
