#include "kernels/parts.h"

int parts_enter(Tensor w, PartsUse use, int64_t first, Error *err) {
    const TensorParts *p = w.parts;
    if (!p || first % p->rows) return 0;
    if (!p->enter)
        return error_set(err, "a weight's rows are other processes', who do not bring them");
    return p->enter(p->user, p, use, (int)(first / p->rows), err);
}

/* Rows from the parts' memory, which has the type of `memory`. */
static Tensor rows_of(const TensorParts *p, Tensor memory, int64_t first, int64_t count) {
    if (!p) return tensor_rows(memory, first, count);
    Tensor rows = tensor_rows(memory, first % p->rows, count);
    if (first / p->rows % 2)
        rows.data = (char *)rows.data + (size_t)p->apart * dtype_size(memory.dtype);
    return rows;
}

Tensor parts_rows(Tensor w, int64_t first, int64_t count) {
    return rows_of(w.parts, w, first, count);
}

Tensor parts_grad_rows(Tensor w, Tensor dw, int64_t first, int64_t count) {
    return rows_of(w.parts, dw, first, count);
}
