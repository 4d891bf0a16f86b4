#include "tests/parted.h"

#include "tests/test.h"

static int64_t part_bytes(const Parted *p, Tensor t, int part, char **at) {
    const int64_t first = part * p->parts.rows, left = t.shape[0] - first;
    const int64_t row = t.ld * (int64_t)dtype_size(t.dtype);
    *at = (char *)t.data + first * row;
    return (left < p->parts.rows ? left : p->parts.rows) * row;
}

void parted_leave(Parted *p) {
    char *to;
    if (p->last < 0 || !p->dw.data) return;
    const int64_t bytes = part_bytes(p, p->dw, p->last, &to);
    for (int64_t i = 0; i < bytes / 4; i++) ((float *)to)[i] += ((float *)p->grad.t.data)[i];
    memset(p->grad.t.data, 0, tensor_bytes(p->grad.t));
    p->last = -1;
}

/* Parts come in order; the memory has nothing else. */
static int enter(void *user, const TensorParts *parts, PartsUse use, int part, Error *err) {
    Parted *p = user;
    char *from;
    (void)err;
    assert_ptr_equal(parts, &p->parts);
    assert_int_equal(part, p->entered[use]++);
    parted_leave(p);
    if (use == PARTS_GRADIENT || use == PARTS_LOOKED_UP) p->last = part;
    memset(p->part.t.data, 0xff, tensor_bytes(p->part.t)); /* NaN */
    const int64_t bytes = part_bytes(p, p->w, part, &from);
    if (use != PARTS_LOOKED_UP) memcpy(p->part.t.data, from, (size_t)bytes);
    return 0;
}

void parted_open(Parted *p, int rows, Tensor w, Tensor dw) {
    const int count = (int)((w.shape[0] + rows - 1) / rows);
    *p = (Parted){.w = w, .dw = dw, .last = -1};
    p->parts = (TensorParts){.rows = rows, .count = count, .enter = enter, .user = p};
    p->part = matrix_new(w.dtype, rows, w.shape[1], 0);
    p->grad = matrix_new(DTYPE_F32, rows, w.shape[1], 0);
    memset(p->grad.t.data, 0, tensor_bytes(p->grad.t));
}

void parted_free(Parted *p) {
    matrix_free(&p->part), matrix_free(&p->grad);
}
