#include "language/infill_private.h"

#include <stdlib.h>

#include "kernels/names.h"

const char *const attention_names[] = {
    [ATTENTION_FULL] = "full",
    [ATTENTION_BLOCK_CAUSAL] = "block-causal",
    [ATTENTION_CAUSAL] = "causal",
    NULL,
};

const char *attention_name(AttentionPattern pattern) {
    return attention_names[pattern];
}

bool attention_find(const char *name, AttentionPattern *pattern) {
    int value = names_find(attention_names, name);
    if (value >= 0) *pattern = (AttentionPattern)value;
    return value >= 0;
}

int head_rows(const Infill *f, int image) {
    if (image == no_head(f)) return 0;
    const InfillConfig *c = &f->config;
    return (c->model.begin >= 0) + (image >= 0 ? c->image_lead_count + c->image_rows : 0);
}

int prefix_length(const Infill *f, int slot) {
    const InfillPrompt *p = &f->slots[slot].prompt;
    return head_rows(f, p->image) + p->count;
}

/* ---- Assembling rows. ---- */

void push_head(Infill *f, int image) {
    const InfillConfig *c = &f->config;
    int at = 0;
    if (image == no_head(f)) return;
    if (c->model.begin >= 0) rows_push(&f->rows, c->model.begin, -1, at++);
    for (int i = 0; image >= 0 && i < c->image_lead_count; i++)
        rows_push(&f->rows, c->image_lead[i], -1, at++);
    for (int i = 0; image >= 0 && i < c->image_rows; i++)
        rows_push(&f->rows, -1, image * c->image_rows + i, at++);
}

void push_prompt(Infill *f, int slot) {
    const InfillPrompt *p = &f->slots[slot].prompt;
    int before = head_rows(f, p->image);
    for (int i = 0; i < p->count; i++) rows_push(&f->rows, p->ids[i], -1, before + i);
}

static bool canvas_fixed(const Infill *f, const DecodeCanvas *canvas, int i) {
    return canvas->fixed && canvas->fixed[i] != f->config.mask_id;
}

/* The last row of a slot's prefix in the cache, which is not empty. */
static int32_t prefix_last(const Infill *f, int slot) {
    const InfillPrompt *p = &f->slots[slot].prompt;
    return p->count ? f->slots[slot].begin + p->count - 1
                    : head_begin(f, slot) + head_rows(f, p->image) - 1;
}

/* The row that predicts token i of a canvas, which is about to be pushed. */
static int32_t predicting_row(const Infill *f, const DecodeCanvas *canvas, int i) {
    const bool earlier = f->config.model.shifted && prefix_length(f, canvas->request) + i > 0;
    if (earlier && i == 0 && f->reuse) return -1 - prefix_last(f, canvas->request);
    return f->rows.count - earlier;
}

/* The canvas and </s>; the head runs on the rows that predict the canvas's open ones. */
static void push_canvas(Infill *f, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    const LanguageModel *m = &f->config.model;
    int prefix = prefix_length(f, canvas->request);
    int before = f->config.answer_position > 0 ? f->config.answer_position : prefix;
    for (int i = 0; i < canvas->length; i++) {
        if (!canvas_fixed(f, canvas, i)) {
            r->stream[r->picked_count] = canvas->noise;
            r->noise_index[r->picked_count] = (int64_t)i * language_vocab(m);
            r->picked[r->picked_count++] = predicting_row(f, canvas, i);
        }
        rows_push(r, canvas->tokens[i], -1, before + i);
    }
    if (m->end >= 0) rows_push(r, m->end, -1, before + canvas->length);
}

void push_sequence(Infill *f, int slot, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    int begin = r->count;
    int32_t keys = f->pool.rows; /* of the batch's first row; 0 without a cache */
    push_head(f, f->slots[slot].prompt.image);
    int head_end = r->count;
    push_prompt(f, slot);
    int prompt_end = r->count;
    if (canvas) push_canvas(f, canvas);
    int end = r->count;
    if (f->config.pattern != ATTENTION_BLOCK_CAUSAL) {
        AttentionSpan *span = rows_span(r, begin, end);
        span_sees(span, keys + begin, keys + end);
        span->causal = f->config.pattern == ATTENTION_CAUSAL;
        return;
    }
    int ends[3] = {head_end, prompt_end, end};
    for (int b = 0, q = begin; b < 3; q = ends[b++])
        if (ends[b] > q) span_sees(rows_span(r, q, ends[b]), begin, ends[b]);
}

