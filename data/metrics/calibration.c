#include "data/metrics/calibration.h"

#include <math.h>
#include <stdlib.h>

/* ---- The fit. ---- */

enum { WEIGHTS = 3, STEPS_MOST = 100, HALVINGS = 40 };

/* The problem: predictors with mean 0 and deviation 1, which makes it well conditioned whatever
 * their units; the third is constant. A predictor that does not vary has scale 0. */
typedef struct Problem {
    const CalibrationAnswer *answers;
    int64_t count;
    double mean[2], scale[2]; /* of score and length: (value - mean) * scale */
    double target[2];         /* of wrong and right answers */
} Problem;

static double predictor(const CalibrationAnswer *a, int k) {
    return k ? (double)a->length : a->score;
}

static void standardize(Problem *p, int k) {
    double n = (double)p->count, sum = 0, squares = 0;
    for (int64_t i = 0; i < p->count; i++) sum += predictor(&p->answers[i], k);
    p->mean[k] = sum / n;
    for (int64_t i = 0; i < p->count; i++) {
        double d = predictor(&p->answers[i], k) - p->mean[k];
        squares += d * d;
    }
    double deviation = sqrt(squares / n);
    /* What is left of a constant by rounding is no variation. */
    p->scale[k] = deviation > 1e-12 * fabs(p->mean[k]) ? 1 / deviation : 0;
}

static void row_of(const Problem *p, int64_t i, double x[WEIGHTS]) {
    for (int k = 0; k < 2; k++) x[k] = (predictor(&p->answers[i], k) - p->mean[k]) * p->scale[k];
    x[2] = 1;
}

/* log(1 + exp(z)), exact for every z. */
static double softplus(double z) {
    return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
}

static double logit_of(const double w[WEIGHTS], const double x[WEIGHTS]) {
    return w[0] * x[0] + w[1] * x[1] + w[2] * x[2];
}

/* Cross-entropy: -t log(s(z)) - (1 - t) log(1 - s(z)) = log(1 + exp(z)) - t z. */
static double loss_of(const Problem *p, const double w[WEIGHTS]) {
    double sum = 0;
    for (int64_t i = 0; i < p->count; i++) {
        double x[WEIGHTS];
        row_of(p, i, x);
        double z = logit_of(w, x);
        sum += softplus(z) - p->target[p->answers[i].right] * z;
    }
    return sum / (double)p->count;
}

/* Of the loss: gradient, mean of (s(z) - t) x; Hessian, mean of s(z) (1 - s(z)) x x'. */
static void derivatives(const Problem *p, const double w[WEIGHTS], double g[WEIGHTS],
                        double h[WEIGHTS][WEIGHTS]) {
    for (int j = 0; j < WEIGHTS; j++) {
        g[j] = 0;
        for (int k = 0; k < WEIGHTS; k++) h[j][k] = 0;
    }
    for (int64_t i = 0; i < p->count; i++) {
        double x[WEIGHTS];
        row_of(p, i, x);
        double s = 1 / (1 + exp(-logit_of(w, x)));
        double error = (s - p->target[p->answers[i].right]) / (double)p->count;
        double weight = s * (1 - s) / (double)p->count;
        for (int j = 0; j < WEIGHTS; j++) {
            g[j] += error * x[j];
            for (int k = 0; k < WEIGHTS; k++) h[j][k] += weight * x[j] * x[k];
        }
    }
}

/* Solves h d = g by Gaussian elimination. The ridge keeps the matrix regular where a predictor is
 * constant, or a combination of the others; it changes the way to the minimum, not its place. */
static void solve(double h[WEIGHTS][WEIGHTS], double d[WEIGHTS]) {
    for (int j = 0; j < WEIGHTS; j++) h[j][j] = h[j][j] * (1 + 1e-10) + 1e-14;
    for (int j = 0; j < WEIGHTS; j++)
        for (int i = j + 1; i < WEIGHTS; i++) {
            double f = h[i][j] / h[j][j];
            for (int k = j; k < WEIGHTS; k++) h[i][k] -= f * h[j][k];
            d[i] -= f * d[j];
        }
    for (int j = WEIGHTS - 1; j >= 0; j--) {
        for (int k = j + 1; k < WEIGHTS; k++) d[j] -= h[j][k] * d[k];
        d[j] /= h[j][j];
    }
}

