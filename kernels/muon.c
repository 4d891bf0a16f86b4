#include "kernels/muon.h"

#include <math.h>

/* Jordan's coefficients: among the polynomials a s + b s^3 + c s^5 that map [0, 1] into a band
 * around 1, one of the steepest at 0. */
static const float A = 3.4445f, B = -4.7750f, C = 2.0315f;
enum { ITERATIONS = 5 };
static const double LEAST_NORM = 1e-7; /* a momentum with a smaller norm is divided by this */

Dtype muon_compute(const Device *device) {
    return device_compute_dtype(device, DTYPE_BF16);
}

static int64_t short_side(int64_t rows, int64_t columns) {
    return rows < columns ? rows : columns;
}

size_t muon_work_bytes(const Device *device, int64_t rows, int64_t columns) {
    const int64_t n = short_side(rows, columns);
    const Dtype compute = muon_compute(device);
    return arena_bytes(DTYPE_F32, rows, columns) + arena_bytes(compute, rows, columns) +
           arena_bytes(DTYPE_F32, n, n) + arena_bytes(compute, n, n);
}

/* y += x, elementwise. */
static int add(Device *device, Tensor y, Tensor x, Error *err) {
    return dropout_forward(device, y, x, (Dropout){0}, true, err);
}

/* The matrices of an iteration other than x itself. Accumulators are f32, operands of matmuls have
 * the compute type. */
typedef struct Work {
    Tensor x;     /* [N, K] c: the iterate */
    Tensor gram;  /* [n, n] f32, n the shorter side */
    Tensor small; /* [n, n] c */
} Work;

/* gram = x x^T, or x^T x where x is tall. */
static int gram_matrix(Device *device, const Work *w, bool tall, Error *err) {
    const Tensor none = TENSOR_NONE;
    if (!tall)
        return linear_forward(device, w->gram, w->x, w->x, none, ACTIVATION_NONE, false, err);
    TRY(device_clear(device, w->gram.data, tensor_bytes(w->gram), err));
    return linear_backward(device, none, w->gram, none, w->x, w->x, none, false, err);
}

/* x = A x + (B G + C G^2) x with G = x x^T, which is A s + B s^3 + C s^5 of its singular values.
 * For a tall matrix the smaller G = x^T x is on the right, so that nothing is transposed in memory;
 * the polynomial of G is symmetric like G. Both terms use the same, rounded G: near 1 the effects
 * of its error on them cancel. */
static int iterate(Device *device, Tensor x, const Work *w, Error *err) {
    const bool tall = x.shape[0] > x.shape[1];
    const Tensor none = TENSOR_NONE;
    TRY(convert_forward(device, w->x, x, err));
    TRY(gram_matrix(device, w, tall, err));
    TRY(convert_forward(device, w->small, w->gram, err));
    TRY(scale_forward(device, w->gram, w->small, B / C, err));
    TRY(linear_forward(device, w->gram, w->small, w->small, none, ACTIVATION_NONE, true, err));
    TRY(scale_forward(device, w->small, w->gram, C, err));
    TRY(scale_forward(device, x, x, A, err));
    if (tall) return linear_forward(device, x, w->x, w->small, none, ACTIVATION_NONE, true, err);
    return linear_backward(device, x, none, none, w->small, none, w->x, true, err);
}

int muon_orthogonalize(Arena *arena, Tensor x, Error *err) {
    const int64_t rows = x.shape[0], columns = x.shape[1], n = short_side(rows, columns);
    const Dtype compute = muon_compute(arena->device);
    const size_t mark = arena->used;
    Work w;
    TRY(arena_take(arena, &w.x, compute, rows, columns, err));
    TRY(arena_take(arena, &w.gram, DTYPE_F32, n, n, err));
    TRY(arena_take(arena, &w.small, compute, n, n, err));
    for (int i = 0; i < ITERATIONS; i++) TRY(iterate(arena->device, x, &w, err));
    arena_reset(arena, mark);
    return 0;
}

/* Writes the new momentum to m, and the matrix to orthogonalize to u. */
static int average(Device *device, Tensor u, Tensor m, Tensor g, const MuonStep *s, Error *err) {
    const float share = (float)((1 - (double)s->momentum) * s->grad_scale);
    TRY(scale_forward(device, g, g, share, err));
    TRY(scale_forward(device, m, m, s->momentum, err));
    TRY(add(device, m, g, err));
    TRY(scale_forward(device, u, m, s->momentum, err));
    return add(device, u, g, err);
}

int muon_step(Arena *arena, Tensor p, Tensor copy, Tensor m, Tensor g, const MuonStep *step,
              Error *err) {
    Device *device = arena->device;
    const int64_t rows = p.shape[0], columns = p.shape[1];
    const int64_t longer = rows > columns ? rows : columns;
    const double decay = (double)step->rate * step->weight_decay;
    const size_t mark = arena->used;
    Tensor u;
    double squares;
    TRY(arena_take(arena, &u, DTYPE_F32, rows, columns, err));
    TRY(average(device, u, m, g, step, err));
    TRY(square_sum(device, &squares, u, err));
    TRY(scale_forward(device, u, u, (float)(1 / fmax(sqrt(squares), LEAST_NORM)), err));
    TRY(muon_orthogonalize(arena, u, err));
    TRY(scale_forward(device, u, u, (float)(-(double)step->rate * 0.2 * sqrt((double)longer)),
                      err));
    /* Sums the small changes before adding them to the weights: 1 - rate * decay would lose digits
     * in f32. */
    if (decay > 0) {
        TRY(scale_forward(device, g, p, (float)-decay, err));
        TRY(add(device, u, g, err));
    }
    TRY(add(device, p, u, err));
    arena_reset(arena, mark);
    return copy.data ? convert_forward(device, copy, p, err) : 0;
}
