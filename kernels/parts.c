#include "kernels/parts.h"

int parts_enter(Tensor w, PartsUse use, int64_t first, Error *err) {
    const TensorParts *p = w.parts;
    if (!p || first % p->rows) return 0;
    if (!p->enter)
        return error_set(err, "a weight's rows are other processes', who do not bring them");
    return p->enter(p->user, p, use, (int)(first / p->rows), err);
}

Tensor parts_rows(Tensor w, int64_t first, int64_t count) {
    return tensor_rows(w, w.parts ? first % w.parts->rows : first, count);
}

Tensor parts_grad_rows(Tensor w, Tensor dw, int64_t first, int64_t count) {
    return tensor_rows(dw, w.parts ? first % w.parts->rows : first, count);
}
