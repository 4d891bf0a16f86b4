/* int8.h - weights as 8-bit integers with one scale for each row, on the host.
 *
 * A value is its integer times the scale of its row, the index of the first dimension (an output
 * of a linear layer, an output channel of a convolution, a token of an embedding). Integers are
 * from -127 to 127, 0 is 0, and the scale is the row's largest magnitude / 127, so that a value is
 * changed by at most half a scale. Tensor.scale has the scales.
 */
#ifndef EASYFIRST_KERNELS_INT8_H
#define EASYFIRST_KERNELS_INT8_H

#include "kernels/tensor.h"

/* Quantizes a row of n values and returns its scale; 1 for a row of zeros; NaN, with integers of 0,
 * if a value is not finite. A row whose largest magnitude is below 1e-30 counts as zeros. */
float int8_quantize(int8_t *to, const float *row, int64_t n);

/* Copies values [first, first + count) of a host tensor without gaps, f32, bf16, f16 or i8 with
 * scales, as `dtype`, f32, bf16 or f16; `to` may not overlap. */
void tensor_values(void *to, Dtype dtype, Tensor t, int64_t first, int64_t count);

/* The bytes of a tensor's values and scales. */
size_t tensor_stored_bytes(Tensor t);

#endif
