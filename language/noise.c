/* noise.c - see noise.h.
 *
 * Indices in a sequence's random stream: copy c's timestep is number c, and number NOISE_COPIES *
 * (1 + i) + c decides whether copy c masks token i. So a token's draw depends neither on the
 * sequence's length nor on the other copy. LLaDA uses those of copy 0 only; its second copy is the
 * complement.
 */
#include "language/noise.h"

#include <stddef.h>

#include "kernels/random.h"

const char *const objective_names[] = {
    [OBJECTIVE_RDM] = "rdm", [OBJECTIVE_LLADA] = "llada", [OBJECTIVE_AR] = "ar", NULL};

const char *const weighting_names[] = {
    [WEIGHTING_LINEAR] = "linear", [WEIGHTING_CONSTANT] = "constant", NULL};

NoiseConfig noise_config_default(void) {
    return (NoiseConfig){.objective = OBJECTIVE_RDM, .timesteps = 50, .eps = 1e-3f};
}

int noise_copies(const NoiseConfig *config) {
    if (config->objective == OBJECTIVE_AR) return 1;
    return config->objective == OBJECTIVE_RDM || config->complementary ? NOISE_COPIES : 1;
}

static double timestep_uniform(uint64_t seed, uint64_t stream, int copy) {
    return random_uniform(seed, stream, (uint64_t)copy);
}

static double token_uniform(uint64_t seed, uint64_t stream, int copy, int token) {
    return random_uniform(seed, stream, (uint64_t)NOISE_COPIES * (1 + (uint64_t)token) + copy);
}

static void draw_rdm(const NoiseConfig *config, uint64_t seed, uint64_t stream, int count,
                     bool *masked, NoiseDraw *draw) {
    double steps = config->timesteps;
    int t[NOISE_COPIES];
    for (int c = 0; c < NOISE_COPIES; c++) {
        t[c] = 1 + (int)(timestep_uniform(seed, stream, c) * steps); /* below T + 1: u < 1 */
        draw->t[c] = t[c];
        draw->weight[c] = config->weighting == WEIGHTING_CONSTANT ? steps : steps - (t[c] - 1);
    }
    int hi = t[1] > t[0], lo = 1 - hi;
    bool coupled = t[hi] != t[lo];
    double hi_rate = t[hi] / steps, lo_rate = coupled ? (double)t[lo] / t[hi] : t[lo] / steps;
    for (int i = 0; i < count; i++) {
        bool at_hi = token_uniform(seed, stream, hi, i) < hi_rate;
        bool at_lo = token_uniform(seed, stream, lo, i) < lo_rate;
        masked[hi * count + i] = at_hi;
        masked[lo * count + i] = at_lo && (at_hi || !coupled);
    }
}

static void draw_llada(const NoiseConfig *config, uint64_t seed, uint64_t stream, int count,
                       bool *masked, NoiseDraw *draw) {
    double eps = config->eps, t = timestep_uniform(seed, stream, 0);
    /* 1 - p as a product: never 0, since t < 1, and without cancellation. */
    double p = (1 - eps) * t + eps, rest = (1 - eps) * (1 - t);
    draw->t[0] = p, draw->weight[0] = 1 / p;
    if (config->complementary) draw->t[1] = rest, draw->weight[1] = 1 / rest;
    for (int i = 0; i < count; i++) {
        masked[i] = token_uniform(seed, stream, 0, i) < p;
        if (config->complementary) masked[count + i] = !masked[i];
    }
}

static void draw_all(int count, bool *masked, NoiseDraw *draw) {
    draw->t[0] = draw->weight[0] = 1;
    for (int i = 0; i < count; i++) masked[i] = true;
}

void noise_draw(const NoiseConfig *config, uint64_t seed, uint64_t stream, int count, bool *masked,
                NoiseDraw *draw) {
    *draw = (NoiseDraw){0};
    if (config->objective == OBJECTIVE_RDM)
        draw_rdm(config, seed, stream, count, masked, draw);
    else if (config->objective == OBJECTIVE_AR)
        draw_all(count, masked, draw);
    else
        draw_llada(config, seed, stream, count, masked, draw);
}

double noise_smoothing(const NoiseConfig *config, double weight) {
    double ls = config->label_smoothing;
    return config->objective == OBJECTIVE_RDM && ls > 0 ? ls * config->timesteps / weight : ls;
}
