#include "language/infill_rows.h"

#include <stdlib.h>

int rows_open(Rows *r, int capacity, int span_capacity, Error *err) {
    size_t n = (size_t)capacity;
    *r = (Rows){.capacity = capacity, .span_capacity = span_capacity};
    r->ids = calloc(n, sizeof *r->ids);
    r->image_rows = calloc(n, sizeof *r->image_rows);
    r->positions = calloc(n, sizeof *r->positions);
    r->picked = calloc(n, sizeof *r->picked);
    r->stream = calloc(n, sizeof *r->stream);
    r->noise_index = calloc(n, sizeof *r->noise_index);
    r->tokens = calloc(n, sizeof *r->tokens);
    r->scores = calloc(n, sizeof *r->scores);
    r->confidences = calloc(n, sizeof *r->confidences);
    r->spans = calloc((size_t)span_capacity, sizeof *r->spans);
    r->targets = calloc(n + 1, sizeof *r->targets);
    if (r->ids && r->image_rows && r->positions && r->picked && r->stream && r->noise_index &&
        r->tokens && r->scores && r->confidences && r->spans && r->targets)
        return 0;
    return error_set(err, "out of memory for a batch of %d tokens", capacity);
}

void rows_close(Rows *r) {
    free(r->ids), free(r->image_rows), free(r->positions), free(r->picked), free(r->stream);
    free(r->noise_index), free(r->tokens), free(r->scores), free(r->confidences), free(r->spans),
        free(r->targets);
    *r = (Rows){0};
}

void rows_clear(Rows *r) {
    r->count = r->span_count = r->picked_count = r->target_count = 0;
}

void rows_push(Rows *r, int32_t id, int32_t image_row, int position) {
    r->ids[r->count] = id;
    r->image_rows[r->count] = image_row;
    r->positions[r->count] = position + r->first_position;
    r->count++;
}

AttentionSpan *rows_span(Rows *r, int q_begin, int q_end) {
    AttentionSpan *s = &r->spans[r->span_count++];
    *s = (AttentionSpan){.q_begin = q_begin, .q_end = q_end};
    return s;
}

void span_sees(AttentionSpan *s, int64_t begin, int64_t end) {
    if (begin == end) return;
    s->range[s->range_count].begin = (int32_t)begin;
    s->range[s->range_count++].end = (int32_t)end;
}

void rows_pair(Rows *r, int first) {
    int n = (r->picked_count - first) / 2, *second = r->tokens;
    for (int i = 0; i < n; i++) second[i] = r->picked[first + n + i];
    for (int i = n - 1; i >= 0; i--) {
        r->picked[first + 2 * i] = r->picked[first + i];
        r->picked[first + 2 * i + 1] = second[i];
        r->stream[first + 2 * i] = r->stream[first + 2 * i + 1] = r->stream[first + i];
        r->noise_index[first + 2 * i] = r->noise_index[first + 2 * i + 1] =
            r->noise_index[first + i];
    }
}
