/* packing.c - see packing.h. Order of rows, positions and attention are those of inference
 * (language/infill.c).
 *
 * A copy without a masked token is left out: it has no loss and no gradient, and no other block
 * sees it. So is a prompt whose copies are all left out, and an image whose prompts are. A batch
 * can therefore be without rows.
 */
#include "projector/packing.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"

/* The noise of one turn. */
typedef struct TurnNoise {
    const bool *masked; /* [copies * answer_count] */
    NoiseDraw draw;
    bool used[NOISE_COPIES]; /* copies that have a masked token */
} TurnNoise;

typedef struct Packer {
    const PackingConfig *config;
    TrainBatch *batch;
    int copies;
    double sequences;
    TurnNoise *noise; /* of all turns of all items, in order */
    bool *masked;     /* memory of them */
} Packer;

/* ---- Sizes. ---- */

static int head_rows(const PackingConfig *c, const Example *e) {
    return (c->language.begin >= 0) + (e->image ? c->image_lead_count + c->image_rows : 0);
}

static int clamp(int64_t n) {
    return n > INT_MAX ? INT_MAX : (int)n;
}

int packing_rows(const PackingConfig *c, const Example *e) {
    int copies = noise_copies(&c->noise);
    bool shared = c->pattern == ATTENTION_BLOCK_CAUSAL && !c->lengths;
    int64_t head = head_rows(c, e), rows = shared ? head : 0;
    for (int k = 0; k < e->count; k++) {
        int64_t prompt = e->turns[k].prompt_count, answer = e->turns[k].answer_count;
        if (c->lengths)
            rows += head + prompt;
        else if (shared)
            rows += prompt + copies * answer;
        else
            rows += copies * (head + prompt + answer);
    }
    return clamp(rows);
}

int packing_targets(const PackingConfig *c, const Example *e) {
    /* Each token is masked in one of two complementary copies. */
    bool once = c->noise.objective != OBJECTIVE_RDM;
    int64_t tokens = 0;
    if (c->lengths) return 0;
    for (int k = 0; k < e->count; k++) tokens += e->turns[k].answer_count;
    return clamp(once ? tokens : noise_copies(&c->noise) * tokens);
}

/* ---- Rows and spans. ---- */

static void push_row(const Packer *p, int32_t id, int32_t image_row, int position) {
    TrainBatch *b = p->batch;
    b->ids[b->tokens] = id;
    b->image_rows[b->tokens] = image_row;
    b->positions[b->tokens] = language_first_position(&p->config->language) + position;
    b->tokens++;
}

/* <s> and, if `image` is not -1, image_lead and the rows of the image. */
static void push_head(const Packer *p, int image) {
    const PackingConfig *c = p->config;
    int at = 0;
    if (c->language.begin >= 0) push_row(p, c->language.begin, -1, at++);
    for (int i = 0; image >= 0 && i < c->image_lead_count; i++)
        push_row(p, c->image_lead[i], -1, at++);
    for (int i = 0; image >= 0 && i < c->image_rows; i++)
        push_row(p, -1, image * c->image_rows + i, at++);
}

static void push_prompt(const Packer *p, const ExampleTurn *turn, int before) {
    for (int i = 0; i < turn->prompt_count; i++) push_row(p, turn->prompt[i], -1, before + i);
}

static bool autoregressive(const PackingConfig *c) {
    return c->noise.objective == OBJECTIVE_AR;
}

static void push_target(const Packer *p, int row, int32_t id, double weight, double share) {
    TrainBatch *b = p->batch;
    b->rows[b->targets] = row;
    b->target_ids[b->targets] = id;
    b->weights[b->targets] = (float)(weight / share);
    if (b->smoothing_weights)
        b->smoothing_weights[b->targets] = (float)noise_smoothing(&p->config->noise, weight);
    b->targets++;
}

/* A copy of the answer, masked, and its targets. `before`: rows before it, of which `last` is the
 * row of the last one in the batch. */
static void push_copy(const Packer *p, const ExampleTurn *turn, const TurnNoise *noise, int copy,
                      int before, int last) {
    const PackingConfig *c = p->config;
    const int count = turn->answer_count, begin = p->batch->tokens;
    const double weight = noise->draw.weight[copy];
    const int fixed = c->answer_position, first = fixed > 0 ? fixed : before;
    const bool alone = autoregressive(c) && before == 0; /* nothing predicts the first token */
    const double share = (double)(count - alone) * p->copies * p->sequences;
    for (int i = 0; i < count; i++) {
        const bool masked = noise->masked[copy * count + i];
        int row = begin + i;
        if (c->language.shifted && before + i > 0) row = i ? row - 1 : last;
        if (masked && !(alone && i == 0)) push_target(p, row, turn->answer[i], weight, share);
        push_row(p, masked && !autoregressive(c) ? c->mask_id : turn->answer[i], -1, first + i);
    }
}

