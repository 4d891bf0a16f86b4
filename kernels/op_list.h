/* op_list.h - X macros of the operations of ops.h, for everything that repeats a line for each: the
 * backends' prototypes and tables (backend.h), and programs that iterate over all operations.
 *
 * An operation's parameters are declared in ops.h alone. A backend's function has the same type,
 * and the same name with the backend's as prefix: cpu_scale_forward.
 */
#ifndef EASYFIRST_KERNELS_OP_LIST_H
#define EASYFIRST_KERNELS_OP_LIST_H

#include "kernels/ops.h"

/* NAME_forward, y = f(x), value by value, with one parameter: E(X, NAME, the parameter's type, the
 * parameter's name). X is only passed on, for lists that contain this one.
 *
 * The list generates what is the same for each: the checks and the call in ops.c, the CPU's
 * function, which divides the values among threads, the entry NAME_row in CpuKernels, the tests'
 * mirror, and the case of `easyfirst bench ops`. Still to be written are the prototype in ops.h,
 * the loop in kernels/cpu/isa/, the function in kernels/cuda/, and a test.
 */
#define ELEMENTWISE_LIST(E, X)               \
    E(X, activation, Activation, activation) \
    E(X, scale, float, scale)

#define ELEMENTWISE_FORWARD(X, name, type, parameter) X(name##_forward)

/* All operations: X(its name). */
#define OP_LIST(X)                           \
    X(linear_forward)                        \
    X(linear_backward)                       \
    ELEMENTWISE_LIST(ELEMENTWISE_FORWARD, X) \
    X(activation_backward)                   \
    X(layernorm_forward)                     \
    X(layernorm_backward)                    \
    X(rmsnorm_forward)                       \
    X(rmsnorm_backward)                      \
    X(rotary_forward)                        \
    X(gated_forward)                         \
    X(gated_backward)                        \
    X(attention_forward)                     \
    X(attention_backward)                    \
    X(gather_forward)                        \
    X(gather_backward)                       \
    X(convert_forward)                       \
    X(patches_forward)                       \
    X(conv2d_forward)                        \
    X(segment_mean_forward)                  \
    X(segment_mean_backward)                 \
    X(vocab_propose)                         \
    X(vocab_logits)                          \
    X(vocab_cross_entropy)                   \
    X(dropout_forward)                       \
    X(adamw_step)                            \
    X(adamw8_step)                           \
    X(square_sum)

/* The type of an operation's function. */
#ifdef __cplusplus
#define OP_TYPE(op) decltype(::op)
#else
#define OP_TYPE(op) __typeof__(op)
#endif

#endif
