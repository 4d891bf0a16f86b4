#include "language/infill_causal.h"

#include <stdlib.h>
#include <string.h>

#include "language/infill_private.h"

/* The rows of a hypothesis: its prefix, then its canvas. */
typedef struct Kept {
    int32_t begin;   /* its first row in the cache */
    int count;       /* rows whose keys and values are there ... */
    int32_t *tokens; /* [length] ... of which those of the canvas were these tokens' */
} Kept;

struct InfillCausal {
    Infill *infill;
    Arena arena;
    Rows rows;
    KvCache cache;
    void *cache_memory;
    Tensor *layers;
    int64_t kept_rows; /* of all hypotheses; the rows after them are a batch's */
    Kept *kept;        /* [count] */
    int32_t *tokens;   /* memory of their tokens */
};

/* ---- Opening. ---- */

static int cache_take(InfillCausal *c, int64_t rows, Error *err) {
    const LanguageModel *m = &c->infill->config.model;
    const int layers = language_layers(m);
    const int64_t width = 2 * block_key_width(language_block(m));
    const Dtype compute = language_params(m)->compute;
    const size_t bytes = (size_t)(rows * width) * dtype_size(compute);
    c->layers = calloc((size_t)layers, sizeof *c->layers);
    if (!c->layers) return error_set(err, "out of memory for a cache of %d layers", layers);
    TRY(device_alloc(c->infill->config.device, &c->cache_memory, bytes * (size_t)layers, err));
    for (int l = 0; l < layers; l++)
        c->layers[l] = tensor_2d((char *)c->cache_memory + bytes * (size_t)l, compute, rows, width);
    c->cache = (KvCache){.layers = c->layers, .layer_count = layers, .rows = rows};
    return 0;
}

static int take(InfillCausal *c, const DecodeSpec *specs, int count, Error *err) {
    const LanguageModel *m = &c->infill->config.model;
    int64_t tokens = 0, longest = 1;
    c->kept = calloc((size_t)count + 1, sizeof *c->kept);
    if (!c->kept) return error_set(err, "out of memory for %d hypotheses", count);
    for (int h = 0; h < count; h++) {
        const int64_t rows = prefix_length(c->infill, specs[h].request) + specs[h].length;
        if (c->kept_rows + rows > INT32_MAX / 2)
            return error_set(err, "more than %d rows of answers", INT32_MAX / 2);
        c->kept[h].begin = (int32_t)c->kept_rows;
        c->kept_rows += rows, tokens += specs[h].length;
        if (rows > longest) longest = rows;
    }
    c->tokens = calloc((size_t)tokens + 1, sizeof *c->tokens);
    if (!c->tokens) return error_set(err, "out of memory for %lld tokens", (long long)tokens);
    int32_t *at = c->tokens;
    for (int h = 0; h < count; h++) c->kept[h].tokens = at, at += specs[h].length;
    const int64_t limit =
        c->infill->config.batch_tokens > longest ? c->infill->config.batch_tokens : longest;
    const int capacity = (int)(c->kept_rows < limit ? c->kept_rows : limit);
    TRY(rows_open(&c->rows, capacity, capacity + 1, err));
    c->rows.first_position = language_first_position(m);
    TRY(arena_open(&c->arena, c->infill->config.device,
                   language_work_bytes(m, capacity) + language_head_bytes(m, capacity), err));
    return cache_take(c, c->kept_rows + capacity, err);
}

int infill_causal_open(InfillCausal **causal, Infill *infill, const DecodeSpec *specs, int count,
                       Error *err) {
    *causal = NULL;
    InfillCausal *c = calloc(1, sizeof *c);
    if (!c) return error_set(err, "out of memory");
    c->infill = infill;
    if (take(c, specs, count, err)) {
        infill_causal_close(c);
        return -1;
    }
    *causal = c;
    return 0;
}

void infill_causal_close(InfillCausal *c) {
    if (!c) return;
    device_free(c->infill->config.device, c->cache_memory);
    free(c->layers), free(c->kept), free(c->tokens);
    rows_close(&c->rows);
    arena_close(&c->arena);
    free(c);
}

/* ---- Assembling rows. ---- */

static int leftmost_masked(const Infill *f, const DecodeCanvas *canvas) {
    int i = 0;
    while (i < canvas->length && canvas->tokens[i] != f->config.mask_id) i++;
    return i < canvas->length ? i : canvas->length - 1; /* complete: nothing is looked at */
}

/* Row `r` of a canvas's sequence. */
static void push_row(InfillCausal *c, const DecodeCanvas *canvas, int r) {
    const Infill *f = c->infill;
    const InfillPrompt *p = &f->slots[canvas->request].prompt;
    const int32_t begin = f->config.model.begin;
    const int head = head_rows(f, p->image), prefix = head + p->count;
    const int fixed = f->config.answer_position, lead = begin >= 0; /* where it begins */
    const int image = head - f->config.image_rows;                  /* where an image begins */
    if (begin >= 0 && r == 0)
        rows_push(&c->rows, begin, -1, 0);
    else if (r < head && r < image)
        rows_push(&c->rows, f->config.image_lead[r - lead], -1, r);
    else if (r < head)
        rows_push(&c->rows, -1, p->image * f->config.image_rows + r - image, r);
    else if (r < prefix)
        rows_push(&c->rows, p->ids[r - head], -1, r);
    else
        rows_push(&c->rows, canvas->tokens[r - prefix], -1, fixed > 0 ? fixed + r - prefix : r);
}

/* The first row of a canvas that is to be computed: after those that are kept, and at least the last
 * one, which predicts. */
