/* spread_serve.c - what the ranks but the first do: they answer its messages. */
#include <stdlib.h>
#include <string.h>

#include "language/kv_cache.h"
#include "language/spread_private.h"

static bool is_last(const Spread *s) {
    return s->part.part == s->part.ranks - 1;
}

/* The arena, empty and of at least this size. */
static int arena_need(Spread *s, size_t bytes, Error *err) {
    arena_reset(&s->arena, 0);
    if (bytes <= s->arena.size) return 0;
    arena_close(&s->arena);
    return arena_open(&s->arena, s->device, bytes, err);
}

/* ---- Caches. ---- */

/* The one of this number; 0: a place for another. */
static KvCache *cache_find(Spread *s, int64_t number) {
    for (int i = 0; i < s->cache_count; i++)
        if (s->caches[i].number == number) return &s->caches[i];
    return NULL;
}

static int cache_of(Spread *s, int64_t number, KvCache **cache, Error *err) {
    *cache = number ? cache_find(s, number) : NULL;
    if (*cache || !number) return 0;
    return error_set(err, "there is no cache %lld", (long long)number);
}

static int open_cache(Spread *s, const SpreadMessage *m, Error *err) {
    KvCache *cache = cache_find(s, 0);
    if (!cache) {
        KvCache *grown = realloc(s->caches, ((size_t)s->cache_count + 1) * sizeof *grown);
        if (!grown) return error_set(err, "out of memory for a cache");
        s->caches = grown;
        cache = &grown[s->cache_count++];
        *cache = (KvCache){0};
    }
    TRY(kv_cache_open(cache, &s->model, s->device, m->rows, err));
    cache->number = (int)m->cache;
    return 0;
}

static int close_cache(Spread *s, const SpreadMessage *m, Error *err) {
    KvCache *cache;
    TRY(cache_of(s, m->cache, &cache, err));
    if (cache) kv_cache_close(cache, &s->model, s->device);
    return 0;
}

static int copy_cache(Spread *s, const SpreadMessage *m, Error *err) {
    KvCache *to, *from;
    TRY(cache_of(s, m->cache, &to, err));
    TRY(cache_of(s, m->from, &from, err));
    if (!to || !from) return error_set(err, "rows of no cache");
    return kv_cache_copy(to, m->cache_begin, from, m->from_begin, m->rows, &s->model, s->device,
                         err);
}

/* ---- Blocks. ---- */

static int set_rotary(Spread *s, AttentionPlan *plan, const int32_t *positions, int64_t rows,
                      Error *err) {
    const LanguageModel *m = &s->model;
    XlmrRows index = {.positions = TENSOR_NONE};
    if (!language_block(m)->rotary) return 0;
    TRY(arena_upload(&s->arena, &index.positions, DTYPE_I32, rows, positions, err));
    if (m->llama) {
        plan->rotary = (Rotary){m->llama->turns, index.positions};
        return 0;
    }
    plan->rotary = xlmr_rotary(m->xlmr, &index, 0);
    plan->local_rotary = xlmr_rotary(m->xlmr, &index, 1);
    return 0;
}

/* The blocks on hidden states from the rank before, which then go to the next one. */
static int run_blocks(Spread *s, BlockWork *work, AttentionPlan *plan, Error *err) {
    const LanguageModel *m = &s->model;
    const BlockConfig *block = language_block(m);
    const int to = is_last(s) ? s->leader : spread_rank(s, s->part.part + 1);
    const size_t bytes = tensor_bytes(work->x);
    TRY(comm_take_over(s->comm, work->x.data, bytes, spread_rank(s, s->part.part - 1), err));
    TRY(block_begin(s->device, block, work, err));
    TRY(blocks_forward(s->device, block, spread_blocks(m), language_layers(m), work, plan, NULL,
                       err));
    return comm_hand_on(s->comm, work->x.data, bytes, to, err);
}

static int forward(Spread *s, const SpreadMessage *message, Error *err) {
    const LanguageModel *m = &s->model;
    const BlockConfig *block = language_block(m);
    const AttentionSpan *spans = (const AttentionSpan *)(void *)s->body;
    AttentionPlan plan = {.spans = spans,
                          .span_count = (int)message->spans,
                          .cache_begin = message->cache_begin,
                          .here = &s->here};
    AttentionSpan *local;
    BlockWork work;
    TRY(arena_need(s, language_work_bytes(m, (int)message->rows), err));
    TRY(cache_of(s, message->cache, &plan.cache, err));
    TRY(block_work_take(&work, block, &s->arena, message->rows, language_params(m)->compute, err));
    TRY(set_rotary(s, &plan, (const int32_t *)(const void *)(spans + message->spans), message->rows,
                   err));
    TRY(block_local_spans(block, spans, plan.span_count, &local, err));
    plan.local_spans = local;
    const int status = run_blocks(s, &work, &plan, err);
    free(local);
    return status;
}

/* ---- The vocabulary, on the last rank. ---- */

