#include <stdlib.h>

#include "kernels/parts.h"

size_t parts_gather_bytes(int tokens) {
    return 2 * arena_bytes(DTYPE_I32, 1, tokens);
}

/* The rows of y themselves, for the sum so far, and those of a part: -1 for ids of other parts. */
static int upload(Arena *arena, Tensor index[2], const TensorParts *p, int part, const int32_t *ids,
                  int64_t count, Error *err) {
    int32_t *host = malloc((size_t)(count ? count : 1) * sizeof *host);
    if (!host) return error_set(err, "out of memory for %lld tokens", (long long)count);
    int status = 0;
    for (int k = 0; k < 2 && status == 0; k++) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = ids[i] - part * p->rows;
            host[i] = k == 0 ? (int32_t)i : row >= 0 && row < p->rows ? (int32_t)row : -1;
        }
        status = arena_upload(arena, &index[k], DTYPE_I32, count, host, err);
    }
    free(host);
    return status;
}

int parts_gather(Arena *arena, Tensor y, const GatherTerm *terms, int count, const int32_t *ids,
                 Error *err) {
    enum { MOST_TERMS = 8 }; /* one of them: what the parts before have given */
    const Tensor table = terms[0].table;
    if (count >= MOST_TERMS)
        return error_set(err, "parts_gather: %d terms, expected at most %d", count, MOST_TERMS - 1);
    for (int part = 0; part < table.parts->count; part++) {
        const size_t mark = arena->used;
        const int64_t first = part * table.parts->rows;
        Tensor index[2];
        GatherTerm all[MOST_TERMS];
        int used = 0;
        TRY(parts_enter(table, PARTS_LOOKUP, first, err));
        TRY(upload(arena, index, table.parts, part, ids, y.shape[0], err));
        if (part > 0) all[used++] = (GatherTerm){y, index[0]};
        all[used++] =
            (GatherTerm){parts_rows(table, first, parts_together(table, first)), index[1]};
        for (int i = 1; i < count && part + 1 == table.parts->count; i++) all[used++] = terms[i];
        TRY(gather_forward(arena->device, y, all, used, err));
        arena_reset(arena, mark);
    }
    return 0;
}

int parts_gather_backward(Arena *arena, Tensor table, Tensor dy, const int32_t *ids, Error *err) {
    const Tensor dtable = tensor_grad(table);
    for (int part = 0; part < table.parts->count; part++) {
        const size_t mark = arena->used;
        const int64_t first = part * table.parts->rows;
        const int64_t rows = parts_together(table, first);
        Tensor index[2];
        TRY(parts_enter(table, PARTS_LOOKED_UP, first, err));
        TRY(upload(arena, index, table.parts, part, ids, dy.shape[0], err));
        TRY(gather_backward(arena->device, parts_grad_rows(table, dtable, first, rows), dy,
                            index[1], err));
        arena_reset(arena, mark);
    }
    return 0;
}
