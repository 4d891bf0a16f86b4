#include "language/infill_causal.h"

#include <stdlib.h>
#include <string.h>

#include "language/infill_private.h"
#include "language/kv_cache.h"

/* The rows of a hypothesis: its prefix, then its canvas. */
typedef struct Kept {
    bool taken;
    int request, hypothesis; /* a canvas's */
    int32_t begin;           /* its first row in the cache */
    int count;               /* rows whose keys and values are there */
} Kept;

struct InfillCausal {
    Infill *infill;
    Arena arena;
    Rows rows;
    KvCache cache;
    RowPool pool; /* the rows that are kept; those after them are a batch's */
    bool slots;   /* hypotheses come and go, and are looked for; else kept[h] is hypothesis h's */
    Kept *kept;   /* [kept_count] */
    int kept_count;
    int32_t *tokens; /* [pool.rows]: of each kept row of a canvas, its token */
};

/* ---- Opening. ---- */

/* Memory for `rows` kept rows, sequences of at most `longest`. */
static int take(InfillCausal *c, int hypotheses, int32_t rows, int64_t longest, Error *err) {
    const LanguageModel *m = &c->infill->config.model;
    c->kept = calloc((size_t)hypotheses + 1, sizeof *c->kept);
    c->tokens = calloc((size_t)rows + 1, sizeof *c->tokens);
    c->kept_count = hypotheses;
    if (!c->kept || !c->tokens)
        return error_set(err, "out of memory for %d hypotheses", hypotheses);
    TRY(row_pool_open(&c->pool, rows, hypotheses, err));
    const int64_t limit =
        c->infill->config.batch_tokens > longest ? c->infill->config.batch_tokens : longest;
    const int capacity = (int)(rows < limit ? rows : limit);
    TRY(rows_open(&c->rows, capacity, capacity + 1, err));
    c->rows.first_position = language_first_position(m);
    TRY(arena_open(&c->arena, c->infill->config.device,
                   language_work_bytes(m, capacity) + language_head_bytes(m, capacity), err));
    return kv_cache_open(&c->cache, m, c->infill->config.device, (int64_t)rows + capacity, err);
}

static int64_t spec_rows(const Infill *f, const DecodeSpec *spec) {
    return prefix_length(f, spec->request) + spec->length;
}

static int take_specs(InfillCausal *c, const DecodeSpec *specs, int count, Error *err) {
    int64_t rows = 0, longest = 1;
    for (int h = 0; h < count; h++) {
        const int64_t own = spec_rows(c->infill, &specs[h]);
        if (rows + own > INT32_MAX / 2)
            return error_set(err, "more than %d rows of answers", INT32_MAX / 2);
        rows += own;
        if (own > longest) longest = own;
    }
    TRY(take(c, count, (int32_t)rows, longest, err));
    for (int h = 0, begin = 0; h < count; h++) {
        c->kept[h] = (Kept){.request = specs[h].request, .hypothesis = h, .begin = begin};
        begin += (int)spec_rows(c->infill, &specs[h]);
    }
    return 0;
}

static int open_empty(InfillCausal **causal, Infill *infill, Error *err) {
    *causal = calloc(1, sizeof **causal);
    if (!*causal) return error_set(err, "out of memory");
    (*causal)->infill = infill;
    return 0;
}

static int opened(InfillCausal **causal, int status) {
    if (status == 0) return 0;
    infill_causal_close(*causal);
    *causal = NULL;
    return -1;
}

int infill_causal_open(InfillCausal **causal, Infill *infill, const DecodeSpec *specs, int count,
                       Error *err) {
    TRY(open_empty(causal, infill, err));
    return opened(causal, take_specs(*causal, specs, count, err));
}

int infill_causal_open_slots(InfillCausal **causal, Infill *infill, int hypotheses, int32_t rows,
                             Error *err) {
    TRY(open_empty(causal, infill, err));
    (*causal)->slots = true;
    return opened(causal,
                  take(*causal, hypotheses, rows, language_longest(&infill->config.model), err));
}

void infill_causal_close(InfillCausal *c) {
    if (!c) return;
    kv_cache_close(&c->cache, &c->infill->config.model, c->infill->config.device);
    free(c->kept), free(c->tokens);
    row_pool_close(&c->pool);
    rows_close(&c->rows);
    arena_close(&c->arena);
    free(c);
}

/* ---- Hypotheses that come and go. ---- */

static bool place(InfillCausal *c, const DecodeSpec *spec, int hypothesis) {
    const int64_t rows = spec_rows(c->infill, spec);
    int k = 0;
    while (k < c->kept_count && c->kept[k].taken) k++;
    if (k == c->kept_count || rows > c->pool.rows) return false;
    const int32_t begin = row_pool_take(&c->pool, (int32_t)rows);
    if (begin < 0) return false;
    c->kept[k] =
        (Kept){.taken = true, .request = spec->request, .hypothesis = hypothesis, .begin = begin};
    return true;
}

bool infill_causal_place(InfillCausal *c, const DecodeSpec *specs, int count) {
    for (int h = 0; h < count; h++) {
        if (place(c, &specs[h], h)) continue;
        infill_causal_remove(c, specs[h].request);
        return false;
    }
    return true;
}

void infill_causal_remove(InfillCausal *c, int request) {
    for (int k = 0; k < c->kept_count; k++) {
        if (!c->kept[k].taken || c->kept[k].request != request) continue;
        row_pool_give(&c->pool, c->kept[k].begin);
        c->kept[k].taken = false;
    }
}

