#include "language/row_pool.h"

#include <stdlib.h>
#include <string.h>

int row_pool_open(RowPool *pool, int32_t rows, int ranges, Error *err) {
    *pool = (RowPool){.rows = rows, .capacity = ranges};
    pool->ranges = calloc((size_t)ranges + 1, sizeof *pool->ranges);
    return pool->ranges ? 0 : error_set(err, "out of memory for %d prompts", ranges);
}

void row_pool_close(RowPool *pool) {
    free(pool->ranges);
    *pool = (RowPool){0};
}

int32_t row_pool_take(RowPool *pool, int32_t rows) {
    int32_t begin = 0;
    int at = 0;
    if (rows < 1) return 0;
    for (; at < pool->count && pool->ranges[at].begin - begin < rows; at++)
        begin = pool->ranges[at].end;
    if (pool->count == pool->capacity || pool->rows - begin < rows) return -1;
    memmove(pool->ranges + at + 1, pool->ranges + at,
            (size_t)(pool->count - at) * sizeof *pool->ranges);
    pool->ranges[at] = (RowRange){begin, begin + rows};
    pool->count++;
    return begin;
}

void row_pool_give(RowPool *pool, int32_t begin) {
    int at = 0;
    while (at < pool->count && pool->ranges[at].begin != begin) at++;
    if (at == pool->count) return;
    pool->count--;
    memmove(pool->ranges + at, pool->ranges + at + 1,
            (size_t)(pool->count - at) * sizeof *pool->ranges);
}

int32_t row_pool_end(const RowPool *pool) {
    return pool->count ? pool->ranges[pool->count - 1].end : 0;
}