/* The features, in an arena with space for `more` bytes. */
static int take_features(Spread *s, int64_t rows, size_t more, Tensor *features, Error *err) {
    const int64_t width = language_block(&s->model)->width;
    const Dtype compute = language_params(&s->model)->compute;
    TRY(arena_need(s, arena_bytes(compute, rows, width) + more, err));
    TRY(arena_take(&s->arena, features, compute, rows, width, err));
    return comm_take_over(s->comm, features->data, tensor_bytes(*features), s->leader, err);
}

static int propose(Spread *s, const SpreadMessage *m, Error *err) {
    const size_t rows = (size_t)m->rows;
    VocabChoice choice = m->choice;
    Tensor features;
    TRY(take_features(s, m->rows, 0, &features, err));
    int32_t *tokens = malloc(rows * sizeof *tokens);
    float *scores = malloc(rows * sizeof *scores);
    choice.stream = (const uint64_t *)(void *)s->body;
    choice.index = (const int64_t *)(const void *)(choice.stream + rows);
    int status = tokens && scores ? 0 : error_set(err, "out of memory for %zu proposals", rows);
    if (status == 0)
        status =
            vocab_propose(s->device, tokens, scores, features, language_vocab_weights(&s->model),
                          language_vocab_bias(&s->model), &choice, err);
    if (status == 0) status = comm_send(s->comm, tokens, rows * sizeof *tokens, s->leader, err);
    if (status == 0) status = comm_send(s->comm, scores, rows * sizeof *scores, s->leader, err);
    free(tokens), free(scores);
    return status;
}

/* Logits, or with targets losses. */
static int evaluate(Spread *s, const SpreadMessage *m, bool losses, Error *err) {
    const int64_t columns = losses ? 1 : language_vocab(&s->model);
    const size_t bytes = (size_t)(m->rows * columns) * sizeof(float);
    const size_t more =
        losses ? language_losses_bytes((int)m->rows) : arena_bytes(DTYPE_F32, m->rows, columns);
    LanguageModel model = s->model;
    Tensor features, y = TENSOR_NONE;
    model.spread = NULL; /* what it has of the vocabulary is here */
    TRY(take_features(s, m->rows, more, &features, err));
    if (!losses) TRY(arena_take(&s->arena, &y, DTYPE_F32, m->rows, columns, err));
    float *host = malloc(bytes);
    if (!host)
        return error_set(err, "out of memory for the scores of %lld rows", (long long)m->rows);
    int status = losses ? language_losses(&model, &s->arena, host, features,
                                          (const int32_t *)(void *)s->body, err)
                        : language_logits(&model, s->device, host, y, features, err);
    if (status == 0) status = comm_send(s->comm, host, bytes, s->leader, err);
    free(host);
    return status;
}

/* ---- Messages. ---- */

/* The rank before has the blocks before these, of the same model, in the same arithmetic. */
static int compare(const Spread *s, const SpreadMessage *m, Error *err) {
    const LanguageModel *l = &s->model;
    if (m->from == s->part.first && m->rows == language_vocab(l) &&
        m->spans == language_block(l)->width && m->cache == language_params(l)->compute &&
        (!is_last(s) || s->part.end == language_layers(l)))
        return 0;
    return error_set(err, "the processes have different models, or different kinds of devices: "
                          "start all with the same");
}

static int receive(Spread *s, SpreadMessage *m, Error *err) {
    const int from = spread_rank(s, s->part.part - 1);
    TRY(comm_receive(s->comm, m, sizeof *m, from, err));
    TRY(spread_body(s, (size_t)m->bytes, err));
    if (m->bytes) TRY(comm_receive(s->comm, s->body, (size_t)m->bytes, from, err));
    return 0;
}

static int answer(Spread *s, const SpreadMessage *m, Error *err) {
    switch ((SpreadCall)m->call) {
    case SPREAD_END:
        return 0;
    case SPREAD_HELLO:
        return compare(s, m, err);
    case SPREAD_FORWARD:
        return forward(s, m, err);
    case SPREAD_PROPOSE:
        return is_last(s) ? propose(s, m, err) : 0;
    case SPREAD_LOGITS:
        return is_last(s) ? evaluate(s, m, false, err) : 0;
    case SPREAD_LOSSES:
        return is_last(s) ? evaluate(s, m, true, err) : 0;
    case SPREAD_CACHE_OPEN:
        return open_cache(s, m, err);
    case SPREAD_CACHE_CLOSE:
        return close_cache(s, m, err);
    case SPREAD_CACHE_COPY:
        return copy_cache(s, m, err);
    }
    return error_set(err, "an unknown message: the processes run different versions");
}

int spread_serve(Spread *s, Error *err) {
    SpreadMessage message, next;
    do {
        TRY(receive(s, &message, err));
        next = message.call == SPREAD_HELLO ? spread_greeting(s) : message;
        if (!is_last(s)) TRY(spread_tell(s, &next, err));
        TRY(answer(s, &message, err));
    } while (message.call != SPREAD_END);
    return 0;
}
