#include "data/checkpoints/lora.h"

/* Values [first, first + count) of a row of B A, times scale, are added to w. */
static void row_merge(float *w, const float *a, const float *b, int64_t rank, int64_t columns,
                      int64_t first, int64_t count, float scale) {
    enum { TILE = 256 };
    for (int64_t at = 0; at < count; at += TILE) {
        int64_t n = count - at < TILE ? count - at : TILE;
        float sum[TILE] = {0};
        for (int64_t r = 0; r < rank; r++)
            for (int64_t i = 0; i < n; i++) sum[i] += b[r] * a[r * columns + first + at + i];
        for (int64_t i = 0; i < n; i++) w[at + i] += scale * sum[i];
    }
}

void lora_merge(float *values, int64_t first, int64_t count, const float *a, const float *b,
                int64_t rank, int64_t columns, float scale) {
    const int64_t top = first / columns, bottom = (first + count + columns - 1) / columns;
#pragma omp parallel for schedule(static)
    for (int64_t row = top; row < bottom; row++) {
        int64_t begin = row * columns, end = begin + columns;
        if (begin < first) begin = first;
        if (end > first + count) end = first + count;
        row_merge(values + (begin - first), a, b + row * rank, rank, columns, begin - row * columns,
                  end - begin, scale);
    }
}
