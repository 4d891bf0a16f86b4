/* matmul.h - matmuls by cuBLASLt, with the algorithm for each shape chosen once. Private to
 * kernels/cuda/.
 *
 * Matrices here are row-major, as in the rest of the program.
 */
#ifndef EASYFIRST_KERNELS_CUDA_MATMUL_H
#define EASYFIRST_KERNELS_CUDA_MATMUL_H

#include "kernels/cuda/cuda.h"

int matmuls_open(struct Matmuls **matmuls, const cudaDeviceProp *properties, Error *err);
void matmuls_close(struct Matmuls *matmuls); /* NULL is allowed */

/* One operand: rows x columns in memory, `ld` elements from row to row. */
typedef struct Operand {
    const void *data;
    Dtype dtype;
    int64_t rows, columns, ld;
    bool transposed; /* multiplied as columns x rows */
} Operand;

static inline Operand operand(Tensor t, bool transposed) {
    Operand o = {t.data, t.dtype, t.shape[0], t.shape[1], t.ld, transposed};
    return o;
}

/* d = a b (+ d with `accumulate`) (+ bias, one value for each column of d): f32 sums. a and b are
 * of one type, f32 (without TF32) or bf16; d is of that type or f32; bias [columns of d] is of d's
 * type or NULL. */
int cuda_matmul(Device *device, Tensor d, Operand a, Operand b, const void *bias, bool accumulate,
                Error *err);

#endif
