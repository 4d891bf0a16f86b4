#include <stdlib.h>
#include <string.h>

#include "language/infill_private.h"
#include "language/kv_cache.h"

int prefix_open(Infill *f, int slots, int32_t rows, Error *err) {
    int blocks = f->images + 2 + slots, longest = language_longest(&f->config.model);
    f->slot_count = slots;
    f->heads = calloc((size_t)f->images + 2, sizeof *f->heads);
    f->masks = malloc((size_t)longest * sizeof *f->masks);
    f->slots = calloc((size_t)slots + 1, sizeof *f->slots);
    f->pending = calloc((size_t)blocks + 1, sizeof *f->pending);
    if (!f->heads || !f->slots || !f->pending || !f->masks)
        return error_set(err, "out of memory for %d prompts", slots);
    for (int i = 0; i < longest; i++) f->masks[i] = f->config.mask_id;
    return row_pool_open(&f->pool, f->reuse ? rows : 0, blocks, err);
}

static void cache_close(Infill *f) {
    kv_cache_close(&f->cache, &f->config.model, f->config.device);
    free(f->kept);
    f->kept = NULL;
}

void prefix_close(Infill *f) {
    cache_close(f);
    device_free(f->config.device, f->hidden.data);
    row_pool_close(&f->pool);
    free(f->heads), free(f->slots), free(f->pending), free(f->masks);
}

int cache_open(Infill *f, int64_t canvas_rows, Error *err) {
    const LanguageModel *m = &f->config.model;
    Device *device = f->config.device;
    const int64_t kept = f->cache.layers ? row_pool_end(&f->pool) : 0;
    KvCache larger;
    TRY(kv_cache_open(&larger, m, device, f->pool.rows + canvas_rows, err));
    if (kv_cache_copy(&larger, 0, &f->cache, 0, kept, m, device, err)) {
        kv_cache_close(&larger, m, device);
        return -1;
    }
    kv_cache_close(&f->cache, m, device);
    f->cache = larger;
    return 0;
}

/* ---- An approximation: prefixes kept with full attention. ---- */

int infill_keep_prefixes(Infill *f, const DecodeSpec *specs, int count, Error *err) {
    int64_t rows = 0;
    if (f->config.pattern != ATTENTION_FULL)
        return error_set(err, "prefixes are kept with full attention only");
    for (int h = 0; h < count; h++) rows += prefix_length(f, specs[h].request);
    if (rows > INT32_MAX - f->rows.capacity)
        return error_set(err, "%lld rows of prompts, %d at most", (long long)rows,
                         INT32_MAX - f->rows.capacity);
    cache_close(f);
    row_pool_close(&f->pool);
    TRY(row_pool_open(&f->pool, (int32_t)rows, count, err));
    f->kept = calloc((size_t)count + 1, sizeof *f->kept);
    if (!f->kept) return error_set(err, "out of memory for %d hypotheses", count);
    for (int h = 0; h < count; h++)
        f->kept[h] = row_pool_take(&f->pool, prefix_length(f, specs[h].request));
    return cache_open(f, f->rows.capacity, err);
}

int prefix_keep(Infill *f, const DecodeCanvas *canvas, int begin, Error *err) {
    int rows = prefix_length(f, canvas->request);
    return kv_cache_copy(&f->cache, f->kept[canvas->hypothesis], &f->cache, f->pool.rows + begin,
                         rows, &f->config.model, f->config.device, err);
}

/* ---- Placing. ---- */

static void head_give(Infill *f, Head *head) {
    if (head_rows(f, (int)(head - f->heads) - 1)) row_pool_give(&f->pool, head->begin);
    *head = (Head){0};
}

/* Makes the head go that no prompt has been after for the longest time; false: all are in use. */
static bool make_way(Infill *f) {
    Head *oldest = NULL;
    for (int i = 0; i <= f->images; i++) {
        Head *h = &f->heads[i];
        if (h->placed && !h->prompts && (!oldest || h->used < oldest->used)) oldest = h;
    }
    if (!oldest) return false;
    head_give(f, oldest);
    return true;
}

static int32_t take_rows(Infill *f, int rows) {
    int32_t begin;
    while ((begin = row_pool_take(&f->pool, rows)) < 0)
        if (!make_way(f)) return -1;
    return begin;
}

bool place_head(Infill *f, int image) {
    Head *head = &f->heads[image + 1];
    head->used = ++f->clock;
    if (head->placed) return true;
    int32_t begin = take_rows(f, head_rows(f, image));
    if (begin < 0) return false;
    *head = (Head){.placed = true, .begin = begin, .used = f->clock};
    if (head_rows(f, image))
        f->pending[f->pending_count++] = image + 1;
    else
        head->computed = true; /* no <s>, no image */
    return true;
}

static bool place_blocks(Infill *f, int slot) {
    Slot *s = &f->slots[slot];
    Head *head = &f->heads[s->prompt.image + 1];
    int pending = f->pending_count;
    if (!place_head(f, s->prompt.image)) return false;
    head->prompts++; /* it makes no way for its prompt */
    s->begin = take_rows(f, s->prompt.count);
    if (s->begin >= 0) {
        if (s->prompt.count) f->pending[f->pending_count++] = f->images + 1 + slot;
        return true;
    }
    head->prompts--;
    if (f->pending_count > pending) head_give(f, head);
    f->pending_count = pending;
    return false;
}

