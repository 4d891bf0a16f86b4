#include <stdlib.h>

#include "language/infill_private.h"

enum { ENGINE_ROWS = 1024 }; /* of prompts that an engine predicts lengths for at a time */

/* Memory for predictions about `n` prompts of `total` rows, and for `more` bytes. */
static int arena_begin(Infill *f, const LengthPredictor *length, int64_t total, int n, size_t more,
                       Error *err) {
    Arena *a = &f->lengths;
    const size_t bytes = length_work_bytes(length, (int)total, n) +
                         arena_bytes(DTYPE_F32, n, length->classes) + more;
    if (bytes <= a->size) return 0;
    arena_close(a);
    return arena_open(a, f->config.device, f->config.slots > 0 ? bytes + bytes / 4 : bytes, err);
}

static void arena_end(Infill *f) {
    if (f->config.slots > 0)
        arena_reset(&f->lengths, 0);
    else
        arena_close(&f->lengths);
}

/* Runs the predictor on the prompts of `slots` [n], whose hidden states are contiguous in
 * `hidden`. */
static int predict_lengths(Infill *f, const LengthPredictor *length, Tensor hidden,
                           const int *slots, int n, float *logits, Error *err) {
    int32_t *begin = calloc((size_t)n + 1, sizeof *begin);
    if (!begin) return error_set(err, "out of memory");
    for (int i = 0; i < n; i++) begin[i + 1] = begin[i] + prefix_length(f, slots[i]);
    int64_t classes = length->classes;
    Tensor out;
    int status = arena_take(&f->lengths, &out, DTYPE_F32, n, classes, err);
    if (status == 0) status = length_forward(length, &f->lengths, out, hidden, begin, n, err);
    if (status == 0)
        status = device_download(f->config.device, logits, out.data,
                                 (size_t)(n * classes) * sizeof(float), err);
    free(begin);
    return status;
}

/* The same with the kept hidden states, `total` rows, gathered from the shared blocks. */
static int lengths_of(Infill *f, const LengthPredictor *length, const int *slots, int n,
                      int64_t total, float *logits, Error *err) {
    const InfillConfig *c = &f->config;
    int64_t width = language_block(&c->model)->width;
    Dtype compute = language_params(&c->model)->compute;
    int32_t *rows = malloc((size_t)total * sizeof *rows);
    if (!rows) return error_set(err, "out of memory for %lld rows", (long long)total);
    for (int i = 0, row = 0; i < n; i++) {
        const Slot *s = &f->slots[slots[i]];
        for (int j = 0; j < head_rows(f, s->prompt.image); j++)
            rows[row++] = head_begin(f, slots[i]) + j;
        for (int j = 0; j < s->prompt.count; j++) rows[row++] = s->begin + j;
    }
    Arena *arena = &f->lengths;
    Tensor each, index = {0};
    int status =
        arena_begin(f, length, total, n,
                    arena_bytes(compute, total, width) + arena_bytes(DTYPE_I32, 1, total), err);
    if (status == 0) status = arena_take(arena, &each, compute, total, width, err);
    if (status == 0) status = arena_upload(arena, &index, DTYPE_I32, total, rows, err);
    GatherTerm picked = {f->hidden, index};
    if (status == 0) status = gather_forward(c->device, each, &picked, 1, err);
    if (status == 0) status = predict_lengths(f, length, each, slots, n, logits, err);
    arena_end(f);
    free(rows);
    return status;
}

/* Block-causal with the KV cache; as many prompts at a time as fit a batch, at least one. An engine,
 * which keeps the memory, takes fewer. */
static int lengths_from_cache(Infill *f, const LengthPredictor *length, const int *slots, int n,
                              float *logits, Error *err) {
    int most = f->config.batch_tokens;
    if (f->config.slots > 0 && most > ENGINE_ROWS) most = ENGINE_ROWS;
    for (int i = 0; i < n;) {
        int first = i;
        int64_t total = 0;
        do total += prefix_length(f, slots[i++]);
        while (i < n && total + prefix_length(f, slots[i]) <= most);
        TRY(lengths_of(f, length, slots + first, i - first, total,
                       logits + (int64_t)first * length->classes, err));
    }
    return 0;
}

static int lengths_from_sequences(Infill *f, const LengthPredictor *length, const int *slots, int n,
                                  float *logits, Error *err) {
    for (int i = 0; i < n;) {
        rows_clear(&f->rows);
        int first = i;
        do push_sequence(f, slots[i++], NULL);
        while (i < n && f->rows.count + prefix_length(f, slots[i]) <= f->rows.capacity);
        Tensor hidden;
        int status = run_rows(f, f->pool.rows, NULL, &hidden, err);
        if (status == 0) status = arena_begin(f, length, f->rows.count, i - first, 0, err);
        if (status == 0)
            status = predict_lengths(f, length, hidden, slots + first, i - first,
                                     logits + (int64_t)first * length->classes, err);
        arena_end(f);
        arena_reset(&f->arena, 0);
        if (status) return -1;
        f->counts.prefix_rows += f->rows.count;
    }
    return 0;
}

int infill_lengths_of(Infill *f, const LengthPredictor *length, const int *slots, int count,
                      float *logits, Error *err) {
    if (f->reuse && !f->hidden.data)
        return error_set(err, "lengths were requested, but the hidden states were not kept");
    return f->reuse ? lengths_from_cache(f, length, slots, count, logits, err)
                    : lengths_from_sequences(f, length, slots, count, logits, err);
}

int infill_lengths(Infill *f, const LengthPredictor *length, float *logits, Error *err) {
    const int count = f->config.prompt_count;
    int *slots = calloc((size_t)count + 1, sizeof *slots);
    if (!slots) return error_set(err, "out of memory for %d prompts", count);
    for (int i = 0; i < count; i++) slots[i] = i;
    int status = infill_lengths_of(f, length, slots, count, logits, err);
    free(slots);
    return status;
}
