#include <stdlib.h>
#include <string.h>

#include "language/kv_cache.h"
#include "kernels/int8.h"
#include "language/spread_private.h"

/* ---- Parts. ---- */

/* Where a parameter belongs: a block's number, or one of these. */
enum { IN_FIRST = -1, IN_LAST = -2 };

static int place_of(const Param *p, const LanguageModel *m) {
    const char *slot = (const char *)p->slot, *blocks = (const char *)spread_blocks(m);
    const char *end = blocks + (size_t)language_layers(m) * sizeof(Block);
    if (slot >= blocks && slot < end) return (int)((size_t)(slot - blocks) / sizeof(Block));
    const bool bias = m->xlmr && p->slot == &m->xlmr->vocab_b;
    return p->role == PARAM_VOCABULARY || bias ? IN_LAST : IN_FIRST;
}

/* Stored bytes of each block, and of what the first and the last rank have besides. */
static void weigh(const LanguageModel *m, bool mapped, size_t *blocks, size_t *first,
                  size_t *last) {
    const Params *params = language_params(m);
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        const size_t bytes = p->idle ? 0 : tensor_stored_bytes(p->value);
        const int place = place_of(p, m);
        const bool table = p->role == PARAM_TABLE || p->table_slot;
        if (place >= 0) blocks[place] += bytes;
        if (place == IN_LAST) *last += bytes;
        if ((place == IN_FIRST && !(table && mapped)) || (p->table_slot && !mapped))
            *first += bytes;
    }
}

/* Each block, from the first on, to the rank that has least so far; counts[i] of them are rank i's. */
static void divide(const size_t *blocks, int layers, size_t *bytes, int *counts, int ranks) {
    for (int l = 0; l < layers; l++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (bytes[r] < bytes[least]) least = r;
        bytes[least] += blocks[l];
        counts[least]++;
    }
}

int spread_part(SpreadPart *part, const LanguageModel *m, int number, int ranks, bool mapped,
                size_t first_bytes, Error *err) {
    const int layers = language_layers(m);
    *part = (SpreadPart){.part = number, .ranks = ranks, .end = layers};
    if (ranks == 1) return 0;
    if (ranks > layers)
        return error_set(err, "%d layers cannot be spread over %d processes: start at most %d",
                         layers, ranks, layers);
    size_t *bytes = calloc((size_t)ranks, sizeof *bytes);
    size_t *blocks = calloc((size_t)layers, sizeof *blocks);
    int *counts = calloc((size_t)ranks, sizeof *counts);
    const bool done = bytes && blocks && counts;
    if (done) {
        bytes[0] = first_bytes;
        weigh(m, mapped, blocks, &bytes[0], &bytes[ranks - 1]);
        divide(blocks, layers, bytes, counts, ranks);
        for (int r = 0; r < number; r++) part->first += counts[r];
        part->end = part->first + counts[number];
    }
    free(bytes), free(blocks), free(counts);
    return done ? 0 : error_set(err, "out of memory for %d layers", layers);
}

void spread_leave_out(Params *params, const LanguageModel *m, const SpreadPart *part) {
    const bool first = part->part == 0, last = part->part == part->ranks - 1;
    for (int i = 0; i < params->count && part->ranks > 1; i++) {
        Param *p = &params->items[i];
        const int place = place_of(p, m);
        if (place == IN_LAST && p->table_slot && first) { /* tied: embeddings alone */
            p->role = PARAM_TABLE, p->slot = p->table_slot;
            continue;
        }
        if (place == IN_LAST && last) p->table_slot = NULL;
        p->idle |= place == IN_LAST    ? !last
                   : place == IN_FIRST ? !first
                                       : place < part->first || place >= part->end;
    }
}

/* ---- Opening and closing. ---- */

int spread_open(Spread **spread, Comm *comm, const SpreadPart *part, const LanguageModel *model,
                Device *device, Error *err) {
    Spread *s = *spread = calloc(1, sizeof *s);
    if (!s) return error_set(err, "out of memory");
    *s = (Spread){.comm = comm,
                  .part = *part,
                  .model = *model,
                  .device = device,
                  .here = {part->first, part->end, NULL, NULL},
                  .leader = comm_rank(comm) - part->part};
    s->model.spread = s;
    return 0;
}