/* Rows of a kept prefix that are evaluated again: with shifted predictions the last one, which
 * predicts the canvas's first token. */
static int repeated_rows(const Infill *f, const DecodeCanvas *canvas) {
    return (f->kept || f->repeat) && f->config.model.shifted &&
           prefix_length(f, canvas->request) > 0;
}

static void push_prefix_end(Infill *f, int slot) {
    const InfillPrompt *p = &f->slots[slot].prompt;
    const int position = prefix_length(f, slot) - 1, rows = f->config.image_rows;
    if (p->count)
        rows_push(&f->rows, p->ids[p->count - 1], -1, position);
    else if (p->image >= 0)
        rows_push(&f->rows, -1, p->image * rows + rows - 1, position);
    else
        rows_push(&f->rows, f->config.model.begin, -1, position);
}

/* A span that sees a slot's blocks in the cache. */
static AttentionSpan *span_after_prefix(Infill *f, int slot, int q_begin) {
    const Slot *s = &f->slots[slot];
    const int32_t head = head_begin(f, slot);
    AttentionSpan *span = rows_span(&f->rows, q_begin, f->rows.count);
    span_sees(span, head, head + head_rows(f, s->prompt.image));
    span_sees(span, s->begin, s->begin + s->prompt.count);
    return span;
}

/* The canvas's rows only, after cached keys and values. */
static void push_cached_canvas(Infill *f, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    const int repeated = repeated_rows(f, canvas);
    int q = r->count;
    AttentionSpan *span;
    if (repeated) push_prefix_end(f, canvas->request);
    if (repeated && f->reuse) span_after_prefix(f, canvas->request, q++);
    push_canvas(f, canvas);
    if (f->kept) {
        int32_t kept = f->kept[canvas->hypothesis];
        span = rows_span(r, q, r->count);
        span_sees(span, kept, kept + prefix_length(f, canvas->request) - repeated);
    } else {
        span = span_after_prefix(f, canvas->request, q);
    }
    span_sees(span, f->pool.rows + q, f->pool.rows + r->count);
}

int evaluation_rows(const Infill *f, const DecodeCanvas *canvas) {
    return (after_cached(f, canvas) ? repeated_rows(f, canvas)
                                    : prefix_length(f, canvas->request)) +
           canvas->length + (f->config.model.end >= 0);
}

void push_evaluation(Infill *f, const DecodeCanvas *canvas) {
    if (after_cached(f, canvas))
        push_cached_canvas(f, canvas);
    else
        push_sequence(f, canvas->request, canvas);
}

/* A guided canvas and its twin. */
static void push_pair(Infill *f, const DecodeCanvas *canvas) {
    const DecodeCanvas twin = canvas_twin(f, canvas);
    int first = f->rows.picked_count;
    push_evaluation(f, canvas);
    push_evaluation(f, &twin);
    rows_pair(&f->rows, first);
}

static int pushed_rows(const Infill *f, const DecodeCanvas *canvas) {
    const DecodeCanvas twin = canvas_twin(f, canvas);
    return evaluation_rows(f, canvas) + (canvas_guided(canvas) ? evaluation_rows(f, &twin) : 0);
}

bool infill_pair_fits(const Infill *f, int request, int length) {
    const DecodeChoice guided = {.guidance = 1};
    const DecodeCanvas canvas = {.request = request, .length = length, .choice = &guided};
    return f->slots[request].twin < 0 || pushed_rows(f, &canvas) <= f->rows.capacity;
}

/* ---- Opening. ---- */

int infill_max_prompt(int longest, int answer_position, int head, int answer) {
    if (answer_position <= 0) return longest - head - answer;
    int left = longest - answer_position - answer;
    return left < 0 ? left : answer_position - head;
}

int infill_longest_answer(const Infill *f, int request) {
    return f->slots[request].longest;
}

static bool any_guided(const InfillConfig *c) {
    for (int i = 0; i < c->prompt_count; i++)
        if (c->prompts[i].guided) return true;
    return false;
}

/* Allocates for batches of sequences of at most `longest` rows, or pairs of them, `all` rows in
 * total. */
