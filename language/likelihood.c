/* likelihood.c - the masks of the bound, and what becomes of their losses. */
#include "language/likelihood.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/random.h"
#include "language/infill_private.h"

/* ---- The masks. ---- */

enum { GROUP = 8, EXACT_LENGTH = 20 };
enum { STREAM_COUNT = 1, STREAM_MASK = 2 }; /* purposes of random numbers */

MaskPlan mask_plan(int length, int samples, uint64_t seed, uint64_t stream) {
    MaskPlan plan = {.length = length, .samples = samples, .seed = seed, .stream = stream};
    plan.exact = length <= EXACT_LENGTH && (1 << length) - 1 <= samples;
    if (plan.exact) plan.samples = (1 << length) - 1;
    return plan;
}

static int group_size(const MaskPlan *p) {
    if (p->samples >= 2 * GROUP) return GROUP;
    return p->samples > 1 ? p->samples / 2 : 1;
}

int mask_plan_group(const MaskPlan *p, int group, int *first) {
    int size = group_size(p);
    *first = group * size;
    int left = p->samples - *first;
    return left < 0 ? 0 : left < size ? left : size;
}

/* Every mask once: 1 / L for each l, L / l, and one of the choices of l tokens. */
static double exact_sample(const MaskPlan *p, int sample, bool *masked) {
    double choices = 1;
    int l = 0;
    for (int i = 0; i < p->length; i++) l += masked[i] = (sample + 1) >> i & 1;
    for (int i = 0; i < l; i++) choices = choices * (p->length - i) / (i + 1);
    return 1 / (l * choices);
}

double mask_plan_sample(const MaskPlan *p, int sample, bool *masked) {
    int first, group = sample / group_size(p), L = p->length;
    if (p->exact) return exact_sample(p, sample, masked);
    int size = mask_plan_group(p, group, &first);
    uint64_t stream = random_stream(p->stream, (uint64_t)group, 0, STREAM_COUNT);
    int64_t begin = (int64_t)(random_uniform(p->seed, stream, 0) * L);
    int l = (int)((begin + (int64_t)(sample - first) * L / size) % L) + 1, left = l;
    stream = random_stream(p->stream, (uint64_t)sample, 0, STREAM_MASK);
    for (int i = 0; i < L; i++) { /* selection sampling (Knuth, 3.4.2, algorithm S) */
        masked[i] = (L - i) * random_uniform(p->seed, stream, (uint64_t)i) < left;
        left -= masked[i];
    }
    return (double)L / l / p->samples;
}

uint64_t likelihood_stream(const int32_t *prompt, int prompt_count, const int32_t *text,
                           int length) {
    uint64_t stream = random_stream((uint64_t)prompt_count, (uint64_t)length, 0, 0);
    for (int i = 0; i < prompt_count; i++)
        stream = random_stream(stream, (uint64_t)prompt[i], (uint64_t)i, 0);
    for (int i = 0; i < length; i++)
        stream = random_stream(stream, (uint64_t)text[i], (uint64_t)i, 1);
    return stream;
}

/* ---- Losses of masked tokens. ---- */

/* A masked token in the batch. */
typedef struct Asked {
    int text, sample, position;
    double factor;
} Asked;

/* What a batch asks. */
typedef struct Losses {
    Infill *infill;
    Arena arena;  /* of targets, weights and losses */
    int32_t *ids; /* [capacity], targets */
    float *losses;
    Asked *asked;    /* parallel to the picked rows */
    int32_t *canvas; /* [longest]: <mask> where masked */
} Losses;

static int losses_open(Losses *l, Infill *f, int longest, Error *err) {
    size_t n = (size_t)f->rows.capacity;
    *l = (Losses){.infill = f};
    l->ids = malloc(n * sizeof *l->ids);
    l->losses = malloc(n * sizeof *l->losses);
    l->asked = malloc(n * sizeof *l->asked);
    l->canvas = malloc((size_t)longest * sizeof *l->canvas);
    if (!l->ids || !l->losses || !l->asked || !l->canvas)
        return error_set(err, "out of memory for a batch of %zu tokens", n);
    return arena_open(&l->arena, f->config.device, language_losses_bytes((int)n), err);
}