/* One step of Newton's method, halved until the loss falls; false at the minimum. */
static bool newton_step(const Problem *p, double w[WEIGHTS], double *loss) {
    double d[WEIGHTS], h[WEIGHTS][WEIGHTS];
    derivatives(p, w, d, h);
    if (fabs(d[0]) + fabs(d[1]) + fabs(d[2]) < 1e-13) return false;
    solve(h, d);
    for (int halving = 0; halving < HALVINGS; halving++) {
        double next[WEIGHTS];
        for (int j = 0; j < WEIGHTS; j++) next[j] = w[j] - ldexp(d[j], -halving);
        double found = loss_of(p, next);
        if (!(found <= *loss)) continue;
        bool moved = next[0] != w[0] || next[1] != w[1] || next[2] != w[2];
        for (int j = 0; j < WEIGHTS; j++) w[j] = next[j];
        *loss = found;
        return moved;
    }
    return false;
}

static int check_answers(const CalibrationAnswer *answers, int64_t count, int64_t *right,
                         Error *err) {
    *right = 0;
    if (count < CALIBRATION_LEAST)
        return error_set(err, "%lld answers with a score: a calibration needs at least %d",
                         (long long)count, CALIBRATION_LEAST);
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(answers[i].score))
            return error_set(err, "answer %lld has the score %g, a finite number expected",
                             (long long)i + 1, answers[i].score);
        *right += answers[i].right;
    }
    if (*right > 0 && *right < count) return 0;
    return error_set(err, "%s of %lld answers is right: a calibration needs right and wrong ones",
                     *right ? "every one" : "none", (long long)count);
}

int calibration_fit(CalibrationFit *fit, const CalibrationAnswer *answers, int64_t count,
                    bool with_length, Error *err) {
    int64_t right;
    TRY(check_answers(answers, count, &right, err));
    Problem p = {.answers = answers, .count = count};
    p.target[1] = ((double)right + 1) / ((double)right + 2);
    p.target[0] = 1 / ((double)(count - right) + 2);
    standardize(&p, 0);
    if (with_length) standardize(&p, 1);
    double w[WEIGHTS] = {0, 0, log(((double)right + 1) / ((double)(count - right) + 1))};
    *fit = (CalibrationFit){.loss = loss_of(&p, w)};
    while (fit->steps < STEPS_MOST && newton_step(&p, w, &fit->loss)) fit->steps++;
    fit->slope = w[0] * p.scale[0], fit->length = w[1] * p.scale[1];
    fit->offset = w[2] - fit->slope * p.mean[0] - fit->length * p.mean[1];
    return 0;
}

/* ---- The threshold. ---- */

static int compare_reals(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int calibration_threshold(double *threshold, const double *probabilities,
                          const CalibrationAnswer *answers, int64_t count, double most_right,
                          Error *err) {
    double *right = malloc(((size_t)count + 1) * sizeof *right);
    size_t n = 0;
    if (!right) return error_set(err, "out of memory for %lld probabilities", (long long)count);
    for (int64_t i = 0; i < count; i++)
        if (answers[i].right) right[n++] = probabilities[i];
    qsort(right, n, sizeof *right, compare_reals);
    size_t below = (size_t)(most_right * (double)n); /* may lie below */
    *threshold = n == 0 ? 0 : floor(right[below < n ? below : n - 1] * 1e6) / 1e6;
    free(right);
    return 0;
}

/* ---- Measures. ---- */

void calibration_measure(CalibrationReport *r, const double *probabilities,
                         const CalibrationAnswer *answers, int64_t count, double threshold) {
    *r = (CalibrationReport){.count = count, .threshold = threshold};
    for (int64_t i = 0; i < count; i++) {
        double p = probabilities[i], right = answers[i].right ? 1 : 0;
        int b = (int)(p * CALIBRATION_BINS);
        CalibrationBin *bin = &r->bins[b < CALIBRATION_BINS ? b : CALIBRATION_BINS - 1];
        bin->count++, bin->probability += p, bin->right += right;
        r->right += answers[i].right;
        r->unsure += p < threshold, r->unsure_right += p < threshold && answers[i].right;
        r->brier += (p - right) * (p - right) / (double)count;
    }
    for (int b = 0; b < CALIBRATION_BINS; b++) {
        CalibrationBin *bin = &r->bins[b];
        if (!bin->count) continue;
        r->ece += fabs(bin->probability - bin->right) / (double)count;
        bin->probability /= (double)bin->count, bin->right /= (double)bin->count;
    }
}