static int batch_open(Infill *f, int64_t longest, int64_t all, Error *err) {
    const LanguageModel *m = &f->config.model;
    if (any_guided(&f->config)) longest *= 2;
    int64_t limit = f->config.batch_tokens > longest ? f->config.batch_tokens : longest;
    int capacity = (int)(all < limit ? all : limit);
    rows_close(&f->rows);
    arena_close(&f->arena);
    TRY(rows_open(&f->rows, capacity, 3 * capacity + 3, err));
    f->rows.first_position = language_first_position(m);
    return arena_open(&f->arena, f->config.device,
                      language_work_bytes(m, capacity) + language_head_bytes(m, capacity) +
                          arena_bytes(DTYPE_I32, 1, capacity),
                      err);
}

/* The rows of the prompts' blocks; those of images that no prompt is about are none. *longest
 * becomes the longest sequence of a prompt. */
static int64_t count_rows(const Infill *f, int64_t *longest, int64_t *all) {
    const InfillConfig *c = &f->config;
    int64_t rows = 0;
    *longest = *all = 1;
    for (int p = -1; p < f->images; p++) {
        bool used = false;
        for (int i = 0; i < c->prompt_count; i++) used |= c->prompts[i].image == p;
        /* A prompt without space for an answer becomes one after a lone <s>. */
        if (used || p < 0) rows += head_rows(f, p);
    }
    for (int i = 0; i < c->prompt_count; i++) {
        int64_t n = head_rows(f, c->prompts[i].image) + c->prompts[i].count;
        if (c->prompts[i].guided) rows += n, *all += n;
        rows += c->prompts[i].count;
        *all += n;
        if (n > *longest) *longest = n;
    }
    return rows;
}

/* The prompts of the configuration, heads first: their blocks are one batch where they fit it. */
static int place_prompts(Infill *f, Error *err) {
    const InfillConfig *c = &f->config;
    bool placed = true;
    for (int p = -1; p < f->images && f->reuse; p++) {
        bool used = false;
        for (int i = 0; i < c->prompt_count; i++) used |= c->prompts[i].image == p;
        if (used) placed &= place_head(f, p);
    }
    for (int i = 0; i < c->prompt_count; i++) {
        int slot;
        placed &= place_slot(f, &c->prompts[i], &slot);
    }
    for (int i = 0; i < c->prompt_count && placed; i++)
        if (c->prompts[i].guided) placed &= place_twin(f, i);
    return placed ? 0 : error_set(err, "no space for %d prompts", c->prompt_count);
}

static int open_parts(Infill *f, Error *err) {
    const InfillConfig *c = &f->config;
    int64_t longest, all, rows = count_rows(f, &longest, &all);
    int slots = c->slots > 0 ? c->slots : c->prompt_count;
    if (c->slots > 0 || any_guided(c)) slots *= 2;
    if (c->slots > 0) longest = all = language_longest(&c->model), rows = c->prefix_rows;
    if (rows > INT32_MAX)
        return error_set(err, "%lld rows of prompts: %d at most", (long long)rows, INT32_MAX);
    TRY(prefix_open(f, slots, (int32_t)rows, err));
    TRY(batch_open(f, longest, c->slots > 0 ? INT32_MAX : all, err));
    if (f->reuse) TRY(cache_open(f, c->slots > 0 ? f->rows.capacity : 0, err));
    if (f->reuse && (c->keep_hidden || c->model.shifted)) {
        int64_t width = language_block(&c->model)->width;
        f->hidden = tensor_2d(NULL, language_params(&c->model)->compute, f->pool.rows, width);
        TRY(device_alloc(c->device, &f->hidden.data, tensor_bytes(f->hidden), err));
    }
    TRY(place_prompts(f, err));
    return infill_prefill(f, err);
}

int infill_open(Infill **infill, const InfillConfig *config, Error *err) {
    *infill = NULL;
    Infill *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    if (f->config.batch_tokens < 1) f->config.batch_tokens = 4096;
    f->reuse = config->pattern == ATTENTION_BLOCK_CAUSAL && !config->no_kv_cache;
    f->images = config->image_rows > 0 && tensor_present(config->image_tokens)
                    ? (int)(config->image_tokens.shape[0] / config->image_rows)
                    : 0;
    if (open_parts(f, err)) {
        infill_close(f);
        return -1;
    }
    *infill = f;
    return 0;
}

