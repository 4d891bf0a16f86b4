/* lora.h - the product of a LoRA adapter's two matrices, added to a matrix. */
#ifndef EASYFIRST_DATA_CHECKPOINTS_LORA_H
#define EASYFIRST_DATA_CHECKPOINTS_LORA_H

#include <stdint.h>

/* Adds scale B A to values [first, first + count) of a matrix [rows, columns], which begin at
 * `values`, in f32: a is [rank, columns], b [rows, rank]. A value does not depend on how the matrix
 * is divided into calls, nor on the number of threads. */
void lora_merge(float *values, int64_t first, int64_t count, const float *a, const float *b,
                int64_t rank, int64_t columns, float scale);

#endif
