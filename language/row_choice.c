#include "language/row_choice.h"

#include <math.h>

#include "kernels/random.h"

static bool id_allowed(const RowChoice *c, int32_t id) {
    return id != c->banned && id != c->how.never;
}

/* Sums over a row, with z = logit / scale - the largest of them. */
typedef struct RowSums {
    double exp_z, z_exp_z;
} RowSums;

static RowSums row_sums(const float *logits, const RowChoice *c, double scale, double largest) {
    RowSums sums = {0};
    for (int32_t v = 0; v < c->limit; v++) {
        if (!id_allowed(c, v)) continue;
        double z = ((double)logits[v] - largest) / scale, e = exp(z);
        sums.exp_z += e;
        if (e > 0 || isnan(e)) sums.z_exp_z += z * e; /* z may be -inf */
    }
    return sums;
}

/* `sums` are those at scale 1. */
static double row_measure(const float *logits, const RowChoice *c, const double top[2],
                          int32_t token, RowSums sums) {
    double scale = c->temperature > 0 ? (double)c->temperature : 1;
    if (c->temperature > 0) sums = row_sums(logits, c, scale, top[0]);
    if (c->how.measure == DECODE_MARGIN) return (1 - exp((top[1] - top[0]) / scale)) / sums.exp_z;
    if (c->how.measure == DECODE_NEG_ENTROPY) /* the sum of p (z - log(sum)) */
        return sums.z_exp_z / sums.exp_z - log(sums.exp_z);
    return exp(((double)logits[token] - top[0]) / scale) / sums.exp_z;
}

Proposal row_choose(const float *logits, const RowChoice *c, float *confidence) {
    double most = -INFINITY, top[2] = {-INFINITY, -INFINITY};
    int32_t best = -1;
    for (int32_t v = 0; v < c->limit; v++) {
        if (!id_allowed(c, v)) continue;
        double z = (double)logits[v], value = z;
        if (z > top[0])
            top[1] = top[0], top[0] = z;
        else if (z > top[1])
            top[1] = z;
        if (c->temperature > 0)
            value = z / (double)c->temperature +
                    random_gumbel(c->seed, c->stream, (uint64_t)(c->index + v));
        if (value > most) most = value, best = v;
    }
    if (confidence) *confidence = 0;
    if (best < 0) return (Proposal){0, NAN};
    RowSums sums = row_sums(logits, c, 1, top[0]);
    if (confidence && c->how.measure != DECODE_NO_MEASURE)
        *confidence = (float)row_measure(logits, c, top, best, sums);
    return (Proposal){best, (float)((double)logits[best] - top[0] - log(sums.exp_z))};
}
