/* op_list.h - the operations of ops.h by name, for everything that is one line for each of them:
 * the backends' prototypes and tables (backend.h), and the programs that walk all operations.
 *
 * What an operation takes is declared in ops.h alone. A backend's function has the same type and
 * the same name behind the backend's: cpu_scale_forward.
 */
#ifndef EASYFIRST_KERNELS_OP_LIST_H
#define EASYFIRST_KERNELS_OP_LIST_H

#include "kernels/ops.h"

/* y = f(x), value by value, with one parameter: X(name, type of the parameter, its name).
 *
 * Of these the list makes everything that is the same for all: the checks and the call in ops.c, a
 * CPU's function that shares the values out among threads, the place of its loop NAME_row in
 * CpuKernels, the tests' mirror, and a case of `easyfirst bench ops`. What is left to write is the
 * prototype NAME_forward in ops.h, the loop in kernels/cpu/isa/, the function in kernels/cuda/, and
 * a test. */
#define ELEMENTWISE_LIST(X)               \
    X(activation, Activation, activation) \
    X(scale, float, scale)

/* All operations. */
#define OP_LIST(X)           \
    X(linear_forward)        \
    X(linear_backward)       \
    X(activation_forward)    \
    X(activation_backward)   \
    X(layernorm_forward)     \
    X(layernorm_backward)    \
    X(attention_forward)     \
    X(attention_backward)    \
    X(gather_forward)        \
    X(gather_backward)       \
    X(convert_forward)       \
    X(patches_forward)       \
    X(segment_mean_forward)  \
    X(segment_mean_backward) \
    X(vocab_propose)         \
    X(vocab_logits)          \
    X(vocab_cross_entropy)   \
    X(dropout_forward)       \
    X(scale_forward)         \
    X(adamw_step)            \
    X(square_sum)

#endif
