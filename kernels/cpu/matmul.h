/* matmul.h - matmuls by oneDNN, versions 2 and 3. Private to kernels/cpu/.
 *
 * One function computes y = act(x w + b) for every matmul of the forward and the backward pass.
 * What oneDNN compiles for a matmul (a primitive, 0.3 to 0.7 ms of work) is cached by the matmul's
 * shape, so that only the first run of a shape pays for it; a run allocates nothing.
 *
 * A result depends on the operands' values only: a layout is chosen once for a weight and serves
 * every number of rows, and on the processors where this was measured the rows of y have the same
 * bits for any m.
 */
#ifndef EASYFIRST_KERNELS_CPU_MATMUL_H
#define EASYFIRST_KERNELS_CPU_MATMUL_H

#include "kernels/error.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

typedef struct Matmul Matmul;             /* engine, stream, primitives, their scratch memory */
typedef struct MatmulLayout MatmulLayout; /* how a weight [n, k] lies in memory, blocked */

/* oneDNN uses `threads` threads; the caller's own OpenMP setting stays unchanged. */
int matmul_open(Matmul **matmul, int threads, Error *err);
void matmul_close(Matmul *matmul); /* NULL is allowed */

/* Its engine and stream, for other primitives of oneDNN. */
struct dnnl_engine *matmul_engine(const Matmul *matmul);
struct dnnl_stream *matmul_stream(const Matmul *matmul);

/* Whether this processor multiplies bf16 matrices in hardware; and i8 ones, without saturating
 * sums of pairs. */
bool matmul_has_bf16(void);
bool matmul_has_int8(void);

/* The shape and the operands of one matmul. A matrix is stored by rows, `ld` elements apart. The
 * usual linear layer is x [m, k] and w [n, k]; with `x_transposed` x is stored as [k, m], with
 * `w_transposed` w as [k, n]. The three matmuls of a layer y = x w^T over T rows are then
 *     y  = x w^T     m = T, k = K, n = N
 *     dx = dy w      m = T, k = N, n = K, w_transposed
 *     dw = dy^T x    m = N, k = T, n = K, x_transposed, w_transposed, accumulate */
typedef struct MatmulTask {
    int64_t m, n, k; /* all at least 1 */

    Dtype dtype; /* of x and w: f32 or bf16; i8: of w, with a layout, and x is u8 */
    const void *x;
    int64_t x_ld;
    bool x_transposed;

    const void *w;
    const MatmulLayout *layout; /* of w; NULL: plain rows, as the next two say */
    int64_t w_ld;
    bool w_transposed;

    const float *bias; /* [n] or NULL */

    void *y;
    Dtype y_dtype; /* that of x and w, or f32; i32 for i8 */
    int64_t y_ld;
    Activation activation;
    bool accumulate; /* y += instead of y = */
} MatmulTask;

int matmul_run(Matmul *matmul, const MatmulTask *task, Error *err);

/* The fastest layout for a weight [n, k] of this type. */
int matmul_layout_open(Matmul *matmul, MatmulLayout **layout, int64_t n, int64_t k, Dtype dtype,
                       Error *err);
void matmul_layout_close(MatmulLayout *layout); /* NULL is allowed */
size_t matmul_layout_bytes(const MatmulLayout *layout);
/* Writes plain rows [n, k], `ld` elements apart, into that layout. The types are the layout's. */
int matmul_layout_fill(Matmul *matmul, const MatmulLayout *layout, void *to, const void *from,
                       int64_t ld, Error *err);

#endif
