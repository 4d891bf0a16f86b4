#include "projector/perplexity.h"

#include <stdlib.h>

#include "language/language_train.h"

/* Rows of windows that wait to be evaluated, and which of them predict. */
typedef struct Waiting {
    int32_t *ids, *positions, *rows, *targets; /* [capacity] */
    float *weights, *losses;
    AttentionSpan *spans;
    int count, span_count, target_count;
} Waiting;

struct PerplexityRun {
    const Multimodal *model;
    int longest, capacity;
    Arena arena;
    Waiting waiting;
    Ids ids; /* of a text */
    Perplexity sums;
};

static const TrainRun forward_only = {.backward = false};

static int take(PerplexityRun *r, Error *err) {
    const size_t n = (size_t)r->capacity;
    Waiting *w = &r->waiting;
    w->ids = calloc(n, sizeof *w->ids), w->positions = calloc(n, sizeof *w->positions);
    w->rows = calloc(n, sizeof *w->rows), w->targets = calloc(n, sizeof *w->targets);
    w->weights = calloc(n, sizeof *w->weights), w->losses = calloc(n, sizeof *w->losses);
    w->spans = calloc(n, sizeof *w->spans);
    if (!w->ids || !w->positions || !w->rows || !w->targets || !w->weights || !w->losses ||
        !w->spans)
        return error_set(err, "out of memory for %d rows", r->capacity);
    for (size_t i = 0; i < n; i++) w->weights[i] = 1;
    return arena_open(
        &r->arena, r->model->device,
        language_loss_bytes(&r->model->language, r->capacity, r->capacity, &forward_only, false),
        err);
}

int perplexity_open(PerplexityRun **run, const Multimodal *m, int batch_tokens, Error *err) {
    *run = NULL;
    if (!language_present(&m->language) || !m->tokenizer || m->attention != ATTENTION_CAUSAL)
        return error_set(err,
                         "perplexity is of autoregressive models, with causal attention, and this "
                         "one's is %s",
                         language_present(&m->language) ? attention_name(m->attention) : "none");
    PerplexityRun *r = calloc(1, sizeof *r);
    if (!r) return error_set(err, "out of memory");
    r->model = m, r->longest = language_longest(&m->language);
    r->capacity = batch_tokens > 0 ? batch_tokens : 4096;
    if (r->capacity < r->longest) r->capacity = r->longest;
    if (take(r, err)) {
        perplexity_close(r);
        return -1;
    }
    *run = r;
    return 0;
}

void perplexity_close(PerplexityRun *r) {
    if (!r) return;
    Waiting *w = &r->waiting;
    free(w->ids), free(w->positions), free(w->rows), free(w->targets), free(w->weights);
    free(w->losses), free(w->spans);
    ids_free(&r->ids);
    arena_close(&r->arena);
    free(r);
}

static int flush(PerplexityRun *r, Error *err) {
    Waiting *w = &r->waiting;
    const XlmrBatch batch = {.tokens = w->count,
                             .ids = w->ids,
                             .positions = w->positions,
                             .image_tokens = TENSOR_NONE,
                             .plan = {.spans = w->spans, .span_count = w->span_count}};
    const XlmrTargets targets = {
        .count = w->target_count, .rows = w->rows, .ids = w->targets, .weights = w->weights};
    if (w->target_count)
        TRY(language_loss(&r->model->language, &r->arena, &batch, &targets, &forward_only,
                          w->losses, TENSOR_NONE, err));
    for (int i = 0; i < w->target_count; i++) r->sums.nats += (double)w->losses[i];
    r->sums.tokens += w->target_count;
    w->count = w->span_count = w->target_count = 0;
    return 0;
}

/* The rows [first, first + rows) of a sequence; those from `fresh` on are predicted. */
static int add_window(PerplexityRun *r, const int32_t *ids, int64_t first, int rows, int64_t fresh,
                      Error *err) {
    Waiting *w = &r->waiting;
    const int position = language_first_position(&r->model->language);
    if (w->count + rows > r->capacity) TRY(flush(r, err));
    const int begin = w->count;
    for (int i = 0; i < rows; i++) {
        if (first + i >= fresh) {
            w->rows[w->target_count] = w->count - 1;
            w->targets[w->target_count++] = ids[first + i];
        }
        w->ids[w->count] = ids[first + i], w->positions[w->count++] = position + i;
    }
    w->spans[w->span_count++] = (AttentionSpan){.q_begin = begin,
                                                .q_end = w->count,
                                                .range_count = 1,
                                                .range = {{begin, w->count}},
                                                .causal = 1};
    r->sums.windows++;
    return 0;
}

int perplexity_add(PerplexityRun *r, const char *text, size_t size, Error *err) {
    const int32_t begin = r->model->language.begin;
    r->ids.count = 0;
    if (begin >= 0) TRY(ids_append(&r->ids, &begin, 1, err));
    TRY(tokenizer_encode(r->model->tokenizer, text, size, &r->ids, err));
    const int64_t count = (int64_t)r->ids.count, step = r->longest / 2 > 0 ? r->longest / 2 : 1;
    for (int64_t first = 0, fresh = 1; fresh < count; first += step) {
        const int rows = (int)(count - first < r->longest ? count - first : r->longest);
        TRY(add_window(r, r->ids.ids, first, rows, fresh, err));
        fresh = first + rows;
    }
    r->sums.unseen += begin < 0 && count > 0;
    r->sums.texts++, r->sums.bytes += (int64_t)size;
    return 0;
}

int perplexity_sums(PerplexityRun *r, Perplexity *sums, Error *err) {
    TRY(flush(r, err));
    *sums = r->sums;
    return 0;
}
