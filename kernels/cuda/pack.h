/* pack.h - weights on the GPU. Private to kernels/cuda/.
 *
 * A pack is the row-major matrix in the compute type; cuBLASLt needs no other layout. But its rows
 * are aligned to 16 bytes, which tensor core kernels read at a time, even if the file's are not
 * (588 columns of bf16).
 *
 * A pack of i8 has the integers as rows and their scales after them. For a matmul some rows at a
 * time are dequantized into memory that all weights share, so that they are read from the L2 cache
 * where that is large: the result is that of a dequantized model.
 */
#ifndef EASYFIRST_KERNELS_CUDA_PACK_H
#define EASYFIRST_KERNELS_CUDA_PACK_H

#include "kernels/cuda/matmul.h"

/* Packed.layout of this backend. Matmuls with bf16 results need a bf16 bias: the pack has space for
 * it after the matrix, and linear_forward fills it on the first use of a bias. So the values of a
 * bias must not change while a pack that it was used with exists; models pack only what is not
 * trained. */
typedef struct PackLayout {
    int64_t ld;          /* elements from row to row */
    void *bias;          /* [rows] bf16; NULL: the pack has none */
    const void *bias_of; /* the bias that it was converted from */
} PackLayout;

static inline PackLayout *pack_layout(Tensor w) {
    return (PackLayout *)w.packed->layout;
}

/* Rows [first, first + count) of a weight [N, K], packed or plain, not i8, as an operand of a
 * matmul. */
static inline Operand weight_operand(Tensor w, int64_t first, int64_t count, bool transposed) {
    const struct Packed *p = w.packed;
    const Dtype dtype = p ? p->dtype : w.dtype;
    const int64_t ld = p ? pack_layout(w)->ld : w.ld;
    const char *data = (const char *)(p ? p->data : w.data);
    Operand o = {
        data + (size_t)(first * ld) * dtype_size(dtype), dtype, count, w.shape[1], ld, transposed};
    return o;
}

/* y = x w^T (+ y with `accumulate`) + bias with the rows [first, first + count) of a weight of any
 * kind: y [T, count], bias [count] of y's type or NULL. */
int cuda_matmul_weight(Device *device, Tensor y, Tensor x, Tensor w, int64_t first, int64_t count,
                       const void *bias, bool accumulate, Error *err);

#endif
