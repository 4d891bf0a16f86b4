#include "language/infill.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/names.h"
#include "language/tokenizer.h"

const char *const attention_names[] = {
    [ATTENTION_FULL] = "full",
    [ATTENTION_BLOCK_CAUSAL] = "block-causal",
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

/* The rows of a batch being assembled; host memory, with capacity for the largest batch. */
typedef struct Rows {
    int count, capacity;
    int32_t *ids, *image_rows, *positions;
    AttentionSpan *spans;
    int span_count, span_capacity;
    int32_t *picked; /* rows that the head runs on */
    int picked_count;
    uint64_t *stream; /* for each selected row: see VocabChoice */
    int64_t *noise_index;
    int32_t *tokens; /* results, for each selected row */
    float *scores;
} Rows;

struct Infill {
    InfillConfig config;
    Arena arena;
    Rows rows;
    bool reuse;
    KvCache cache;
    void *cache_memory;    /* all its layers' matrices */
    Tensor hidden;         /* [prefix_rows, D], final hidden states of the prefix, if kept */
    int64_t prefix_rows;   /* rows of the cache that hold images and prompts */
    int32_t *image_begin;  /* [images + 1]: cache row of each image's block; entry 0 is "none" */
    int32_t *prompt_begin; /* [prompts]: cache row of each prompt's block */
    InfillPrompt *prompts; /* [prompts] */
    int *longest;          /* [prompts]: the longest answer; below 1 if none fits */
    int images;
    InfillCounts counts;
};

/* <s> and the image's rows. */
static int head_rows(const Infill *f, int image) {
    return 1 + (image >= 0 ? f->config.image_rows : 0);
}

static int prefix_length(const Infill *f, int request) {
    const InfillPrompt *p = &f->config.prompts[request];
    return head_rows(f, p->image) + p->count;
}

/* ---- Assembling rows. ---- */

static void rows_clear(Rows *r) {
    r->count = r->span_count = r->picked_count = 0;
}

static void push_row(Rows *r, int32_t id, int32_t image_row, int position) {
    r->ids[r->count] = id;
    r->image_rows[r->count] = image_row;
    r->positions[r->count] = position + XLMR_FIRST_POSITION;
    r->count++;
}

static void push_head(Infill *f, int image) {
    push_row(&f->rows, TOKEN_BOS, -1, 0);
    for (int i = 0; image >= 0 && i < f->config.image_rows; i++)
        push_row(&f->rows, -1, image * f->config.image_rows + i, 1 + i);
}

static void push_prompt(Infill *f, int request) {
    const InfillPrompt *p = &f->config.prompts[request];
    int before = head_rows(f, p->image);
    for (int i = 0; i < p->count; i++) push_row(&f->rows, p->ids[i], -1, before + i);
}

static bool canvas_fixed(const Infill *f, const DecodeCanvas *canvas, int i) {
    return canvas->fixed && canvas->fixed[i] != f->config.mask_id;
}

/* The canvas and </s>; the head runs on the canvas's open rows. */
static void push_canvas(Infill *f, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    int before = f->config.answer_position > 0 ? f->config.answer_position
                                               : prefix_length(f, canvas->request);
    for (int i = 0; i < canvas->length; i++) {
        if (!canvas_fixed(f, canvas, i)) {
            r->stream[r->picked_count] = canvas->noise;
            r->noise_index[r->picked_count] = (int64_t)i * f->config.model->config.vocab;
            r->picked[r->picked_count++] = r->count;
        }
        push_row(r, canvas->tokens[i], -1, before + i);
    }
    push_row(r, TOKEN_EOS, -1, before + canvas->length);
}

static AttentionSpan *push_span(Rows *r, int q_begin, int q_end) {
    AttentionSpan *s = &r->spans[r->span_count++];
    *s = (AttentionSpan){.q_begin = q_begin, .q_end = q_end};
    return s;
}

static void span_sees(AttentionSpan *s, int64_t begin, int64_t end) {
    if (begin == end) return;
    s->range[s->range_count].begin = (int32_t)begin;
    s->range[s->range_count++].end = (int32_t)end;
}

/* ---- Memory. ---- */

static int rows_open(Rows *r, int capacity, int span_capacity, Error *err) {
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
    r->spans = calloc((size_t)span_capacity, sizeof *r->spans);
    if (r->ids && r->image_rows && r->positions && r->picked && r->stream && r->noise_index &&
        r->tokens && r->scores && r->spans)
        return 0;
    return error_set(err, "out of memory for a batch of %d tokens", capacity);
}

static void rows_close(Rows *r) {
    free(r->ids), free(r->image_rows), free(r->positions), free(r->picked), free(r->stream);
    free(r->noise_index), free(r->tokens), free(r->scores), free(r->spans);
    *r = (Rows){0};
}

/* The layout of the cache's rows: "no image" (a lone <s>), the images, the prompts, then the
 * canvases. Images that no prompt uses get no rows. */
static void cache_layout(Infill *f) {
    const InfillConfig *c = &f->config;
    int64_t row = 0;
    for (int p = -1; p < f->images; p++) {
        bool used = false;
        for (int i = 0; i < c->prompt_count; i++) used |= c->prompts[i].image == p;
        f->image_begin[p + 1] = (int32_t)row;
        if (used) row += head_rows(f, p);
    }
    f->image_begin[f->images + 1] = (int32_t)row;
    for (int i = 0; i < c->prompt_count; i++) {
        f->prompt_begin[i] = (int32_t)row;
        row += c->prompts[i].count;
    }
    f->prefix_rows = row;
}

/* A cache of the prefix's rows and `canvas_rows` more; what an earlier one held is kept. */
static int cache_open(Infill *f, int64_t canvas_rows, Error *err) {
    const Xlmr *m = f->config.model;
    Device *device = f->config.device;
    int64_t rows = f->prefix_rows + canvas_rows, width = 2 * (int64_t)m->config.block.width;
    int layers = m->config.layers;
    Dtype compute = m->params->compute;
    size_t bytes = (size_t)(rows * width) * dtype_size(compute);
    Tensor *layer = calloc((size_t)layers, sizeof *layer);
    void *memory = NULL;
    if (!layer) return error_set(err, "out of memory for a cache of %d layers", layers);
    int status = device_alloc(device, &memory, bytes * (size_t)layers, err);
    for (int l = 0; l < layers && status == 0; l++) {
        layer[l] = tensor_2d((char *)memory + bytes * (size_t)l, compute, rows, width);
        if (f->cache.layers)
            status = convert_forward(device, tensor_rows(layer[l], 0, f->prefix_rows),
                                     tensor_rows(f->cache.layers[l], 0, f->prefix_rows), err);
    }
    if (status) {
        device_free(device, memory);
        free(layer);
        return -1;
    }
    device_free(device, f->cache_memory);
    free(f->cache.layers);
    f->cache = (KvCache){.layers = layer, .layer_count = layers, .rows = rows};
    f->cache_memory = memory;
    return 0;
}

int infill_max_prompt(int longest, int answer_position, int head, int answer) {
    if (answer_position <= 0) return longest - head - answer;
    int left = longest - answer_position - answer;
    return left < 0 ? left : answer_position - head;
}

static int longest_answer(const Infill *f, const InfillPrompt *p) {
    int prefix = head_rows(f, p->image) + p->count, fixed = f->config.answer_position;
    if (fixed > 0 && prefix > fixed) return fixed - prefix;
    return xlmr_longest(&f->config.model->config) - (fixed > 0 ? fixed : prefix) - 1;
}

int infill_longest_answer(const Infill *f, int request) {
    return f->longest[request];
}

/* Copies the list of prompts: one that leaves no space for an answer becomes empty, so that it
 * neither costs time nor fails the others. */
static void prompts_take(Infill *f) {
    const InfillConfig *c = &f->config;
    for (int i = 0; i < c->prompt_count; i++) {
        f->longest[i] = longest_answer(f, &c->prompts[i]);
        f->prompts[i] = f->longest[i] > 0 ? c->prompts[i] : (InfillPrompt){.image = -1};
    }
    f->config.prompts = f->prompts;
}

/* Allocates for batches of sequences of at most `longest` rows, `all` rows in total. */
static int batch_open(Infill *f, int64_t longest, int64_t all, Error *err) {
    const Xlmr *m = f->config.model;
    int64_t limit = f->config.batch_tokens > longest ? f->config.batch_tokens : longest;
    int capacity = (int)(all < limit ? all : limit);
    rows_close(&f->rows);
    arena_close(&f->arena);
    TRY(rows_open(&f->rows, capacity, 3 * capacity + 3, err));
    return arena_open(&f->arena, f->config.device,
                      xlmr_work_bytes(m, capacity) + xlmr_head_bytes(m, capacity), err);
}

static int prefill(Infill *f, Error *err);

static int open_parts(Infill *f, Error *err) {
    const InfillConfig *c = &f->config;
    int64_t longest = 1, all = 1;
    prompts_take(f);
    for (int i = 0; i < c->prompt_count; i++) {
        int64_t n = prefix_length(f, i);
        if (n > longest) longest = n;
        all += n;
    }
    TRY(batch_open(f, longest, all, err));
    if (!f->reuse) return 0;
    cache_layout(f);
    TRY(cache_open(f, 0, err));
    if (c->keep_hidden) {
        int64_t width = c->model->config.block.width;
        Dtype compute = c->model->params->compute;
        f->hidden = tensor_2d(NULL, compute, f->prefix_rows, width);
        TRY(device_alloc(c->device, &f->hidden.data, tensor_bytes(f->hidden), err));
    }
    return prefill(f, err);
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
    f->image_begin = calloc((size_t)f->images + 2, sizeof *f->image_begin);
    size_t prompts = (size_t)config->prompt_count + 1;
    f->prompt_begin = calloc(prompts, sizeof *f->prompt_begin);
    f->prompts = calloc(prompts, sizeof *f->prompts);
    f->longest = calloc(prompts, sizeof *f->longest);
    int status = f->image_begin && f->prompt_begin && f->prompts && f->longest
                     ? open_parts(f, err)
                     : error_set(err, "out of memory for %d prompts", config->prompt_count);
    if (status) {
        infill_close(f);
        return -1;
    }
    *infill = f;
    return 0;
}

int infill_reserve(Infill *f, int longest_canvas, int64_t canvas_rows, Error *err) {
    if (f->reuse) {
        TRY(batch_open(f, longest_canvas + 1, canvas_rows, err));
        return cache_open(f, f->rows.capacity, err);
    }
    int64_t longest = 1;
    for (int i = 0; i < f->config.prompt_count; i++) {
        int canvas = longest_canvas < f->longest[i] ? longest_canvas : f->longest[i];
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
    device_free(f->config.device, f->cache_memory);
    device_free(f->config.device, f->hidden.data);
    free(f->cache.layers);
    free(f->image_begin), free(f->prompt_begin), free(f->prompts), free(f->longest);
    free(f);
}

InfillCounts infill_counts(const Infill *f) {
    return f->counts;
}

/* ---- Forward passes. ---- */

/* Runs the assembled rows; *hidden is in the arena, which the caller resets. `hook` may be NULL. */
static int run_rows(Infill *f, int64_t cache_begin, const AttentionHook *hook, Tensor *hidden,
                    Error *err) {
    Rows *r = &f->rows;
    XlmrBatch batch = {.tokens = r->count,
                       .ids = r->ids,
                       .image_rows = f->images ? r->image_rows : NULL,
                       .positions = r->positions,
                       .image_tokens = f->config.image_tokens,
                       .plan = {.spans = r->spans,
                                .span_count = r->span_count,
                                .cache = f->reuse ? &f->cache : NULL,
                                .cache_begin = cache_begin,
                                .hook = hook}};
    return xlmr_forward(f->config.model, &f->arena, &batch, hidden, NULL, err);
}

/* One block of the prefix with block-causal attention: i counts the used images' blocks ("no image"
 * first), then the prompts. */
static int push_prefix_block(Infill *f, int i) {
    Rows *r = &f->rows;
    bool is_head = i <= f->images;
    int image = is_head ? i - 1 : f->config.prompts[i - f->images - 1].image;
    int32_t head_begin = f->image_begin[image + 1], q = r->count;
    if (is_head) {
        if (f->image_begin[i + 1] == head_begin) return 0; /* no prompt uses it */
        push_head(f, image);
        span_sees(push_span(r, q, r->count), head_begin, head_begin + head_rows(f, image));
    } else {
        int request = i - f->images - 1;
        push_prompt(f, request);
        if (r->count == q) return 0;
        AttentionSpan *s = push_span(r, q, r->count);
        span_sees(s, head_begin, head_begin + head_rows(f, image));
        span_sees(s, f->prompt_begin[request], f->prompt_begin[request] + (r->count - q));
    }
    return r->count - q;
}

static int prefix_block_rows(const Infill *f, int i) {
    if (i <= f->images) return f->image_begin[i + 1] - f->image_begin[i];
    return f->config.prompts[i - f->images - 1].count;
}

/* Computes keys and values of all images and prompts into the cache, in batches. The cache's rows
 * are in the order of the blocks, so a batch's rows are consecutive there. */
static int prefill(Infill *f, Error *err) {
    int blocks = 1 + f->images + f->config.prompt_count;
    int64_t done = 0;
    for (int i = 0; i < blocks;) {
        rows_clear(&f->rows);
        do push_prefix_block(f, i++);
        while (i < blocks && f->rows.count + prefix_block_rows(f, i) <= f->rows.capacity);
        if (!f->rows.count) continue;
        Tensor hidden;
        int status = run_rows(f, done, NULL, &hidden, err);
        if (status == 0 && f->hidden.data)
            status = convert_forward(f->config.device, tensor_rows(f->hidden, done, f->rows.count),
                                     hidden, err);
        arena_reset(&f->arena, 0);
        if (status) return -1;
        done += f->rows.count;
    }
    f->counts.prefix_rows += done;
    return 0;
}

/* A whole sequence: one span with full attention, or, block-causal without the KV cache, one for
 * each block. */
static void push_sequence(Infill *f, int request, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    int begin = r->count;
    push_head(f, f->config.prompts[request].image);
    int head_end = r->count;
    push_prompt(f, request);
    int prompt_end = r->count;
    if (canvas) push_canvas(f, canvas);
    int end = r->count;
    if (f->config.pattern == ATTENTION_FULL) {
        span_sees(push_span(r, begin, end), begin, end);
        return;
    }
    int ends[3] = {head_end, prompt_end, end};
    for (int b = 0, q = begin; b < 3; q = ends[b++])
        if (ends[b] > q) span_sees(push_span(r, q, ends[b]), begin, ends[b]);
}

/* The canvas's rows only, after cached keys and values. */
static void push_cached_canvas(Infill *f, const DecodeCanvas *canvas) {
    Rows *r = &f->rows;
    const InfillPrompt *p = &f->config.prompts[canvas->request];
    int q = r->count;
    push_canvas(f, canvas);
    int32_t head = f->image_begin[p->image + 1], prompt = f->prompt_begin[canvas->request];
    AttentionSpan *s = push_span(r, q, r->count);
    span_sees(s, head, head + head_rows(f, p->image));
    span_sees(s, prompt, prompt + p->count);
    span_sees(s, f->prefix_rows + q, f->prefix_rows + r->count);
}

static int canvas_rows(const Infill *f, const DecodeCanvas *canvas) {
    return (f->reuse ? 0 : prefix_length(f, canvas->request)) + canvas->length + 1;
}

static void push_evaluation(Infill *f, const DecodeCanvas *canvas) {
    if (f->reuse)
        push_cached_canvas(f, canvas);
    else
        push_sequence(f, canvas->request, canvas);
}

/* The proposals of the picked rows, into the places of the canvases' open positions. */
static int propose(Infill *f, Tensor hidden, const DecodeCanvas *canvases, int count,
                   float temperature, uint64_t seed, Proposal *out, Error *err) {
    Rows *r = &f->rows;
    const Xlmr *m = f->config.model;
    Tensor features;
    TRY(xlmr_head(m, &f->arena, hidden, r->picked, r->picked_count, &features, err));
    VocabChoice choice = {.banned = f->config.mask_id,
                          .limit = f->config.vocab_limit,
                          .temperature = temperature,
                          .seed = seed,
                          .stream = r->stream,
                          .index = r->noise_index};
    TRY(vocab_propose(f->config.device, r->tokens, r->scores, features, m->vocab_w, m->vocab_b,
                      &choice, err));
    for (int c = 0, picked = 0; c < count; c++) {
        for (int i = 0; i < canvases[c].length; i++) {
            if (canvas_fixed(f, &canvases[c], i)) continue;
            out[i] = (Proposal){r->tokens[picked], r->scores[picked]};
            picked++;
        }
        out += canvases[c].length;
    }
    return 0;
}

/* Each canvas must fit after its own prompt. */
static int check_canvases(const Infill *f, const DecodeCanvas *canvases, int count, Error *err) {
    for (int i = 0; i < count; i++) {
        const DecodeCanvas *c = &canvases[i];
        if (c->length >= 1 && c->length <= f->longest[c->request]) continue;
        return error_set(err,
                         "an answer of %d tokens to request %d, 1 to %d expected (the model reads "
                         "%d)",
                         c->length, c->request + 1, f->longest[c->request],
                         xlmr_longest(&f->config.model->config));
    }
    return 0;
}

int infill_evaluate(void *infill, const DecodeCanvas *canvases, int count, float temperature,
                    uint64_t seed, Proposal *out, Error *err) {
    Infill *f = infill;
    TRY(check_canvases(f, canvases, count, err));
    for (int i = 0; i < count;) {
        rows_clear(&f->rows);
        int first = i;
        do push_evaluation(f, &canvases[i++]);
        while (i < count && f->rows.count + canvas_rows(f, &canvases[i]) <= f->rows.capacity);
        f->counts.canvases += i - first;
        Tensor hidden;
        int status = run_rows(f, f->prefix_rows, NULL, &hidden, err);
        if (status == 0)
            status = propose(f, hidden, &canvases[first], i - first, temperature, seed, out, err);
        arena_reset(&f->arena, 0);
        if (status) return -1;
        for (int c = first; c < i; c++) out += canvases[c].length;
        f->counts.forwards++;
        f->counts.rows += f->rows.count;
    }
    return 0;
}

/* ---- Inspecting. ---- */

int infill_image_rows(const Infill *f, int request) {
    return head_rows(f, f->config.prompts[request].image) - 1;
}

int infill_layers(const Infill *f) {
    return f->config.model->config.layers;
}

/* Adds the last canvas as a sequence to inspect, if any of its rows requests a map. */
static void inspector_push(Infill *f, Inspector *inspector, const DecodeCanvas *canvas,
                           const InspectRow *rows) {
    const Rows *r = &f->rows;
    int image = f->config.prompts[canvas->request].image;
    bool wanted = false;
    for (int i = 0; i < canvas->length; i++) wanted |= rows[i].map || rows[i].layers;
    if (!wanted || image < 0) return;
    const AttentionSpan *span = &r->spans[r->span_count - 1]; /* the last one contains the canvas */
    int32_t head = f->reuse ? f->image_begin[image + 1] : span->range[0].begin;
    inspector->sequences[inspector->count++] =
        (InspectSequence){.q_begin = r->picked[r->picked_count - canvas->length],
                          .length = canvas->length,
                          .span = span,
                          .image = head + 1,
                          .rows = rows};
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
    const Xlmr *m = f->config.model;
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
    TRY(xlmr_head(m, &f->arena, hidden, r->picked, count, &features, err));
    for (int first = 0; first < count;) {
        int n = count - first;
        if (n > logits.shape[0]) n = (int)logits.shape[0];
        Tensor part = tensor_rows(logits, 0, n);
        TRY(vocab_logits(f->config.device, part, tensor_rows(features, first, n), m->vocab_w,
                         m->vocab_b, err));
        TRY(device_download(f->config.device, host, part.data, tensor_bytes(part), err));
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
        } while (i < count && f->rows.count + canvas_rows(f, &canvases[i]) <= f->rows.capacity);
        Tensor hidden;
        int status = run_rows(f, f->prefix_rows, inspector->count ? &hook : NULL, &hidden, err);
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
    const XlmrConfig *m = &f->config.model->config;
    Inspector inspector;
    Tensor logits = TENSOR_NONE;
    float *host = NULL;
    int64_t all = 0, needed = 0;
    TRY(check_canvases(f, canvases, count, err));
    for (int i = 0; i < count; i++) all += canvases[i].length;
    for (int64_t i = 0; i < all; i++) needed += row_needs_logits(&rows[i]);
    int status =
        inspector_open(&inspector, f->config.device, &m->block, m->layers,
                       f->images ? f->config.image_rows : 0, f->rows.capacity / 2 + 1, err);
    if (status == 0 && needed > 0) {
        logits = tensor_2d(NULL, DTYPE_F32, needed < AT_ONCE ? needed : AT_ONCE, m->vocab);
        host = malloc(tensor_bytes(logits));
        status = host ? device_alloc(f->config.device, &logits.data, tensor_bytes(logits), err)
                      : error_set(err, "out of memory for the scores of %d tokens", m->vocab);
    }
    if (status == 0)
        status = inspect_batches(f, canvases, count, rows, top_k, &inspector, logits, host, err);
    inspector_close(&inspector);
    device_free(f->config.device, logits.data);
    free(host);
    return status;
}

/* ---- Length. ---- */

/* Runs the predictor on prompts [first, end), whose hidden states are contiguous in `hidden`. */
static int predict_lengths(Infill *f, const LengthPredictor *length, Tensor hidden, int first,
                           int end, float *logits, Error *err) {
    int n = end - first;
    Arena arena = {0};
    int32_t *begin = calloc((size_t)n + 1, sizeof *begin);
    if (!begin) return error_set(err, "out of memory");
    for (int i = 0; i < n; i++) begin[i + 1] = begin[i] + prefix_length(f, first + i);
    int64_t classes = length->classes;
    int status = arena_open(
        &arena, f->config.device,
        length_work_bytes(length, begin[n], n) + arena_bytes(DTYPE_F32, n, classes), err);
    Tensor out;
    if (status == 0) status = arena_take(&arena, &out, DTYPE_F32, n, classes, err);
    if (status == 0) status = length_forward(length, &arena, out, hidden, begin, n, err);
    if (status == 0)
        status = device_download(f->config.device, logits + first * classes, out.data,
                                 (size_t)(n * classes) * sizeof(float), err);
    arena_close(&arena);
    free(begin);
    return status;
}

/* The kept hidden states of prompts [first, end), `total` rows, gathered from the shared blocks. */
static int lengths_of(Infill *f, const LengthPredictor *length, int first, int end, int64_t total,
                      float *logits, Error *err) {
    const InfillConfig *c = &f->config;
    int64_t width = c->model->config.block.width;
    Dtype compute = c->model->params->compute;
    int32_t *rows = malloc((size_t)total * sizeof *rows);
    if (!rows) return error_set(err, "out of memory for %lld rows", (long long)total);
    for (int i = first, n = 0; i < end; i++) {
        const InfillPrompt *p = &c->prompts[i];
        for (int j = 0; j < head_rows(f, p->image); j++)
            rows[n++] = f->image_begin[p->image + 1] + j;
        for (int j = 0; j < p->count; j++) rows[n++] = f->prompt_begin[i] + j;
    }
    Arena arena = {0};
    Tensor each, index = {0};
    int status =
        arena_open(&arena, c->device,
                   arena_bytes(compute, total, width) + arena_bytes(DTYPE_I32, 1, total), err);
    if (status == 0) status = arena_take(&arena, &each, compute, total, width, err);
    if (status == 0) status = arena_upload(&arena, &index, DTYPE_I32, total, rows, err);
    GatherTerm picked = {f->hidden, index};
    if (status == 0) status = gather_forward(c->device, each, &picked, 1, err);
    if (status == 0) status = predict_lengths(f, length, each, first, end, logits, err);
    arena_close(&arena);
    free(rows);
    return status;
}

/* Block-causal with the KV cache; as many prompts at a time as fit a batch, at least one. */
static int lengths_from_cache(Infill *f, const LengthPredictor *length, float *logits, Error *err) {
    int n = f->config.prompt_count;
    for (int i = 0; i < n;) {
        int first = i;
        int64_t total = 0;
        do total += prefix_length(f, i++);
        while (i < n && total + prefix_length(f, i) <= f->config.batch_tokens);
        TRY(lengths_of(f, length, first, i, total, logits, err));
    }
    return 0;
}

int infill_lengths(Infill *f, const LengthPredictor *length, float *logits, Error *err) {
    if (f->reuse && !f->hidden.data)
        return error_set(err, "lengths were requested, but the hidden states were not kept");
    if (f->reuse) return lengths_from_cache(f, length, logits, err);
    int n = f->config.prompt_count;
    for (int i = 0; i < n;) {
        rows_clear(&f->rows);
        int first = i;
        do push_sequence(f, i++, NULL);
        while (i < n && f->rows.count + prefix_length(f, i) <= f->rows.capacity);
        Tensor hidden;
        int status = run_rows(f, 0, NULL, &hidden, err);
        if (status == 0) status = predict_lengths(f, length, hidden, first, i, logits, err);
        arena_reset(&f->arena, 0);
        if (status) return -1;
        f->counts.prefix_rows += f->rows.count;
    }
    return 0;
}