/* The rows from `begin` on as a block, which sees itself and what span_sees adds before that. */
static AttentionSpan *push_span(TrainBatch *b, int begin) {
    AttentionSpan *s = &b->spans[b->span_count++];
    *s = (AttentionSpan){.q_begin = begin, .q_end = b->tokens};
    return s;
}

static void span_sees(AttentionSpan *s, int begin, int end) {
    if (begin == end) return;
    s->range[s->range_count].begin = begin;
    s->range[s->range_count++].end = end;
}

/* ---- Units. ---- */

/* Full and causal attention: a sequence for each copy. */
static void push_sequences(const Packer *p, const Example *e, const TurnNoise *noise, int image) {
    TrainBatch *b = p->batch;
    int head = head_rows(p->config, e);
    for (int k = 0; k < e->count; k++)
        for (int c = 0; c < p->copies; c++) {
            if (!noise[k].used[c]) continue;
            int begin = b->tokens;
            push_head(p, image);
            push_prompt(p, &e->turns[k], head);
            push_copy(p, &e->turns[k], &noise[k], c, head + e->turns[k].prompt_count,
                      b->tokens - 1);
            AttentionSpan *span = push_span(b, begin);
            span_sees(span, begin, b->tokens);
            span->causal = p->config->pattern == ATTENTION_CAUSAL;
        }
}

/* Block attention: a tree of image, prompts and copies. */
static void push_blocks(const Packer *p, const Example *e, const TurnNoise *noise, int image) {
    TrainBatch *b = p->batch;
    int head = b->tokens, head_count = head_rows(p->config, e), head_end = head + head_count;
    push_head(p, image);
    if (head_end > head) span_sees(push_span(b, head), head, head_end);
    for (int k = 0; k < e->count; k++) {
        const ExampleTurn *turn = &e->turns[k];
        bool used = false;
        for (int c = 0; c < p->copies; c++) used |= noise[k].used[c];
        if (!used) continue;
        int prompt = b->tokens, prompt_end = prompt + turn->prompt_count;
        push_prompt(p, turn, head_count);
        if (prompt_end > prompt) {
            AttentionSpan *s = push_span(b, prompt);
            span_sees(s, head, head_end), span_sees(s, prompt, prompt_end);
        }
        for (int c = 0; c < p->copies; c++) {
            if (!noise[k].used[c]) continue;
            int copy = b->tokens;
            push_copy(p, turn, &noise[k], c, head_count + turn->prompt_count,
                      turn->prompt_count ? prompt_end - 1 : head_end - 1);
            AttentionSpan *s = push_span(b, copy);
            span_sees(s, head, head_end), span_sees(s, prompt, prompt_end);
            span_sees(s, copy, b->tokens);
        }
    }
}

/* The stage `length`: the predictor reads the hidden states of <s>, image and prompt end to end, so
 * each prompt has its own head with either pattern. */
static void push_prompts(const Packer *p, const Example *e, int image) {
    const PackingConfig *config = p->config;
    TrainBatch *b = p->batch;
    int head = head_rows(config, e);
    for (int k = 0; k < e->count; k++) {
        const ExampleTurn *turn = &e->turns[k];
        int begin = b->tokens, length = turn->answer_count - 1; /* without </s>; class 0: one */
        push_head(p, image);
        if (config->pattern == ATTENTION_BLOCK_CAUSAL)
            span_sees(push_span(b, begin), begin, begin + head);
        int block = config->pattern == ATTENTION_BLOCK_CAUSAL ? begin + head : begin;
        push_prompt(p, turn, head);
        if (b->tokens > block) span_sees(push_span(b, block), begin, b->tokens);
        if (length < 1) length = 1;
        if (length > config->classes) length = config->classes;
        b->classes[b->prompts++] = length - 1;
        b->prompt_begin[b->prompts] = b->tokens;
    }
}

static bool any_used(const TurnNoise *noise, int turns) {
    for (int k = 0; k < turns; k++)
        for (int c = 0; c < NOISE_COPIES; c++)
            if (noise[k].used[c]) return true;
    return false;
}

static size_t feature_bytes(const PackingConfig *c) {
    return (size_t)c->image_rows * (size_t)c->feature_width * dtype_size(c->feature_dtype);
}