int infill_reserve(Infill *f, int longest_canvas, int64_t canvas_rows, Error *err) {
    if (f->reuse) { /* to inspect a shifted model's, the row before each canvas, too */
        const bool more = f->config.model.shifted;
        TRY(batch_open(f, longest_canvas + 1 + more, canvas_rows + (more ? canvas_rows / 2 : 0),
                       err));
        return cache_open(f, f->rows.capacity, err);
    }
    int64_t longest = 1;
    for (int i = 0; i < f->slot_count; i++) {
        int most = f->slots[i].longest, canvas = longest_canvas < most ? longest_canvas : most;
        int64_t n = prefix_length(f, i) + canvas + 1;
        if (n > longest) longest = n;
    }
    /* A canvas has at least 2 rows of its own, so there are at most canvas_rows / 2 of them. */
    return batch_open(f, longest, canvas_rows / 2 * longest, err);
}

void infill_close(Infill *f) {
    if (!f) return;
    rows_close(&f->rows);
    arena_close(&f->arena);
    arena_close(&f->lengths);
    prefix_close(f);
    free(f);
}

InfillCounts infill_counts(const Infill *f) {
    return f->counts;
}

int infill_image_rows(const Infill *f, int request) {
    return f->slots[request].prompt.image >= 0 ? f->config.image_rows : 0;
}

int infill_prefix_length(const Infill *f, int request) {
    return prefix_length(f, request);
}

int infill_layers(const Infill *f) {
    return language_layers(&f->config.model);
}

/* ---- Forward passes. ---- */

int run_rows(Infill *f, int64_t cache_begin, const AttentionHook *hook, Tensor *hidden,
             Error *err) {
    Rows *r = &f->rows;
    XlmrBatch batch = {.tokens = r->count,
                       .ids = r->ids,
                       .image_rows = f->images ? r->image_rows : NULL,
                       .positions = r->positions,
                       .image_tokens = f->config.image_tokens,
                       .plan = {.spans = r->spans,
                                .span_count = r->span_count,
                                .cache = f->cache.layers ? &f->cache : NULL,
                                .cache_begin = cache_begin,
                                .hook = hook}};
    return language_forward(&f->config.model, &f->arena, &batch, hidden, NULL, err);
}

int check_canvases(const Infill *f, const DecodeCanvas *canvases, int count, Error *err) {
    for (int i = 0; i < count; i++) {
        const DecodeCanvas *c = &canvases[i];
        if (c->length >= 1 && c->length <= f->slots[c->request].longest) continue;
        return error_set(err,
                         "an answer of %d tokens to request %d, 1 to %d expected (the model reads "
                         "%d)",
                         c->length, c->request + 1, f->slots[c->request].longest,
                         language_longest(&f->config.model));
    }
    return 0;
}

/* Whether the rows of two canvases can be proposed by one call. */
static bool same_choice(const RowsTarget *a, const RowsTarget *b) {
    return a->canvas->choice == b->canvas->choice && a->temperature == b->temperature &&
           (a->temperature == 0 || a->seed == b->seed);
}

/* Takes the proposals of a canvas's picked rows to the places of its open positions. */
static void target_fill(const Infill *f, const RowsTarget *t) {
    for (int i = 0, row = t->first; i < t->canvas->length; i++) {
        if (canvas_fixed(f, t->canvas, i)) continue;
        t->out[i] = (Proposal){f->rows.tokens[row], f->rows.scores[row]};
        if (t->canvas->confidence) t->canvas->confidence[i] = f->rows.confidences[row];
        row += 1 + canvas_guided(t->canvas);
    }
}

/* The proposals of the targets [from, to), which choose alike. */
static int propose_targets(Infill *f, Tensor features, int from, int to, Error *err) {
    Rows *r = &f->rows;
    const RowsTarget *first = &r->targets[from], *last = &r->targets[to - 1];
    int begin = first->first, rows = last->first + last->count - begin;
    if (!rows) return 0;
    VocabChoice choice = {.banned = f->config.mask_id,
                          .limit = f->config.vocab_limit,
                          .temperature = first->temperature,
                          .seed = first->seed,
                          .stream = r->stream + begin,
                          .index = r->noise_index + begin};
    if (first->canvas->choice)
        TRY(infill_choose(f, features, first, begin, rows, err));
    else
        TRY(language_propose(&f->config.model, f->config.device, r->tokens + begin,
                             r->scores + begin, tensor_rows(features, begin, rows), &choice, err));
    for (const RowsTarget *t = first; t <= last; t++) target_fill(f, t);
    return 0;
}

