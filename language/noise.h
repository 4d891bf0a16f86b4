/* noise.h - the forward process of masked diffusion: which tokens are masked, and their loss
 * weights.
 *
 * Reparameterized discrete diffusion (Zheng et al., arXiv 2302.05737; Ye et al., arXiv 2308.12219):
 * two timesteps from 1..T, coupled. With hi the larger and lo the smaller, a token is masked at hi
 * with probability hi / T, and a token masked at hi is masked at lo with probability lo / hi; equal
 * timesteps draw both masks independently. Both copies are trained on. The weight of a masked token
 * is T - (t - 1) (linear) or T (constant).
 *
 * LLaDA (Nie et al., arXiv 2502.09992): t uniform in (0, 1), mask probability p = (1 - eps) t +
 * eps, weight 1 / p. With complementary masks (LaViDa, Li et al., 2025) a second copy has exactly
 * the other tokens masked, with weight 1 / (1 - p).
 *
 * Autoregressive: no noise. Every token is predicted from those before it, with weight 1; "masked"
 * is then what has a loss.
 */
#ifndef EASYFIRST_LANGUAGE_NOISE_H
#define EASYFIRST_LANGUAGE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum Objective { OBJECTIVE_RDM, OBJECTIVE_LLADA, OBJECTIVE_AR } Objective;

extern const char *const objective_names[]; /* "rdm", "llada", "ar" */

/* RDM: the weight of a masked token, T - (t - 1) or T. */
typedef enum Weighting { WEIGHTING_LINEAR, WEIGHTING_CONSTANT } Weighting;

extern const char *const weighting_names[]; /* "linear", "constant" */

typedef struct NoiseConfig {
    Objective objective;
    int timesteps;         /* RDM: T, 50 */
    Weighting weighting;   /* RDM */
    float eps;             /* LLaDA: 1e-3 */
    bool complementary;    /* LLaDA: a second copy with the complement masked */
    float label_smoothing; /* RDM: ls; see noise_smoothing */
} NoiseConfig;

NoiseConfig noise_config_default(void); /* RDM, 50, linear, 1e-3, no second copy, no smoothing */

enum { NOISE_COPIES = 2 };

/* The number of copies of a sequence to train on: 2, or 1 for LLaDA without complementary masks and
 * for the autoregressive objective. */
int noise_copies(const NoiseConfig *config);

typedef struct NoiseDraw {
    double t[NOISE_COPIES];      /* timestep (RDM), or mask probability (LLaDA) */
    double weight[NOISE_COPIES]; /* of a masked token, before any normalization */
} NoiseDraw;

/* Draws the masks of a sequence's `count` maskable tokens: masked[copy * count + i]. A pure
 * function of (seed, stream): the same sequence in the same epoch gets the same noise in any batch.
 * Draws are random_uniform(seed, stream, index); noise.c documents the index. */
void noise_draw(const NoiseConfig *config, uint64_t seed, uint64_t stream, int count, bool *masked,
                NoiseDraw *draw);

/* The factor smoothing_weight of vocab_cross_entropy for a masked token of weight `weight`:
 * smoothing contributes ls T mean(-log p) at any timestep, so it is ls T / weight. 0 without
 * smoothing. For the others it is ls: smoothing is weighted as the loss is. */
double noise_smoothing(const NoiseConfig *config, double weight);

#endif