/* Notes what is known of an image; returns the place of its pixels. */
static int push_features(const Packer *p, const PackingItem *item, int image) {
    TrainBatch *b = p->batch;
    const size_t bytes = feature_bytes(p->config);
    int at = 0;
    for (int i = 0; i < image; i++) at += !b->known[i];
    b->known[image] = item->features != NULL;
    memcpy(b->keys[image], item->key, TRAIN_KEY);
    if (item->features) memcpy((char *)b->features + (size_t)image * bytes, item->features, bytes);
    return at;
}

static void push_item(const Packer *p, const PackingItem *item, const TurnNoise *noise) {
    const Example *e = item->example;
    TrainBatch *b = p->batch;
    int image = -1;
    if (!p->config->lengths && !any_used(noise, e->count)) return;
    if (e->image) {
        size_t size = 3 * (size_t)p->config->image_size * (size_t)p->config->image_size;
        image = b->images++;
        int at = b->known ? push_features(p, item, image) : image;
        if (item->pixels)
            memcpy(b->pixels + (size_t)at * size, item->pixels, size * sizeof *b->pixels);
    }
    if (p->config->lengths)
        push_prompts(p, e, image);
    else if (p->config->pattern == ATTENTION_BLOCK_CAUSAL)
        push_blocks(p, e, noise, image);
    else
        push_sequences(p, e, noise, image);
}

/* ---- Noise and memory. ---- */

/* Whether nothing predicts a turn's first token. */
static bool alone(const PackingConfig *c, const Example *e, int turn) {
    return autoregressive(c) && head_rows(c, e) + e->turns[turn].prompt_count == 0;
}

static int draw_noise(Packer *p, const PackingItem *items, int count, Error *err) {
    const PackingConfig *c = p->config;
    size_t turns = 0, tokens = 0;
    for (int i = 0; i < count; i++) {
        const Example *e = items[i].example;
        turns += (size_t)e->count;
        for (int k = 0; k < e->count; k++) tokens += (size_t)e->turns[k].answer_count;
    }
    p->noise = calloc(turns + 1, sizeof *p->noise);
    p->masked = calloc(tokens * (size_t)p->copies + 1, sizeof *p->masked);
    if (!p->noise || !p->masked)
        return error_set(err, "out of memory for the noise of %zu tokens", tokens);
    if (c->lengths) return 0;
    TurnNoise *noise = p->noise;
    bool *masked = p->masked;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < items[i].example->count; k++, noise++) {
            const Example *e = items[i].example;
            int n = e->turns[k].answer_count;
            noise_draw(&c->noise, c->seed, random_stream(items[i].stream, (uint64_t)k, 0, 0), n,
                       masked, &noise->draw);
            noise->masked = masked;
            for (int copy = 0; copy < p->copies; copy++)
                for (int t = 0; t < n; t++)
                    noise->used[copy] |= masked[copy * n + t] && !(t == 0 && alone(c, e, k));
            masked += p->copies * n;
        }
    return 0;
}

static int check_config(const PackingConfig *c, double sequences, Error *err) {
    const NoiseConfig *n = &c->noise;
    if (!(sequences >= 1))
        return error_set(err, "a step of %g sequences, expected at least 1", sequences);
    if (c->lengths && c->classes < 1)
        return error_set(err, "a length predictor of %d classes, expected at least 1", c->classes);
    if (c->lengths) return 0;
    if (autoregressive(c) && !(c->language.shifted && c->pattern == ATTENTION_CAUSAL))
        return error_set(err, "the autoregressive objective needs causal attention and predictions "
                              "shifted by one");
    if (!autoregressive(c) && c->mask_id < 0)
        return error_set(err, "the model's tokenizer has no mask token");
    if (!autoregressive(c) && c->pattern == ATTENTION_CAUSAL)
        return error_set(err, "masked diffusion needs full or block-causal attention, not causal");
    if (n->objective == OBJECTIVE_RDM && n->timesteps < 1)
        return error_set(err, "%d timesteps, expected at least 1", n->timesteps);
    if (n->objective == OBJECTIVE_LLADA && !(n->eps >= 0 && n->eps < 1))
        return error_set(err, "eps is %g, expected 0 or more and less than 1", (double)n->eps);
    if (!(n->label_smoothing >= 0 && n->label_smoothing < 1))
        return error_set(err, "label smoothing of %g, expected 0 or more and less than 1",
                         (double)n->label_smoothing);
    return 0;
}