/* Rows of two matrices; only models of LLaMA's kind are shifted, whose head takes them as they
 * are. */
static int take_kept(Infill *f, Tensor hidden, const int32_t *picked, int count, Tensor *features,
                     Error *err) {
    GatherTerm terms[2] = {{hidden, TENSOR_NONE}, {f->hidden, TENSOR_NONE}};
    int32_t *rows = malloc(2 * (size_t)count * sizeof *rows);
    if (!rows) return error_set(err, "out of memory for %d rows", count);
    for (int i = 0; i < count; i++) {
        rows[i] = picked[i] < 0 ? -1 : picked[i];
        rows[count + i] = picked[i] < 0 ? -1 - picked[i] : -1;
    }
    int status = 0;
    for (int t = 0; t < 2 && status == 0; t++)
        status = arena_upload(&f->arena, &terms[t].index, DTYPE_I32, count, rows + t * count, err);
    free(rows);
    if (status) return -1;
    TRY(arena_take(&f->arena, features, hidden.dtype, count, hidden.shape[1], err));
    return gather_forward(f->arena.device, *features, terms, 2, err);
}

int take_features(Infill *f, Tensor hidden, const int32_t *picked, int count, Tensor *features,
                  Error *err) {
    for (int i = 0; i < count; i++)
        if (picked[i] < 0) return take_kept(f, hidden, picked, count, features, err);
    return language_head(&f->config.model, &f->arena, hidden, picked, count, features, err);
}

static int propose(Infill *f, Tensor hidden, Error *err) {
    Rows *r = &f->rows;
    Tensor features;
    if (!r->picked_count) return 0;
    TRY(take_features(f, hidden, r->picked, r->picked_count, &features, err));
    for (int from = 0, to; from < r->target_count; from = to) {
        to = from + 1;
        while (to < r->target_count && same_choice(&r->targets[from], &r->targets[to])) to++;
        TRY(propose_targets(f, features, from, to, err));
    }
    return 0;
}

static int evaluate_rows(Infill *f, Error *err) {
    Tensor hidden;
    int status = run_rows(f, f->pool.rows, NULL, &hidden, err);
    if (status == 0) status = propose(f, hidden, err);
    for (int i = 0; i < f->rows.target_count && f->kept && status == 0; i++) {
        const RowsTarget *t = &f->rows.targets[i];
        if (!t->canvas->after_kept) status = prefix_keep(f, t->canvas, t->begin, err);
    }
    arena_reset(&f->arena, 0);
    f->counts.forwards += status == 0;
    f->counts.rows += status == 0 ? f->rows.count : 0;
    rows_clear(&f->rows);
    return status;
}

int infill_evaluate_all(Infill *f, const DecodeBatch *batches, int count, Error *err) {
    Rows *r = &f->rows;
    rows_clear(r);
    for (int b = 0; b < count; b++) {
        const DecodeBatch *batch = &batches[b];
        Proposal *out = batch->out;
        TRY(check_canvases(f, batch->canvases, batch->count, err));
        for (int i = 0; i < batch->count; i++) {
            const DecodeCanvas *canvas = &batch->canvases[i];
            if (r->count && r->count + pushed_rows(f, canvas) > r->capacity)
                TRY(evaluate_rows(f, err));
            RowsTarget *target = &r->targets[r->target_count++];
            *target = (RowsTarget){.begin = r->count,
                                   .first = r->picked_count,
                                   .canvas = canvas,
                                   .temperature = batch->temperature,
                                   .seed = batch->seed,
                                   .out = out};
            if (canvas_guided(canvas))
                push_pair(f, canvas);
            else
                push_evaluation(f, canvas);
            target->count = r->picked_count - target->first;
            out += canvas->length;
            f->counts.canvases += 1 + canvas_guided(canvas);
        }
    }
    return r->count ? evaluate_rows(f, err) : 0;
}

int infill_evaluate(void *infill, const DecodeCanvas *canvases, int count, float temperature,
                    uint64_t seed, Proposal *out, Error *err) {
    const DecodeBatch batch = {canvases, count, temperature, seed, out};
    return infill_evaluate_all(infill, &batch, 1, err);
}
