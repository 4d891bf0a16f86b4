/* pack.h - weights on the GPU. Private to kernels/cuda/.
 *
 * A pack is the matrix by rows, as it was, in the type it is multiplied in: cuBLASLt wants nothing
 * else. Only the rows begin at multiples of 16 bytes, which the tensor cores' kernels read at a
 * time, also where the file's do not (588 columns of bf16).
 */
#ifndef EASYFIRST_KERNELS_CUDA_PACK_H
#define EASYFIRST_KERNELS_CUDA_PACK_H

#include "kernels/cuda/products.h"

/* Packed.layout of this backend. Products with results of bf16 take a bias of bf16: the pack has
 * room for it behind the matrix, and linear_forward fills it when it first meets the bias. Values
 * of a bias may therefore not change as long as a pack that it was used with exists; models pack
 * only what is not trained. */
typedef struct PackLayout {
    int64_t ld;          /* elements from row to row */
    void *bias;          /* [rows] bf16; NULL: the pack has none */
    const void *bias_of; /* whose values it holds */
} PackLayout;

static inline PackLayout *pack_layout(Tensor w) {
    return (PackLayout *)w.packed->layout;
}

/* Rows [first, first + count) of a weight [N, K], packed or plain, as a factor of a matmul. */
static inline Operand weight_operand(Tensor w, int64_t first, int64_t count, bool transposed) {
    const struct Packed *p = w.packed;
    const Dtype dtype = p ? p->dtype : w.dtype;
    const int64_t ld = p ? pack_layout(w)->ld : w.ld;
    const char *data = (const char *)(p ? p->data : w.data);
    Operand o = {
        data + (size_t)(first * ld) * dtype_size(dtype), dtype, count, w.shape[1], ld, transposed};
    return o;
}

#endif