static int check_item(const PackingConfig *c, const PackingItem *item, int i, Error *err) {
    const Example *e = item->example;
    if (c->feature_dtype != DTYPE_NONE && e->image && !item->key)
        return error_set(err, "example %d of a batch has an image without a key", i + 1);
    if (e->image != (item->pixels != NULL) && !(e->image && item->features))
        return error_set(err, "example %d of a batch is %s an image, but its pixels are %s", i + 1,
                         e->image ? "about" : "without", item->pixels ? "there" : "missing");
    if (e->image && (c->image_rows < 1 || c->image_size < 1))
        return error_set(err,
                         "example %d of a batch has an image, but images have %d rows of %d "
                         "pixels a side: has the model a vision tower?",
                         i + 1, c->image_rows, c->image_size);
    for (int k = 0; k < e->count; k++)
        if (e->turns[k].prompt_count < 0 || e->turns[k].answer_count < 1)
            return error_set(err,
                             "turn %d of example %d of a batch has a prompt of %d tokens and an "
                             "answer of %d, expected at least 0 and 1",
                             k + 1, i + 1, e->turns[k].prompt_count, e->turns[k].answer_count);
    return 0;
}

/* Allocates the largest batch that these items can make. */
static int batch_take(TrainBatch *b, const PackingConfig *c, const PackingItem *items, int count,
                      Error *err) {
    int64_t rows = 0, targets = 0, images = 0, turns = 0;
    for (int i = 0; i < count; i++) {
        const Example *e = items[i].example;
        TRY(check_item(c, &items[i], i, err));
        rows += packing_rows(c, e);
        targets += packing_targets(c, e);
        images += e->image;
        turns += e->count;
    }
    if (rows >= INT_MAX || images * c->image_rows >= INT_MAX)
        return error_set(err, "a batch of %lld tokens and %lld images is too large: fewer at once",
                         (long long)rows, (long long)images);
    size_t n = (size_t)rows + 1, t = (size_t)targets + 1;
    size_t pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
    size_t spans = (size_t)(count + (1 + noise_copies(&c->noise)) * turns) + 1;
    b->ids = calloc(n, sizeof *b->ids);
    b->image_rows = calloc(n, sizeof *b->image_rows);
    b->positions = calloc(n, sizeof *b->positions);
    b->spans = calloc(spans, sizeof *b->spans);
    b->rows = calloc(t, sizeof *b->rows);
    b->target_ids = calloc(t, sizeof *b->target_ids);
    b->weights = calloc(t, sizeof *b->weights);
    bool ok = b->ids && b->image_rows && b->positions && b->spans && b->rows && b->target_ids &&
              b->weights;
    if (!c->lengths) b->smoothing = c->noise.label_smoothing;
    if (b->smoothing > 0) ok &= !!(b->smoothing_weights = calloc(t, sizeof *b->smoothing_weights));
    if (images) ok &= !!(b->pixels = malloc((size_t)images * pixels * sizeof *b->pixels));
    if (images && c->feature_dtype != DTYPE_NONE) {
        b->feature_dtype = c->feature_dtype;
        b->known = calloc((size_t)images, sizeof *b->known);
        b->keys = calloc((size_t)images, sizeof *b->keys);
        b->features = calloc((size_t)images, feature_bytes(c));
        ok &= b->known && b->keys && b->features;
    }
    if (c->lengths) {
        b->prompt_begin = calloc((size_t)turns + 1, sizeof *b->prompt_begin);
        b->classes = calloc((size_t)turns + 1, sizeof *b->classes);
        ok &= b->prompt_begin && b->classes;
    }
    if (ok) return 0;
    return error_set(err, "out of memory for a batch of %lld tokens and %lld images",
                     (long long)rows, (long long)images);
}

int packing_build(TrainBatch *batch, const PackingConfig *config, const PackingItem *items,
                  int count, double sequences, Error *err) {
    *batch = (TrainBatch){0};
    Packer p = {.config = config,
                .batch = batch,
                .copies = noise_copies(&config->noise),
                .sequences = sequences};
    int status = check_config(config, sequences, err);
    if (status == 0) status = batch_take(batch, config, items, count, err);
    if (status == 0) status = draw_noise(&p, items, count, err);
    const TurnNoise *noise = p.noise;
    for (int i = 0; i < count && status == 0; i++) {
        push_item(&p, &items[i], noise);
        noise += items[i].example->count;
    }
    free(p.noise), free(p.masked);
    if (status) {
        train_batch_free(batch);
        return -1;
    }
    if (config->lengths) batch->prompt_weight = (float)(1 / sequences);
    if (batch->images == 0) {
        free(batch->image_rows);
        batch->image_rows = NULL;
    }
    return 0;
}

void train_batch_free(TrainBatch *batch) {
    free(batch->ids), free(batch->image_rows), free(batch->positions), free(batch->spans);
    free(batch->pixels), free(batch->known), free(batch->features), free(batch->keys);
    free(batch->rows), free(batch->target_ids), free(batch->weights);
    free(batch->smoothing_weights);
    free(batch->prompt_begin), free(batch->classes);
    *batch = (TrainBatch){0};
}
