/* muon.h - Muon (Jordan et al., 2024): a matrix moves by its momentum made orthogonal.
 *
 * The update of a weight [N, K] is its averaged gradient U S V^T with all singular values S brought
 * near 1, so that all its directions are learned at the same rate. The Newton-Schulz iteration
 * needs only matmuls, which are fast on every device.
 */
#ifndef EASYFIRST_KERNELS_MUON_H
#define EASYFIRST_KERNELS_MUON_H

#include "kernels/ops.h"

typedef struct MuonStep {
    float rate;         /* the schedule's learning rate; the matrix moves by rate * 0.2 sqrt(max(N,
                           K)) */
    float momentum;     /* of the mean gradient, in [0, 1) */
    float weight_decay; /* decoupled, times rate, as AdamW's */
    float grad_scale;   /* gradients are multiplied by this first (clipping) */
} MuonStep;

/* The type of the matmuls: bf16 where the device supports it, as in the authors' code, else f32. */
Dtype muon_compute(const Device *device);

/* Arena bytes that muon_step uses temporarily for a matrix of this shape. */
size_t muon_work_bytes(const Device *device, int64_t rows, int64_t columns);

/* x becomes U h(S) V^T, where x = U S V^T, ||x|| is at most 1 (Frobenius) and h is five times the
 * polynomial 3.4445 s - 4.7750 s^3 + 2.0315 s^5, whose fixed point is not 1 but which lifts small
 * values fastest: from s = 0.01 on, h(s) is within 0.68 .. 1.14. x [N, K] f32. The arena needs
 * muon_work_bytes less x's own. */
int muon_orthogonalize(Arena *arena, Tensor x, Error *err);

/* One update. With g' = grad_scale g,
 *     m = momentum m + (1 - momentum) g'
 *     u = momentum m + (1 - momentum) g'     (Nesterov)
 *     p -= rate (0.2 sqrt(max(N, K)) orthogonal(u / ||u||) + weight_decay p);
 * the factor makes the update's root mean square that of a usual AdamW step, so that one learning
 * rate serves both (Liu et al., 2025, arXiv:2502.16982). Where m and g are 0 only the decay acts.
 * p, m, g [N, K] f32; copy [N, K], if present, receives the new weights in its type. g is
 * overwritten: its values are undefined afterwards. */
int muon_step(Arena *arena, Tensor p, Tensor copy, Tensor m, Tensor g, const MuonStep *step,
              Error *err);

#endif