static void caches_close(Spread *s) {
    for (int i = 0; i < s->cache_count; i++) kv_cache_close(&s->caches[i], &s->model, s->device);
    free(s->caches);
    s->caches = NULL, s->cache_count = 0;
}

void spread_close(Spread *s) {
    if (!s) return;
    caches_close(s);
    arena_close(&s->arena);
    free(s->body);
    free(s);
}

int spread_first(const Spread *s) {
    return s->part.first;
}

int spread_own(const Spread *s) {
    return s->part.end - s->part.first;
}

bool spread_leads(const Spread *s) {
    return s->part.part == 0;
}

/* ---- Messages. ---- */

int spread_body(Spread *s, size_t bytes, Error *err) {
    if (bytes <= s->body_size) return 0;
    char *grown = realloc(s->body, bytes);
    if (!grown) return error_set(err, "out of memory for a message of %zu bytes", bytes);
    s->body = grown, s->body_size = bytes;
    return 0;
}

int spread_tell(Spread *s, const SpreadMessage *message, Error *err) {
    const int next = spread_rank(s, s->part.part + 1);
    TRY(comm_send(s->comm, message, sizeof *message, next, err));
    return message->bytes ? comm_send(s->comm, s->body, (size_t)message->bytes, next, err) : 0;
}

/* Two arrays as the body. */
static int tell_with(Spread *s, SpreadMessage *message, const void *a, size_t a_bytes,
                     const void *b, size_t b_bytes, Error *err) {
    message->bytes = (int64_t)(a_bytes + b_bytes);
    TRY(spread_body(s, a_bytes + b_bytes, err));
    if (a_bytes) memcpy(s->body, a, a_bytes);
    if (b_bytes) memcpy(s->body + a_bytes, b, b_bytes);
    return spread_tell(s, message, err);
}

/* After a message that was not answered no other can be. */
static int told(Spread *s, int status) {
    s->failed |= status != 0;
    return status;
}

SpreadMessage spread_greeting(const Spread *s) {
    return (SpreadMessage){.call = SPREAD_HELLO,
                           .from = s->part.end,
                           .rows = language_vocab(&s->model),
                           .spans = language_block(&s->model)->width,
                           .cache = language_params(&s->model)->compute};
}

int spread_hello(Spread *s, Error *err) {
    const SpreadMessage message = spread_greeting(s);
    return told(s, spread_tell(s, &message, err));
}

int spread_end(Spread *s, Error *err) {
    if (s->failed) return error_set(err, "the processes of the model have lost each other");
    return spread_tell(s, &(SpreadMessage){.call = SPREAD_END}, err);
}

/* ---- A forward pass. ---- */

typedef struct Pass {
    Spread *spread;
    const XlmrBatch *batch;
} Pass;

static int run_rest(void *user, BlockWork *work, const AttentionPlan *plan, Error *err) {
    const Pass *pass = user;
    Spread *s = pass->spread;
    const size_t rows = (size_t)pass->batch->tokens, bytes = tensor_bytes(work->x);
    SpreadMessage message = {.call = SPREAD_FORWARD,
                             .rows = pass->batch->tokens,
                             .spans = plan->span_count,
                             .cache = plan->cache ? plan->cache->number : 0,
                             .cache_begin = plan->cache_begin};
    TRY(tell_with(s, &message, plan->spans, (size_t)plan->span_count * sizeof *plan->spans,
                  pass->batch->positions, rows * sizeof *pass->batch->positions, err));
    TRY(comm_hand_on(s->comm, work->x.data, bytes, spread_rank(s, 1), err));
    return comm_take_over(s->comm, work->x.data, bytes, spread_last(s), err);
}

static int run_rest_or_fail(void *user, BlockWork *work, const AttentionPlan *plan, Error *err) {
    return told(((const Pass *)user)->spread, run_rest(user, work, plan, err));
}