static void losses_close(Losses *l) {
    arena_close(&l->arena);
    free(l->ids), free(l->losses), free(l->asked), free(l->canvas);
}

/* Evaluates what was pushed: losses of the picked rows. */
static int losses_run(Losses *l, Error *err) {
    Infill *f = l->infill;
    Rows *r = &f->rows;
    const LanguageModel *m = &f->config.model;
    Tensor hidden, features;
    int status = run_rows(f, f->pool.rows, NULL, &hidden, err);
    if (status == 0)
        status = language_head(m, &f->arena, hidden, r->picked, r->picked_count, &features, err);
    if (status == 0) status = language_losses(m, &l->arena, l->losses, features, l->ids, err);
    arena_reset(&f->arena, 0);
    f->counts.inspection_forwards++;
    f->counts.inspection_rows += r->count;
    return status;
}

/* A text's canvas with these tokens masked; its masked tokens are the rows that are picked. */
static DecodeCanvas losses_canvas(Losses *l, const LikelihoodText *t, const bool *masked) {
    for (int i = 0; i < t->length; i++)
        l->canvas[i] = masked[i] ? l->infill->config.mask_id : t->tokens[i];
    return (DecodeCanvas){
        .request = t->request, .length = t->length, .tokens = l->canvas, .fixed = l->canvas};
}

static void losses_push(Losses *l, const LikelihoodText *t, const DecodeCanvas *canvas,
                        const bool *masked, Asked asked) {
    Infill *f = l->infill;
    int row = f->rows.picked_count;
    push_evaluation(f, canvas);
    for (int i = 0; i < t->length; i++) {
        if (!masked[i]) continue;
        asked.position = i;
        l->ids[row] = t->tokens[i], l->asked[row++] = asked;
    }
    f->counts.inspections++;
}

int infill_losses(Infill *f, const LikelihoodText *t, const bool *masked, float *losses,
                  Error *err) {
    Losses l;
    int status = losses_open(&l, f, t->length, err);
    if (status == 0) {
        const DecodeCanvas canvas = losses_canvas(&l, t, masked);
        rows_clear(&f->rows);
        status = check_canvases(f, &canvas, 1, err);
        if (status == 0) losses_push(&l, t, &canvas, masked, (Asked){0});
        if (status == 0) status = losses_run(&l, err);
    }
    for (int i = 0; i < f->rows.picked_count && status == 0; i++)
        losses[l.asked[i].position] = l.losses[i];
    losses_close(&l);
    return status;
}

/* ---- Bounds. ---- */

typedef struct Bounds {
    Losses losses;
    const LikelihoodText *texts;
    MaskPlan *plans;  /* [count] */
    double **samples; /* [count], of texts that are not exact: [samples] their parts of the bound */
    LikelihoodBound *out;
    bool *masked; /* [longest] */
    int count, longest;
} Bounds;

static void bounds_close(Bounds *b) {
    for (int i = 0; i < b->count && b->samples; i++) free(b->samples[i]);
    free(b->plans), free(b->samples), free(b->masked);
    losses_close(&b->losses);
}