static Kept *kept_of(InfillCausal *c, const DecodeCanvas *canvas) {
    Kept *k = c->kept;
    if (!c->slots) return k + canvas->hypothesis;
    while (!k->taken || k->request != canvas->request || k->hypothesis != canvas->hypothesis) k++;
    return k;
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
    const Kept *kept = kept_of(c, canvas);
    const int prefix = prefix_length(c->infill, canvas->request);
    const int32_t *tokens = c->tokens + kept->begin + prefix;
    int same = kept->count < rows - 1 ? kept->count : rows - 1;
    for (int i = 0; prefix + i < same; i++)
        if (tokens[i] != canvas->tokens[i]) same = prefix + i;
    return same;
}

/* The rows of one canvas that are not kept yet. */
static void push_canvas(InfillCausal *c, const DecodeCanvas *canvas, int first, int rows) {
    Rows *r = &c->rows;
    const Kept *kept = kept_of(c, canvas);
    const int q = r->count;
    for (int i = first; i < rows; i++) push_row(c, canvas, i);
    AttentionSpan *span = rows_span(r, q, r->count);
    span->causal = 1;
    span_sees(span, kept->begin, kept->begin + first);
    span_sees(span, c->pool.rows + q, c->pool.rows + r->count);
    const int place = rows - prefix_length(c->infill, canvas->request);
    r->stream[r->picked_count] = canvas->noise;
    r->noise_index[r->picked_count] = (int64_t)place * language_vocab(&c->infill->config.model);
    r->picked[r->picked_count++] = r->count - 1;
}

/* ---- Computing. ---- */

/* Keys and values of a batch's rows to where they are kept. */
static int keep(InfillCausal *c, const RowsTarget *target, int rows, Error *err) {
    const DecodeCanvas *canvas = target->canvas;
    Kept *kept = kept_of(c, canvas);
    const int prefix = prefix_length(c->infill, canvas->request), first = rows - target->count;
    TRY(kv_cache_copy(&c->cache, kept->begin + first, &c->cache, c->pool.rows + target->begin,
                      target->count, &c->infill->config.model, c->infill->config.device, err));
    kept->count = rows;
    if (rows > prefix)
        memcpy(c->tokens + kept->begin + prefix, canvas->tokens,
               (size_t)(rows - prefix) * sizeof *c->tokens);
    return 0;
}

static void fill_proposals(const Infill *f, const RowsTarget *target, Proposal proposal) {
    const DecodeCanvas *canvas = target->canvas;
    const int place = leftmost_masked(f, canvas);
    for (int i = 0; i < canvas->length; i++)
        target->out[i] = i < place ? (Proposal){canvas->tokens[i], 0} : proposal;
}

/* Whether two targets' rows can be proposed by one call. */
static bool same_choice(const RowsTarget *a, const RowsTarget *b) {
    return a->temperature == b->temperature && (a->temperature == 0 || a->seed == b->seed);
}

/* The proposals of the targets [from, to), which choose alike; each has one row of features. */
static int propose(InfillCausal *c, Tensor features, int from, int to, Error *err) {
    const Infill *f = c->infill;
    Rows *r = &c->rows;
    const VocabChoice choice = {.banned = f->config.mask_id,
                                .limit = f->config.vocab_limit,
                                .temperature = r->targets[from].temperature,
                                .seed = r->targets[from].seed,
                                .stream = r->stream + from,
                                .index = r->noise_index + from};
    return language_propose(&f->config.model, f->config.device, r->tokens + from, r->scores + from,
                            tensor_rows(features, from, to - from), &choice, err);
}

static int evaluate_rows(InfillCausal *c, Error *err) {
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
                                      .cache_begin = c->pool.rows}};
    TRY(language_forward(m, &c->arena, &batch, &hidden, NULL, err));
    TRY(language_head(m, &c->arena, hidden, r->picked, r->picked_count, &features, err));
    for (int from = 0, to; from < r->target_count; from = to) {
        to = from + 1;
        while (to < r->target_count && same_choice(&r->targets[from], &r->targets[to])) to++;
        TRY(propose(c, features, from, to, err));
    }
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

static int flush(InfillCausal *c, Error *err) {
    const int status = c->rows.count ? evaluate_rows(c, err) : 0;
    arena_reset(&c->arena, 0);
    rows_clear(&c->rows);
    return status;
}

static int add_batch(InfillCausal *c, const DecodeBatch *batch, Error *err) {
    Infill *f = c->infill;
    Rows *r = &c->rows;
    Proposal *out = batch->out;
    TRY(check_canvases(f, batch->canvases, batch->count, err));
    for (int i = 0; i < batch->count; i++) {
        const DecodeCanvas *canvas = &batch->canvases[i];
        const int rows = prefix_length(f, canvas->request) + leftmost_masked(f, canvas);
        if (rows == 0)
            return error_set(err, "an autoregressive model without a token that begins a text "
                                  "needs a prompt");
        const int first = first_row(c, canvas, rows);
        if (r->count + rows - first > r->capacity) TRY(flush(c, err));
        r->targets[r->target_count++] = (RowsTarget){.begin = r->count,
                                                     .count = rows - first,
                                                     .canvas = canvas,
                                                     .temperature = batch->temperature,
                                                     .seed = batch->seed,
                                                     .out = out};
        push_canvas(c, canvas, first, rows);
        f->counts.canvases++;
        out += canvas->length;
    }
    return 0;
}

int infill_causal_evaluate_all(InfillCausal *c, const DecodeBatch *batches, int count, Error *err) {
    rows_clear(&c->rows);
    for (int b = 0; b < count; b++) TRY(add_batch(c, &batches[b], err));
    return flush(c, err);
}

int infill_causal_evaluate(void *causal, const DecodeCanvas *canvases, int count, float temperature,
                           uint64_t seed, Proposal *out, Error *err) {
    const DecodeBatch batch = {canvases, count, temperature, seed, out};
    return infill_causal_evaluate_all(causal, &batch, 1, err);
}