int spread_forward(Spread *s, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                   const LayerHook *hook, Error *err) {
    Pass pass = {s, batch};
    const BlocksHere here = {s->part.first, s->part.end, run_rest_or_fail, &pass};
    XlmrBatch own = *batch;
    if (hook || batch->plan.hook)
        return error_set(err, "attention cannot be recorded of a model that is spread over several "
                              "processes: start one");
    own.plan.here = &here;
    return s->model.llama ? llama_forward(s->model.llama, arena, &own, hidden, NULL, err)
                          : xlmr_forward(s->model.xlmr, arena, &own, hidden, NULL, err);
}

/* ---- The vocabulary. ---- */

static int tell_features(Spread *s, SpreadMessage *message, Tensor features, const void *a,
                         size_t a_bytes, const void *b, size_t b_bytes, Error *err) {
    message->rows = features.shape[0];
    if (features.ld != features.shape[1])
        return error_set(err, "features with gaps, expected none");
    TRY(tell_with(s, message, a, a_bytes, b, b_bytes, err));
    return comm_hand_on(s->comm, features.data, tensor_bytes(features), spread_last(s), err);
}

int spread_propose(Spread *s, int32_t *tokens, float *scores, Tensor features,
                   const VocabChoice *choice, Error *err) {
    const size_t rows = (size_t)features.shape[0];
    SpreadMessage message = {.call = SPREAD_PROPOSE, .choice = *choice};
    if (!rows) return 0;
    if (tell_features(s, &message, features, choice->stream, rows * sizeof *choice->stream,
                      choice->index, rows * sizeof *choice->index, err) ||
        comm_receive(s->comm, tokens, rows * sizeof *tokens, spread_last(s), err))
        return told(s, -1);
    return told(s, comm_receive(s->comm, scores, rows * sizeof *scores, spread_last(s), err));
}

int spread_logits(Spread *s, float *logits, Tensor features, Error *err) {
    const size_t values = (size_t)features.shape[0] * (size_t)language_vocab(&s->model);
    SpreadMessage message = {.call = SPREAD_LOGITS};
    if (!values) return 0;
    if (tell_features(s, &message, features, NULL, 0, NULL, 0, err)) return told(s, -1);
    return told(s, comm_receive(s->comm, logits, values * sizeof *logits, spread_last(s), err));
}

int spread_losses(Spread *s, float *losses, Tensor features, const int32_t *targets, Error *err) {
    const size_t rows = (size_t)features.shape[0];
    SpreadMessage message = {.call = SPREAD_LOSSES};
    if (!rows) return 0;
    if (tell_features(s, &message, features, targets, rows * sizeof *targets, NULL, 0, err))
        return told(s, -1);
    return told(s, comm_receive(s->comm, losses, rows * sizeof *losses, spread_last(s), err));
}

/* ---- Caches. ---- */

int spread_cache_open(Spread *s, KvCache *cache, Error *err) {
    if (!spread_leads(s)) return 0;
    cache->number = ++s->numbers;
    const SpreadMessage message = {
        .call = SPREAD_CACHE_OPEN, .cache = cache->number, .rows = cache->rows};
    return told(s, spread_tell(s, &message, err));
}

void spread_cache_close(Spread *s, const KvCache *cache) {
    const SpreadMessage message = {.call = SPREAD_CACHE_CLOSE, .cache = cache->number};
    if (spread_leads(s) && !s->failed) told(s, spread_tell(s, &message, NULL));
}

int spread_cache_copy(Spread *s, const KvCache *to, int64_t to_row, const KvCache *from,
                      int64_t from_row, int64_t count, Error *err) {
    const SpreadMessage message = {.call = SPREAD_CACHE_COPY,
                                   .cache = to->number,
                                   .cache_begin = to_row,
                                   .from = from->number,
                                   .from_begin = from_row,
                                   .rows = count};
    return spread_leads(s) ? told(s, spread_tell(s, &message, err)) : 0;
}
