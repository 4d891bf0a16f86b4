#include "tests/parted.h"

#include "tests/test.h"

static int64_t part_bytes(const Parted *p, Tensor t, int part, char **at) {
    const int64_t first = part * p->parts.rows, left = t.shape[0] - first;
    const int64_t row = t.ld * (int64_t)dtype_size(t.dtype);
    *at = (char *)t.data + first * row;
    return (left < p->parts.rows ? left : p->parts.rows) * row;
}

/* A part's memory. */
static void *memory_of(const Parted *p, Tensor both, int part) {
    const size_t apart = part % 2 ? (size_t)p->parts.apart * dtype_size(both.dtype) : 0;
    return (char *)both.data + apart;
}

void parted_leave(Parted *p) {
    char *to;
    if (p->last < 0 || !p->dw.data) return;
    const int64_t bytes = part_bytes(p, p->dw, p->last, &to);
    const float *from = memory_of(p, p->grad.t, p->last);
    for (int64_t i = 0; i < bytes / 4; i++) ((float *)to)[i] += from[i];
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
    if (use != PARTS_LOOKED_UP) memcpy(memory_of(p, p->part.t, part), from, (size_t)bytes);
    return 0;
}

void parted_open(Parted *p, int rows, Tensor w, Tensor dw, bool apart) {
    const int count = (int)((w.shape[0] + rows - 1) / rows);
    *p = (Parted){.w = w, .dw = dw, .last = -1};
    p->parts = (TensorParts){.rows = rows, .count = count, .enter = enter, .user = p};
    if (apart) p->parts.apart = (rows + 1) * w.shape[1];
    p->part = matrix_new(w.dtype, apart ? 2 * rows + 1 : rows, w.shape[1], 0);
    p->grad = matrix_new(DTYPE_F32, apart ? 2 * rows + 1 : rows, w.shape[1], 0);
    memset(p->grad.t.data, 0, tensor_bytes(p->grad.t));
}

void parted_free(Parted *p) {
    matrix_free(&p->part), matrix_free(&p->grad);
}