static int first_row(InfillCausal *c, const DecodeCanvas *canvas, int rows) {
    Kept *kept = &c->kept[canvas->hypothesis];
    const int prefix = prefix_length(c->infill, canvas->request);
    int same = kept->count < rows - 1 ? kept->count : rows - 1;
    for (int i = 0; prefix + i < same; i++)
        if (kept->tokens[i] != canvas->tokens[i]) same = prefix + i;
    return same;
}

/* The rows of one canvas that are not kept yet. */
static void push_canvas(InfillCausal *c, const DecodeCanvas *canvas, int first, int rows) {
    Rows *r = &c->rows;
    const Kept *kept = &c->kept[canvas->hypothesis];
    const int q = r->count;
    for (int i = first; i < rows; i++) push_row(c, canvas, i);
    AttentionSpan *span = rows_span(r, q, r->count);
    span->causal = 1;
    span_sees(span, kept->begin, kept->begin + first);
    span_sees(span, c->kept_rows + q, c->kept_rows + r->count);
    const int place = rows - prefix_length(c->infill, canvas->request);
    r->stream[r->picked_count] = canvas->noise;
    r->noise_index[r->picked_count] = (int64_t)place * language_vocab(&c->infill->config.model);
    r->picked[r->picked_count++] = r->count - 1;
}

/* ---- Computing. ---- */

/* Keys and values of a batch's rows to where they are kept. */
static int keep(InfillCausal *c, const RowsTarget *target, int rows, Error *err) {
    const DecodeCanvas *canvas = target->canvas;
    Kept *kept = &c->kept[canvas->hypothesis];
    const int prefix = prefix_length(c->infill, canvas->request), first = rows - target->count;
    for (int l = 0; l < c->cache.layer_count; l++)
        TRY(convert_forward(
            c->infill->config.device, tensor_rows(c->layers[l], kept->begin + first, target->count),
            tensor_rows(c->layers[l], c->kept_rows + target->begin, target->count), err));
    kept->count = rows;
    if (rows > prefix)
        memcpy(kept->tokens, canvas->tokens, (size_t)(rows - prefix) * sizeof *kept->tokens);
    return 0;
}

static void fill_proposals(const Infill *f, const RowsTarget *target, Proposal proposal) {
    const DecodeCanvas *canvas = target->canvas;
    const int place = leftmost_masked(f, canvas);
    for (int i = 0; i < canvas->length; i++)
        target->out[i] = i < place ? (Proposal){canvas->tokens[i], 0} : proposal;
}

static int evaluate_rows(InfillCausal *c, float temperature, uint64_t seed, Error *err) {
    Rows *r = &c->rows;
    Infill *f = c->infill;
    const LanguageModel *m = &f->config.model;
    Tensor hidden, features;
    const XlmrBatch batch = {.tokens = r->count,
                             .ids = r->ids,
                             .image_rows = f->images ? r->image_rows : NULL,
                             .positions = r->positions,
                             .image_tokens = f->config.image_tokens,
                             .plan = {.spans = r->spans,
                                      .span_count = r->span_count,
                                      .cache = &c->cache,
                                      .cache_begin = c->kept_rows}};
    const VocabChoice choice = {.banned = f->config.mask_id,
                                .limit = f->config.vocab_limit,
                                .temperature = temperature,
                                .seed = seed,
                                .stream = r->stream,
                                .index = r->noise_index};
    TRY(language_forward(m, &c->arena, &batch, &hidden, NULL, err));
    TRY(language_head(m, &c->arena, hidden, r->picked, r->picked_count, &features, err));
    TRY(vocab_propose(f->config.device, r->tokens, r->scores, features, language_vocab_weights(m),
                      language_vocab_bias(m), &choice, err));
    for (int t = 0; t < r->target_count; t++) {
        const RowsTarget *target = &r->targets[t];
        const int rows =
            prefix_length(f, target->canvas->request) + leftmost_masked(f, target->canvas);
        TRY(keep(c, target, rows, err));
        fill_proposals(f, target, (Proposal){r->tokens[t], r->scores[t]});
    }
    f->counts.forwards++, f->counts.rows += r->count;
    return 0;
}

static int flush(InfillCausal *c, float temperature, uint64_t seed, Error *err) {
    const int status = c->rows.count ? evaluate_rows(c, temperature, seed, err) : 0;
    arena_reset(&c->arena, 0);
    rows_clear(&c->rows);
    return status;
}

int infill_causal_evaluate(void *causal, const DecodeCanvas *canvases, int count, float temperature,
                           uint64_t seed, Proposal *out, Error *err) {
    InfillCausal *c = causal;
    Infill *f = c->infill;
    Rows *r = &c->rows;
    rows_clear(r);
    TRY(check_canvases(f, canvases, count, err));
    for (int i = 0; i < count; i++) {
        const DecodeCanvas *canvas = &canvases[i];
        const int rows = prefix_length(f, canvas->request) + leftmost_masked(f, canvas);
        if (rows == 0)
            return error_set(err, "an autoregressive model without a token that begins a text "
                                  "needs a prompt");
        const int first = first_row(c, canvas, rows);
        if (r->count + rows - first > r->capacity) TRY(flush(c, temperature, seed, err));
        r->targets[r->target_count++] =
            (RowsTarget){.begin = r->count, .count = rows - first, .canvas = canvas, .out = out};
        push_canvas(c, canvas, first, rows);
        f->counts.canvases++;
        out += canvas->length;
    }
    return flush(c, temperature, seed, err);
}
