/* infill_rows.h - the rows of a batch being assembled, for the files that implement infill.h.
 */
#ifndef EASYFIRST_LANGUAGE_INFILL_ROWS_H
#define EASYFIRST_LANGUAGE_INFILL_ROWS_H

#include "kernels/block.h"
#include "language/decode.h"

/* Where the proposals of a canvas go, and how they are chosen. */
typedef struct RowsTarget {
    const DecodeCanvas *canvas;
    int begin;        /* its first row, or its sequence's */
    int first, count; /* of the picked rows, which are its open positions */
    float temperature;
    uint64_t seed;
    Proposal *out; /* [canvas->length] */
} RowsTarget;

/* Host memory, with capacity for the largest batch. */
typedef struct Rows {
    int count, capacity;
    int32_t *ids, *image_rows, *positions;
    AttentionSpan *spans;
    int span_count, span_capacity;
    int32_t *picked; /* rows that the head runs on; -1 - r: row r of the kept hidden states */
    int picked_count;
    uint64_t *stream; /* for each selected row: see VocabChoice */
    int64_t *noise_index;
    int32_t *tokens; /* results, for each selected row */
    float *scores, *confidences;
    RowsTarget *targets; /* a canvas has a row at least */
    int target_count;
    int first_position; /* the number of position 0 to the model */
} Rows;

int rows_open(Rows *rows, int capacity, int span_capacity, Error *err);
void rows_close(Rows *rows);
void rows_clear(Rows *rows);

/* A row at a position from 0: a token, or, with id -1, a row of the image tokens. */
void rows_push(Rows *rows, int32_t id, int32_t image_row, int position);

/* Of the picked rows from `first` on, the i-th of the first half and the i-th of the second one
 * become neighbors. Both halves have the same streams and indices of noise. Uses `tokens`. */
void rows_pair(Rows *rows, int first);

/* A span of queries, and a range of keys that it attends to, which may be empty. */
AttentionSpan *rows_span(Rows *rows, int q_begin, int q_end);
void span_sees(AttentionSpan *span, int64_t begin, int64_t end);

#endif
