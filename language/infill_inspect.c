#include <stdlib.h>

#include "language/infill_private.h"

/* Adds the last canvas as a sequence to inspect, if any of its rows requests a map. The rows that
 * predict a shifted model's tokens are inspected; with block-causal attention the first of them
 * is in the span before the canvas's. */
static void inspector_push(Infill *f, Inspector *inspector, const DecodeCanvas *canvas,
                           const InspectRow *rows) {
    const Rows *r = &f->rows;
    const InfillConfig *c = &f->config;
    int image = f->slots[canvas->request].prompt.image, length = canvas->length;
    bool wanted = false;
    for (int i = 0; i < length; i++) wanted |= rows[i].map || rows[i].layers;
    if (!wanted || image < 0) return;
    const AttentionSpan *span = &r->spans[r->span_count - 1]; /* the last one contains the canvas */
    int32_t head = f->reuse ? f->heads[image + 1].begin : span->range[0].begin;
    int32_t q_begin = r->count - (c->model.end >= 0) - length - c->model.shifted;
    InspectSequence s = {.q_begin = q_begin,
                         .length = length,
                         .span = span,
                         .image = head + head_rows(f, image) - c->image_rows,
                         .rows = rows};
    if (c->model.shifted && c->pattern == ATTENTION_BLOCK_CAUSAL) {
        InspectSequence first = s;
        first.length = 1, first.span = span - 1;
        inspector->sequences[inspector->count++] = first;
        s.q_begin++, s.length--, s.rows++;
    }
    if (s.length) inspector->sequences[inspector->count++] = s;
}

static bool row_needs_logits(const InspectRow *row) {
    return row->alternatives || row->given_count > 0;
}

static int row_take(const Infill *f, const InspectRow *row, int k, const float *logits,
                    Error *err) {
    const InfillConfig *c = &f->config;
    if (row->given_count)
        given_scores_take(row->given_scores, row->given, row->given_count, logits, c->vocab_limit,
                          c->mask_id);
    if (!row->alternatives) return 0;
    return top_k_choose(row->alternatives, k, logits, c->vocab_limit, c->mask_id, err);
}

/* The alternatives and given ids of the selected rows, as many rows at a time as `logits` [rows, V]
 * (on the device) and `host` can hold. Rows that need neither are left out. */
static int inspect_logits(Infill *f, Tensor hidden, const InspectRow *rows, int k, Tensor logits,
                          float *host, Error *err) {
    Rows *r = &f->rows;
    const LanguageModel *m = &f->config.model;
    int64_t vocab = logits.shape[1];
    int32_t *number = r->tokens; /* of each row that is left, among the selected ones */
    int count = 0;
    Tensor features;
    for (int i = 0; i < r->picked_count; i++) {
        if (!row_needs_logits(&rows[i])) continue;
        number[count] = i;
        r->picked[count++] = r->picked[i];
    }
    if (!count) return 0;
    TRY(take_features(f, hidden, r->picked, count, &features, err));
    for (int first = 0; first < count;) {
        int n = count - first;
        if (n > logits.shape[0]) n = (int)logits.shape[0];
        Tensor part = tensor_rows(logits, 0, n);
        TRY(language_logits(m, f->config.device, host, part, tensor_rows(features, first, n), err));
        for (int i = 0; i < n; i++)
            TRY(row_take(f, &rows[number[first + i]], k, host + i * vocab, err));
        first += n;
    }
    return 0;
}

static int inspect_batches(Infill *f, const DecodeCanvas *canvases, int count,
                           const InspectRow *rows, int k, Inspector *inspector, Tensor logits,
                           float *host, Error *err) {
    AttentionHook hook = {inspector_layer, inspector};
    for (int i = 0; i < count;) {
        rows_clear(&f->rows);
        inspector->count = 0;
        do {
            push_evaluation(f, &canvases[i]);
            inspector_push(f, inspector, &canvases[i],
                           rows + f->rows.picked_count - canvases[i].length);
            f->counts.inspections++, i++;
        } while (i < count && f->rows.count + evaluation_rows(f, &canvases[i]) <= f->rows.capacity);
        Tensor hidden;
        int status = run_rows(f, f->pool.rows, inspector->count ? &hook : NULL, &hidden, err);
        if (status == 0 && host) status = inspect_logits(f, hidden, rows, k, logits, host, err);
        f->counts.inspection_forwards++;
        f->counts.inspection_rows += f->rows.count;
        arena_reset(&f->arena, 0);
        if (status) return -1;
        rows += f->rows.picked_count;
    }
    return 0;
}

int infill_inspect(Infill *f, const DecodeCanvas *canvases, int count, const InspectRow *rows,
                   int top_k, Error *err) {
    enum { AT_ONCE = 64 }; /* rows of logits: 64 MB of XLM-R's vocabulary */
    const LanguageModel *m = &f->config.model;
    Inspector inspector;
    Tensor logits = TENSOR_NONE;
    float *host = NULL;
    int64_t all = 0, needed = 0;
    TRY(check_canvases(f, canvases, count, err));
    for (int i = 0; i < count; i++) all += canvases[i].length;
    for (int64_t i = 0; i < all; i++) {
        needed += row_needs_logits(&rows[i]);
        f->repeat |= f->reuse && f->config.model.shifted && (rows[i].map || rows[i].layers);
    }
    int status = inspector_open(&inspector, f->config.device, language_block(m), language_layers(m),
                                f->images ? f->config.image_rows : 0, f->rows.capacity + 2, err);
    if (status == 0 && needed > 0) {
        logits = tensor_2d(NULL, DTYPE_F32, needed < AT_ONCE ? needed : AT_ONCE, language_vocab(m));
        host = malloc(tensor_bytes(logits));
        status =
            host ? device_alloc(f->config.device, &logits.data, tensor_bytes(logits), err)
                 : error_set(err, "out of memory for the scores of %d tokens", language_vocab(m));
    }
    if (status == 0)
        status = inspect_batches(f, canvases, count, rows, top_k, &inspector, logits, host, err);
    f->repeat = false;
    inspector_close(&inspector);
    device_free(f->config.device, logits.data);
    free(host);
    return status;
}