static int bounds_open(Bounds *b, Infill *f, const LikelihoodOptions *o, Error *err) {
    int samples = o->samples > 0 ? o->samples : LIKELIHOOD_SAMPLES;
    int64_t rows = 0;
    size_t n = (size_t)b->count + 1;
    b->plans = malloc(n * sizeof *b->plans);
    b->samples = calloc(n, sizeof *b->samples);
    if (!b->plans || !b->samples) return error_set(err, "out of memory for %d texts", b->count);
    for (int i = 0; i < b->count; i++) {
        const LikelihoodText *t = &b->texts[i];
        MaskPlan *p = &b->plans[i];
        *p = mask_plan(t->length, samples, o->seed, t->stream);
        rows += (int64_t)p->samples * (t->length + 1);
        if (t->length > b->longest) b->longest = t->length;
        b->out[i] = (LikelihoodBound){.evaluations = p->samples};
        for (int k = 0; k < t->length && t->shares; k++) t->shares[k] = 0;
        if (p->exact) continue;
        b->samples[i] = calloc((size_t)p->samples, sizeof **b->samples);
        if (!b->samples[i]) return error_set(err, "out of memory for %d samples", p->samples);
    }
    b->masked = malloc((size_t)b->longest + 1);
    if (!b->masked) return error_set(err, "out of memory for %d tokens", b->longest);
    TRY(infill_reserve(f, b->longest, rows + 2, err));
    return losses_open(&b->losses, f, b->longest, err);
}

static int bounds_flush(Bounds *b, Error *err) {
    Losses *l = &b->losses;
    Rows *r = &l->infill->rows;
    TRY(losses_run(l, err));
    for (int i = 0; i < r->picked_count; i++) {
        const Asked *a = &l->asked[i];
        const double part = a->factor * (double)l->losses[i];
        const LikelihoodText *t = &b->texts[a->text];
        b->out[a->text].nats += part;
        if (t->shares) t->shares[a->position] += part;
        if (b->samples[a->text]) b->samples[a->text][a->sample] += part;
    }
    rows_clear(r);
    return 0;
}

static int cancelled(const int *cancel, Error *err) {
    if (!cancel || !__atomic_load_n(cancel, __ATOMIC_RELAXED)) return 0;
    return error_set_code(err, ERROR_CANCELLED, "cancelled");
}

static int bounds_run(Bounds *b, const int *cancel, Error *err) {
    Infill *f = b->losses.infill;
    Rows *r = &f->rows;
    rows_clear(r);
    for (int i = 0; i < b->count; i++)
        for (int s = 0; s < b->plans[i].samples; s++) {
            Asked asked = {.text = i, .sample = s};
            asked.factor = mask_plan_sample(&b->plans[i], s, b->masked);
            const DecodeCanvas canvas = losses_canvas(&b->losses, &b->texts[i], b->masked);
            if (s == 0) TRY(check_canvases(f, &canvas, 1, err));
            if (r->count && r->count + evaluation_rows(f, &canvas) > r->capacity) {
                TRY(cancelled(cancel, err));
                TRY(bounds_flush(b, err));
            }
            losses_push(&b->losses, &b->texts[i], &canvas, b->masked, asked);
        }
    TRY(cancelled(cancel, err));
    return r->count ? bounds_flush(b, err) : 0;
}

/* From the spread of the groups' means. */
static double bound_variance(const MaskPlan *p, const double *samples, double nats) {
    double sum = 0;
    int groups = 0;
    for (int first, n; (n = mask_plan_group(p, groups, &first)); groups++) {
        double part = 0; /* of the bound: the mean, times the group's share of the samples */
        for (int s = first; s < first + n; s++) part += samples[s];
        part -= nats * n / p->samples;
        sum += part * part;
    }
    return groups > 1 ? sum * groups / (groups - 1) : NAN;
}

int infill_likelihoods(Infill *f, const LikelihoodText *texts, int count,
                       const LikelihoodOptions *options, LikelihoodBound *out, Error *err) {
    Bounds b = {.texts = texts, .count = count, .out = out};
    int status = bounds_open(&b, f, options, err);
    if (status == 0) status = bounds_run(&b, options->cancel, err);
    for (int i = 0; i < count && status == 0; i++)
        if (b.samples[i]) out[i].variance = bound_variance(&b.plans[i], b.samples[i], out[i].nats);
    bounds_close(&b);
    return status;
}