/* What follows a prompt at most. */
static int longest_answer(const Infill *f, const InfillPrompt *p) {
    int prefix = head_rows(f, p->image) + p->count, fixed = f->config.answer_position;
    if (fixed > 0 && prefix > fixed) return fixed - prefix;
    return language_longest(&f->config.model) - (fixed > 0 ? fixed : prefix) -
           (f->config.model.end >= 0);
}

/* A prompt that leaves no space for an answer becomes empty, so that it neither costs time nor
 * fails the others. */
bool place_slot(Infill *f, const InfillPrompt *prompt, int *slot) {
    int s = 0, longest = longest_answer(f, prompt);
    while (s < f->slot_count && f->slots[s].taken) s++;
    if (s == f->slot_count) return false;
    f->slots[s] = (Slot){.taken = true,
                         .prompt = longest > 0 ? *prompt : (InfillPrompt){.image = -1},
                         .longest = longest,
                         .twin = -1};
    if (f->reuse && !place_blocks(f, s)) {
        f->slots[s] = (Slot){0};
        return false;
    }
    *slot = s;
    return true;
}

/* <mask> in place of image and prompt; in models of LLaMA's kind also of the token that begins a
 * sequence, which in theirs is a part of the prompt. */
static InfillPrompt unconditional(const Infill *f, const InfillPrompt *prompt) {
    const bool all = f->config.model.llama != NULL;
    return (InfillPrompt){.ids = f->masks,
                          .count = head_rows(f, prompt->image) + prompt->count -
                                   (all ? 0 : head_rows(f, -1)),
                          .image = all ? no_head(f) : -1};
}

bool place_twin(Infill *f, int slot) {
    const InfillPrompt twin = unconditional(f, &f->slots[slot].prompt);
    return place_slot(f, &twin, &f->slots[slot].twin);
}

bool infill_place(Infill *f, const InfillPrompt *prompt, int *slot) {
    int pending = f->pending_count;
    if (!place_slot(f, prompt, slot)) return false;
    if (!prompt->guided || place_twin(f, *slot)) return true;
    infill_remove(f, *slot);
    f->pending_count = pending;
    return false;
}

void infill_remove(Infill *f, int slot) {
    Slot *s = &f->slots[slot];
    if (s->twin >= 0) infill_remove(f, s->twin);
    if (f->reuse) {
        Head *head = &f->heads[s->prompt.image + 1];
        if (s->prompt.count) row_pool_give(&f->pool, s->begin);
        if (--head->prompts == 0 && !head->computed) head_give(f, head);
    }
    *s = (Slot){0};
}

void infill_forget_image(Infill *f, int image) {
    Head *head = &f->heads[image + 1];
    if (f->reuse && head->placed && !head->prompts) head_give(f, head);
}

/* ---- Computing. ---- */

static int prefix_rows_of(const Infill *f, int block) {
    return block <= f->images ? head_rows(f, block - 1)
                              : f->slots[block - f->images - 1].prompt.count;
}

static int32_t prefix_begin_of(const Infill *f, int block) {
    return block <= f->images ? f->heads[block].begin : f->slots[block - f->images - 1].begin;
}

static void push_block(Infill *f, int block) {
    Rows *r = &f->rows;
    int slot = block - f->images - 1, q = r->count, n = prefix_rows_of(f, block);
    int32_t begin = prefix_begin_of(f, block);
    AttentionSpan *span = rows_span(r, q, q + n);
    if (block <= f->images) {
        push_head(f, block - 1);
    } else {
        span_sees(span, head_begin(f, slot),
                  head_begin(f, slot) + head_rows(f, f->slots[slot].prompt.image));
        push_prompt(f, slot);
    }
    span_sees(span, begin, begin + n);
}

/* Blocks from pending[i] on that come one after the other in the cache, as many as fit a batch: at
 * least one. Returns the index after them. */
static int push_blocks(Infill *f, int i) {
    int32_t end = prefix_begin_of(f, f->pending[i]);
    do {
        push_block(f, f->pending[i]);
        end += prefix_rows_of(f, f->pending[i]);
        i++;
    } while (i < f->pending_count && prefix_begin_of(f, f->pending[i]) == end &&
             f->rows.count + prefix_rows_of(f, f->pending[i]) <= f->rows.capacity);
    return i;
}

static int compute_pending(Infill *f, Error *err) {
    for (int i = 0; i < f->pending_count;) {
        rows_clear(&f->rows);
        int first = i;
        int64_t begin = prefix_begin_of(f, f->pending[i]);
        i = push_blocks(f, i);
        Tensor hidden;
        int status = run_rows(f, begin, NULL, &hidden, err);
        if (status == 0 && f->hidden.data)
            status = convert_forward(f->config.device, tensor_rows(f->hidden, begin, f->rows.count),
                                     hidden, err);
        arena_reset(&f->arena, 0);
        if (status) return -1;
        f->counts.prefix_rows += f->rows.count;
        for (int b = first; b < i; b++)
            if (f->pending[b] <= f->images) f->heads[f->pending[b]].computed = true;
    }
    return 0;
}

int infill_prefill(Infill *f, Error *err) {
    int status = f->reuse ? compute_pending(f, err) : 0;
    f->pending_count = 0;
    return status;
}

int infill_prefill_rows(const Infill *f, const InfillPrompt *prompt) {
    const int head = head_rows(f, prompt->image), all = head + prompt->count;
    if (!f->reuse) return f->config.keep_hidden ? all : 0;
    return (prompt->guided ? all : 0) + prompt->count +
           (f->heads[prompt->image + 1].placed ? 0 : head);
}
