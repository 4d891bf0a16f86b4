/* parted.h - a weight that comes in parts (kernels/parts.h), for tests on the CPU. */
#ifndef EASYFIRST_TESTS_PARTED_H
#define EASYFIRST_TESTS_PARTED_H

#include "kernels/parts.h"
#include "tests/matrix.h"

/* Parts come from w, their gradients are added to dw. */
typedef struct Parted {
    TensorParts parts;
    TestMatrix part, grad;
    Tensor w, dw;
    int entered[4]; /* for each PartsUse */
    int last;       /* the part whose gradient is in `grad`, or -1 */
} Parted;

/* `p` must stay where it is. With `apart` odd parts have their own memory. */
void parted_open(Parted *p, int rows, Tensor w, Tensor dw, bool apart);
/* The gradient of the part that was entered last comes to dw. */
void parted_leave(Parted *p);
void parted_free(Parted *p);

#endif