/* ---- Autoregressive models. ---- */

typedef struct Causal {
    const LanguageModel *model;
    Rows rows;
    Arena arena, losses_arena;
    int32_t *targets, *of; /* [capacity], of the picked rows: the next token, and which text's */
    float *losses;
} Causal;

static int causal_open(Causal *c, Device *device, int capacity, Error *err) {
    size_t n = (size_t)capacity;
    TRY(rows_open(&c->rows, capacity, capacity, err));
    c->rows.first_position = language_first_position(c->model);
    c->targets = malloc(n * sizeof *c->targets);
    c->of = malloc(n * sizeof *c->of);
    c->losses = malloc(n * sizeof *c->losses);
    if (!c->targets || !c->of || !c->losses)
        return error_set(err, "out of memory for a batch of %d tokens", capacity);
    TRY(arena_open(&c->losses_arena, device, language_losses_bytes(capacity), err));
    return arena_open(
        &c->arena, device,
        language_work_bytes(c->model, capacity) + language_head_bytes(c->model, capacity), err);
}

static void causal_close(Causal *c) {
    rows_close(&c->rows);
    arena_close(&c->arena);
    arena_close(&c->losses_arena);
    free(c->targets), free(c->of), free(c->losses);
}

/* Each row attends to those up to itself, and predicts the next token. */
static void causal_push(Causal *c, const CausalText *t, int text) {
    Rows *r = &c->rows;
    const int begin = r->count;
    AttentionSpan *span = rows_span(r, begin, begin + t->count);
    span_sees(span, begin, begin + t->count);
    span->causal = true;
    for (int i = 0; i < t->count; i++) {
        int row = r->count;
        rows_push(r, t->ids[i], -1, i);
        if (i + 1 < t->count - t->scored || i + 1 == t->count) continue;
        c->targets[r->picked_count] = t->ids[i + 1], c->of[r->picked_count] = text;
        r->picked[r->picked_count++] = row;
    }
}

static int causal_run(Causal *c, double *nats, Error *err) {
    Rows *r = &c->rows;
    const XlmrBatch batch = {.tokens = r->count,
                             .ids = r->ids,
                             .positions = r->positions,
                             .plan = {.spans = r->spans, .span_count = r->span_count}};
    Tensor hidden, features;
    int status = language_forward(c->model, &c->arena, &batch, &hidden, NULL, err);
    if (status == 0)
        status =
            language_head(c->model, &c->arena, hidden, r->picked, r->picked_count, &features, err);
    if (status == 0)
        status = language_losses(c->model, &c->losses_arena, c->losses, features, c->targets, err);
    arena_reset(&c->arena, 0);
    for (int i = 0; i < r->picked_count && status == 0; i++) nats[c->of[i]] += (double)c->losses[i];
    rows_clear(r);
    return status;
}

int causal_likelihoods(const LanguageModel *m, Device *device, const CausalText *texts, int count,
                       int batch_tokens, double *nats, InfillCounts *counts, Error *err) {
    Causal c = {.model = m};
    InfillCounts did = {0};
    int64_t most = batch_tokens > 0 ? batch_tokens : 4096, all = 1, longest = 1;
    for (int i = 0; i < count; i++) {
        nats[i] = 0, all += texts[i].count;
        if (texts[i].count > longest) longest = texts[i].count;
    }
    if (most > all) most = all;
    int status = causal_open(&c, device, (int)(most > longest ? most : longest), err);
    for (int i = 0; i < count && status == 0;) {
        do {
            causal_push(&c, &texts[i], i);
            i++;
        } while (i < count && c.rows.count + texts[i].count <= c.rows.capacity);
        did.forwards++, did.rows += c.rows.count;
        status = causal_run(&c, nats, err);
    }
    did.canvases = count;
    if (counts) *counts = did;
    causal_close(&c);
    return status;
}
