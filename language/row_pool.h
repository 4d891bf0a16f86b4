/* row_pool.h - which rows of a matrix of fixed size are in use: ranges are taken and given back.
 */
#ifndef EASYFIRST_LANGUAGE_ROW_POOL_H
#define EASYFIRST_LANGUAGE_ROW_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct RowRange {
    int32_t begin, end;
} RowRange;

typedef struct RowPool {
    RowRange *ranges; /* [capacity], the first `count` in use, sorted; none is empty */
    int count, capacity;
    int32_t rows;
} RowPool;

/* For at most `ranges` ranges at a time. */
int row_pool_open(RowPool *pool, int32_t rows, int ranges, Error *err);
void row_pool_close(RowPool *pool);

/* The lowest `rows` free rows in succession: the first of them; -1: there are none. No rows are
 * always free, at 0. */
int32_t row_pool_take(RowPool *pool, int32_t rows);

/* Gives back what was taken there; nothing if no range begins there. */
void row_pool_give(RowPool *pool, int32_t begin);

/* The end of the last range; 0 if all is free. */
int32_t row_pool_end(const RowPool *pool);

#endif
