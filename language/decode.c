#include "language/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "language/canvas_cache.h"
#include "language/decode_step.h"

/* Limit of steps and lengths, far above any use, so that step counters cannot overflow. */
enum { MOST = 1000000 };

/* What early_stop watches in a hypothesis. */
typedef struct Watch {
    int32_t *answer; /* [length], the proposed answer of the step before */
    int same;        /* steps in a row that proposed it, this one included */
    bool stopped;
} Watch;

/* Looks at the canvas before the step's strategy does. */
static void watch_proposals(Watch *watch, const Canvas *canvas, const Proposal *proposals) {
    bool same = watch->same > 0;
    for (int i = 0; i < canvas->length; i++) {
        int32_t token = canvas->tokens[i];
        if (token == canvas->mask_id) token = proposals[i].token;
        same &= watch->answer[i] == token;
        watch->answer[i] = token;
    }
    watch->same = same ? watch->same + 1 : 1;
}

/* Writes all that is masked: the answer, if it has been the same for long enough. */
static bool watch_stop(Watch *watch, int steps, Canvas *canvas, const Proposal *proposals) {
    watch->stopped = watch->same >= steps;
    for (int i = 0; watch->stopped && i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id) canvas_write(canvas, i, proposals[i]);
    return watch->stopped;
}

/* ---- the run ---- */

/* With prefix_cache: what a hypothesis's kept keys and values were computed with. */
typedef struct Prefix {
    int32_t *canvas; /* [length] */
    int version;     /* from 1, another one for each canvas of each hypothesis; 0: none yet */
} Prefix;

struct Decoder {
    const DecodeRun *run;
    DecodeRun copy;        /* what `run` points to */
    int step, steps;       /* the current one, and the last one of any hypothesis */
    DecodeResult *results; /* [count]; their tokens and scores are the hypotheses' state */
    CanvasCache cache;
    bool remember;
    size_t *entries;        /* [count], the cache entry of each hypothesis's canvas in this step */
    bool *fresh;            /* [count], whether this hypothesis added it in this step */
    bool *settled;          /* [count], whether it cannot change any more: it may have no entry */
    DecodeCanvas *canvases; /* [count], those to be evaluated in this step */
    double *ranks, *sorted; /* [longest] */
    TraceCell *cells;       /* [longest], a step for the callback without a trace */
    Watch *watches;         /* [count], with early_stop; else NULL */
    int32_t *watched;       /* their answers' memory */
    Prefix *prefixes;       /* [count], with prefix_cache; else NULL */
    int32_t *prefixed;      /* their canvases' memory */
    int version;            /* the last one */
    DecodeChoice choice;    /* how proposals are chosen; */
    bool chosen;            /* ... whether it is not as usual */
    float *confidences;     /* parallel to the cache's proposals, if they are measured; else NULL */
};

int decode_open(const DecodeSpec *spec, int32_t mask_id) {
    int open = spec->fixed ? 0 : spec->length;
    for (int i = 0; spec->fixed && i < spec->length; i++) open += spec->fixed[i] == mask_id;
    return open;
}

static int spec_check(const DecodeRun *run, int h, Error *err) {
    const DecodeSpec *spec = &run->specs[h];
    if (spec->length < 1 || spec->length > MOST || spec->sample < 0)
        return error_set(err,
                         "decoding: hypothesis %d has length %d (1 to %d expected) and sample %d "
                         "(at least 0 expected)",
                         h, spec->length, MOST, spec->sample);
    for (int i = 0; spec->fixed && i < spec->length; i++)
        if (spec->fixed[i] < 0)
            return error_set(err,
                             "decoding: hypothesis %d has token %d fixed at position %d of %d, at "
                             "least 0 expected",
                             h, (int)spec->fixed[i], i + 1, spec->length);
    if (decode_open(spec, run->mask_id) == 0)
        return error_set(err,
                         "decoding: all %d tokens of hypothesis %d are fixed, so that there is "
                         "nothing to decode; leave at least one open (<mask>)",
                         spec->length, h);
    return 0;
}

/* The options of LLaDA and Dream. */
static int models_check(const DecodeRun *run, Error *err) {
    const DecodeOptions *options = run->options;
    if (options->strategy != DECODE_LLADA) return 0;
    if (options->block < 0)
        return error_set(err, "decoding: blocks of %d tokens, at least 0 expected", options->block);
    if (run->end_count < 0 || run->end_count > 2)
        return error_set(err, "decoding: %d end tokens, 0 to 2 expected", run->end_count);
    if ((options->end_never || options->end_last) && (run->end_count < 1 || run->ends[0] < 0))
        return error_set(err, "decoding: noend and endlast need the token that ends a text, which "
                              "this model's tokenizer lacks; leave them out of the strategy");
    return 0;
}

static int run_check(const DecodeRun *run, Error *err) {
    const DecodeOptions *options = run->options;
    if (options->iterations < 0 || options->iterations > MOST)
        return error_set(err, "decoding: %d iterations, 0 to %d expected", options->iterations,
                         MOST);
    if (!(options->temperature >= 0) || isinf(options->temperature))
        return error_set(err, "decoding: temperature %g, a number >= 0 expected",
                         (double)options->temperature);
    if (options->stochastic && (!(options->tau >= 0) || isinf(options->tau)))
        return error_set(err, "decoding: tau %g, a number >= 0 expected", (double)options->tau);
    if (!(options->bound >= 0) || isinf(options->bound) ||
        (options->strategy == DECODE_CONFIDENCE && options->bound > 1))
        return error_set(err,
                         "decoding: bound %g, a number >= 0 expected (a probability for "
                         "confidence)",
                         (double)options->bound);
    TRY(models_check(run, err));
    if (options->early_stop < 0)
        return error_set(err, "decoding: early stop after %d steps, at least 0 expected",
                         options->early_stop);
    if (options->prefix_cache < 0)
        return error_set(err, "decoding: a prefix cache for %d steps, at least 0 expected",
                         options->prefix_cache);
    if (!(options->guidance >= 0) || options->guidance > 100)
        return error_set(err, "decoding: guidance %g, a number from 0 to 100 expected",
                         (double)options->guidance);
    if (options->guidance > 0 && options->prefix_cache)
        return error_set(err, "decoding: guidance and a prefix cache exclude each other: the cache "
                              "is of prompts, and guidance needs another one without it");
    if (run->mask_id < 0 && (options->strategy != DECODE_AR || run->mask_id < -1))
        return error_set(err, "decoding: mask id %d, at least 0 expected", (int)run->mask_id);
    if (run->count < 0)
        return error_set(err, "decoding: %d hypotheses, at least 0 expected", run->count);
    for (int h = 0; h < run->count; h++) TRY(spec_check(run, h, err));
    return 0;
}

static int spec_steps(const DecodeRun *run, int h) {
    return decode_steps(run->options, decode_open(&run->specs[h], run->mask_id));
}

/* The hypothesis before its first step. */
static int result_take(DecodeResult *result, const DecodeSpec *spec, int steps, bool trace,
                       int32_t mask_id) {
    *result =
        (DecodeResult){.length = spec->length, .open = decode_open(spec, mask_id), .steps = steps};
    size_t N = (size_t)spec->length;
    result->tokens = calloc(N, sizeof *result->tokens);
    result->scores = calloc(N, sizeof *result->scores);
    if (trace) {
        result->trace = calloc(N * (size_t)steps, sizeof *result->trace); /* at most MOST^2 */
        result->evaluated = calloc((size_t)steps, sizeof *result->evaluated);
        if (!result->trace || !result->evaluated) return -1;
    }
    if (!result->tokens || !result->scores) return -1;
    for (int i = 0; i < spec->length; i++) {
        result->tokens[i] = spec->fixed ? spec->fixed[i] : mask_id;
        result->scores[i] = result->tokens[i] == mask_id ? -INFINITY : 0;
    }
    return 0;
}

static size_t all_tokens(const DecodeRun *run) {
    size_t all = 0;
    for (int h = 0; h < run->count; h++) all += (size_t)run->specs[h].length;
    return all;
}

/* The memory of early_stop. */
static int watches_take(Decoder *decoder, Error *err) {
    const DecodeRun *run = decoder->run;
    size_t all = all_tokens(run);
    if (!run->options->early_stop) return 0;
    decoder->watches = calloc((size_t)run->count, sizeof *decoder->watches);
    decoder->watched = calloc(all, sizeof *decoder->watched);
    if (!decoder->watches || !decoder->watched)
        return error_set(err, "decoding: out of memory for %d hypotheses", run->count);
    int32_t *next = decoder->watched;
    for (int h = 0; h < run->count; h++) {
        decoder->watches[h].answer = next;
        next += run->specs[h].length;
    }
    return 0;
}

/* The memory of prefix_cache, for `count` hypotheses of `all` tokens. */
static int prefixes_take(Decoder *decoder, size_t count, size_t all, Error *err) {
    decoder->prefixes = calloc(count, sizeof *decoder->prefixes);
    decoder->prefixed = calloc(all, sizeof *decoder->prefixed);
    if (!decoder->prefixes || !decoder->prefixed)
        return error_set(err, "decoding: out of memory for %zu hypotheses", count);
    int32_t *next = decoder->prefixed;
    for (size_t h = 0; h < count; h++) {
        decoder->prefixes[h].canvas = next;
        next += decoder->run->specs[h].length;
    }
    return 0;
}

/* Everything a run needs. On failure the caller frees. */
static int decoder_take(Decoder *decoder, Error *err) {
    const DecodeRun *run = decoder->run;
    size_t count = (size_t)run->count, canvases = 0, cells = 0, longest = 0;
    bool overflow = false;
    if (!(decoder->results = calloc(count, sizeof *decoder->results)))
        return error_set(err, "decoding: out of memory for %d hypotheses", run->count);
    for (int h = 0; h < run->count; h++) {
        int length = run->specs[h].length, steps = spec_steps(run, h);
        if (result_take(&decoder->results[h], &run->specs[h], steps, run->trace, run->mask_id) != 0)
            return error_set(
                err, "decoding: out of memory for hypothesis %d of %d (%d tokens, %d steps%s)", h,
                run->count, length, steps, run->trace ? ", with trace" : "");
        /* Cached canvases are kept; without a cache, one a hypothesis is kept for a step. */
        size_t kept = decoder->remember ? (size_t)steps : 1, size;
        overflow |= __builtin_add_overflow(canvases, kept, &canvases) ||
                    __builtin_mul_overflow(kept, (size_t)length, &size) ||
                    __builtin_add_overflow(cells, size, &cells);
        if (longest < (size_t)length) longest = (size_t)length;
    }
    if (overflow) canvases = cells = SIZE_MAX; /* refused by canvas_cache_take */
    TRY(canvas_cache_take(&decoder->cache, canvases, cells, err));
    decoder->entries = calloc(count, sizeof *decoder->entries);
    decoder->fresh = calloc(count, sizeof *decoder->fresh);
    decoder->settled = calloc(count, sizeof *decoder->settled);
    decoder->canvases = calloc(count, sizeof *decoder->canvases);
    decoder->ranks = calloc(longest, sizeof *decoder->ranks);
    decoder->sorted = calloc(longest, sizeof *decoder->sorted);
    decoder->cells = calloc(longest, sizeof *decoder->cells);
    if (!decoder->entries || !decoder->fresh || !decoder->settled || !decoder->canvases ||
        !decoder->ranks || !decoder->sorted || !decoder->cells)
        return error_set(err, "decoding: out of memory for %d hypotheses", run->count);
    if (decoder->choice.measure != DECODE_NO_MEASURE &&
        !(decoder->confidences = malloc((cells + 1) * sizeof *decoder->confidences)))
        return error_set(err, "decoding: out of memory for %zu confidences", cells);
    if (run->options->prefix_cache) TRY(prefixes_take(decoder, count, all_tokens(run), err));
    return watches_take(decoder, err);
}

static Canvas decoder_canvas(const Decoder *decoder, int h, int step) {
    const DecodeResult *result = &decoder->results[h];
    return (Canvas){.tokens = result->tokens,
                    .scores = result->scores,
                    .fixed = decoder->run->specs[h].fixed,
                    .length = result->length,
                    .open = result->open,
                    .sample = decoder->run->specs[h].sample,
                    .step = step,
                    .steps = result->steps,
                    .mask_id = decoder->run->mask_id,
                    .ends = decoder->run->ends,
                    .end_count = decoder->run->end_count,
                    .stops = decoder->run->stops,
                    .stop_count = decoder->run->stop_count};
}

static size_t decoder_start(const Decoder *decoder, int h) {
    return decoder->cache.entries[decoder->entries[h]].start;
}

static const Proposal *decoder_proposals(const Decoder *decoder, int h) {
    return decoder->cache.proposals + decoder_start(decoder, h);
}

/* NULL: they are not measured. */
static const float *decoder_confidences(const Decoder *decoder, int h) {
    return decoder->confidences ? decoder->confidences + decoder_start(decoder, h) : NULL;
}

/* A NaN would make every comparison of the ranking false and count as confident. */
static int proposals_check(const Decoder *decoder, int h, int step, Error *why) {
    const Proposal *proposals = decoder_proposals(decoder, h);
    const float *confidence = decoder_confidences(decoder, h);
    Canvas canvas = decoder_canvas(decoder, h, step);
    int length = canvas.length;
    for (int i = 0; i < length; i++) {
        if (canvas_fixed(&canvas, i)) continue;
        int32_t token = proposals[i].token;
        float score = proposals[i].score;
        if (isnan(score) || score == INFINITY)
            return error_set(why,
                             "decoding: the model's score is %g at position %d of %d, step %d; a "
                             "log-probability expected",
                             (double)score, i + 1, length, step);
        if (confidence && !isfinite(confidence[i]))
            return error_set(why,
                             "decoding: the model's confidence is %g at position %d of %d, step "
                             "%d; a finite number expected",
                             (double)confidence[i], i + 1, length, step);
        if (token < 0 || token == decoder->run->mask_id)
            return error_set(why,
                             "decoding: the model proposed token %d at position %d of %d, step %d; "
                             "any but a negative one and <mask> (%d) expected",
                             (int)token, i + 1, length, step, (int)decoder->run->mask_id);
    }
    return 0;
}

/* Ends a hypothesis before this step. */
static int hypothesis_fail(Decoder *decoder, int h, int step, const Error *why, Error *err) {
    DecodeResult *result = &decoder->results[h];
    result->steps = step - 1;
    result->error = strdup(why->text);
    return result->error ? 0 : error_set(err, "decoding: out of memory for a message");
}

/* What the proposals for a canvas depend on beside it: its request, or with prefix_cache the version
 * of its prefix, which is a new one where this step recomputes it with another canvas. */
static int canvas_origin(Decoder *decoder, int h, bool recomputed) {
    const DecodeResult *result = &decoder->results[h];
    if (!decoder->prefixes) return decoder->run->specs[h].request;
    Prefix *prefix = &decoder->prefixes[h];
    size_t size = (size_t)result->length * sizeof *result->tokens;
    if (recomputed && (!prefix->version || memcmp(prefix->canvas, result->tokens, size))) {
        prefix->version = ++decoder->version;
        memcpy(prefix->canvas, result->tokens, size);
    }
    return prefix->version;
}

/* Finds or makes the cache's entry for every unfinished hypothesis; the new ones are to be
 * evaluated. */
DecodeBatch decoder_begin(Decoder *decoder) {
    const DecodeRun *run = decoder->run;
    CanvasCache *cache = &decoder->cache;
    int step = ++decoder->step, period = run->options->prefix_cache;
    bool whole = !period || (step - 1) % period == 0;
    if (!decoder->remember) canvas_cache_rewind(cache);
    size_t start = cache->used;
    int count = 0;
    for (int h = 0; h < run->count; h++) {
        DecodeResult *result = &decoder->results[h];
        if (step > result->steps) continue;
        Canvas canvas = decoder_canvas(decoder, h, step);
        bool stopped = decoder->watches && decoder->watches[h].stopped;
        decoder->settled[h] = stopped || canvas_settled(&canvas, run->options);
        decoder->fresh[h] = false;
        if (stopped || (decoder->settled[h] && !run->options->no_canvas_cache)) continue;
        int origin = canvas_origin(decoder, h, whole);
        bool fresh = true;
        size_t entry =
            decoder->remember
                ? canvas_cache_find(cache, origin, result->tokens, result->length, &fresh)
                : canvas_cache_add(cache, origin, result->tokens, result->length);
        decoder->entries[h] = entry;
        decoder->fresh[h] = fresh;
        if (!fresh) continue;
        result->evaluations += 1 + (run->options->guidance > 0);
        decoder->canvases[count++] = (DecodeCanvas){
            .hypothesis = h,
            .request = run->specs[h].request,
            .length = result->length,
            .tokens = cache->tokens + cache->entries[entry].start,
            .noise = canvas_stream(&canvas, DECODE_NOISE_PROPOSAL),
            .fixed = canvas.fixed,
            .after_kept = !whole,
            .choice = decoder->chosen ? &decoder->choice : NULL,
            .confidence =
                decoder->confidences ? decoder->confidences + cache->entries[entry].start : NULL};
    }
    return (DecodeBatch){.canvases = decoder->canvases,
                         .count = count,
                         .temperature = run->options->temperature,
                         .seed = run->options->seed,
                         .out = cache->proposals + start};
}

static void decoder_advance(Decoder *decoder, int h, int step) {
    const DecodeOptions *options = decoder->run->options;
    const Proposal *proposals = decoder_proposals(decoder, h);
    Canvas canvas = decoder_canvas(decoder, h, step);
    Watch *watch = decoder->watches ? &decoder->watches[h] : NULL;
    if (watch) watch_proposals(watch, &canvas, proposals);
    if (watch && watch_stop(watch, options->early_stop, &canvas, proposals)) return;
    canvas_step(
        &canvas, options,
        &(StepInput){proposals, decoder_confidences(decoder, h), decoder->ranks, decoder->sorted});
}

static void decoder_tell(Decoder *decoder, int h, int step) {
    const DecodeRun *run = decoder->run;
    DecodeResult *result = &decoder->results[h];
    if (!run->trace && !run->callback) return;
    TraceCell *cells = decoder->cells;
    if (run->trace) {
        cells = result->trace + (size_t)(step - 1) * (size_t)result->length;
        result->evaluated[step - 1] = decoder->fresh[h];
    }
    Canvas canvas = decoder_canvas(decoder, h, step);
    const Proposal *proposals = decoder->settled[h] ? NULL : decoder_proposals(decoder, h);
    for (int i = 0; i < result->length; i++) {
        Proposal current = {result->tokens[i], result->scores[i]};
        cells[i] = (TraceCell){current.token, current.score,
                               proposals ? canvas_proposal(&canvas, proposals, i) : current};
    }
    if (!run->callback) return;
    run->callback(run->user, &(DecodeStep){.hypothesis = h,
                                           .request = run->specs[h].request,
                                           .step = step,
                                           .steps = result->steps,
                                           .length = result->length,
                                           .evaluated = decoder->fresh[h],
                                           .cells = cells,
                                           .fixed = canvas.fixed});
}

int decoder_finish(Decoder *decoder, Error *err) {
    int step = decoder->step;
    for (int h = 0; h < decoder->run->count; h++) {
        Error why;
        if (step > decoder->results[h].steps) continue;
        if (!decoder->settled[h] && proposals_check(decoder, h, step, &why)) {
            TRY(hypothesis_fail(decoder, h, step, &why, err));
            continue;
        }
        if (!decoder->settled[h]) decoder_advance(decoder, h, step);
        decoder_tell(decoder, h, step);
    }
    return 0;
}

bool decoder_done(const Decoder *decoder) {
    return decoder->step >= decoder->steps;
}

/* The mean of the open positions' scores (those of fixed ones are 0). */
static void result_score(DecodeResult *result) {
    for (int i = 0; i < result->length; i++) result->score += result->scores[i];
    result->score = result->error ? -INFINITY : result->score / result->open;
}

int decoder_open(Decoder **out, const DecodeRun *run, Error *err) {
    *out = NULL;
    TRY(run_check(run, err));
    Decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return error_set(err, "decoding: out of memory");
    decoder->copy = *run, decoder->run = &decoder->copy;
    decoder->chosen = canvas_choice(&decoder->choice, run->options, run->ends);
    decoder->remember = run->options->temperature == 0 && !run->options->no_canvas_cache;
    for (int h = 0; h < run->count; h++)
        if (decoder->steps < spec_steps(run, h)) decoder->steps = spec_steps(run, h);
    if (run->count && decoder_take(decoder, err)) {
        decoder_close(decoder);
        return -1;
    }
    *out = decoder;
    return 0;
}

void decoder_close(Decoder *decoder) {
    if (!decoder) return;
    decode_results_free(decoder->results, decoder->run->count);
    canvas_cache_free(&decoder->cache);
    free(decoder->entries);
    free(decoder->fresh);
    free(decoder->settled);
    free(decoder->canvases);
    free(decoder->ranks);
    free(decoder->sorted);
    free(decoder->cells);
    free(decoder->watches);
    free(decoder->watched);
    free(decoder->prefixes);
    free(decoder->prefixed);
    free(decoder->confidences);
    free(decoder);
}

DecodeResult *decoder_results(Decoder *decoder) {
    DecodeResult *results = decoder->results;
    for (int h = 0; h < decoder->run->count; h++) result_score(&results[h]);
    decoder->results = NULL;
    return results;
}

static int decoder_step(Decoder *decoder, Error *err) {
    const DecodeRun *run = decoder->run;
    if (run->cancel && __atomic_load_n(run->cancel, __ATOMIC_RELAXED))
        return error_set_code(err, ERROR_CANCELLED, "cancelled");
    const DecodeBatch batch = decoder_begin(decoder);
    if (batch.count)
        TRY(run->evaluate(run->model, batch.canvases, batch.count, batch.temperature, batch.seed,
                          batch.out, err));
    return decoder_finish(decoder, err);
}

int decode_run(const DecodeRun *run, DecodeResult **results, Error *err) {
    Decoder *decoder;
    *results = NULL;
    TRY(decoder_open(&decoder, run, err));
    int failed = 0;
    while (!failed && !decoder_done(decoder)) failed = decoder_step(decoder, err);
    if (!failed) *results = decoder_results(decoder);
    decoder_close(decoder);
    return failed;
}

void decode_results_free(DecodeResult *results, int count) {
    if (!results) return;
    for (int h = 0; h < count; h++) {
        free(results[h].tokens);
        free(results[h].scores);
        free(results[h].trace);
        free(results[h].evaluated);
        free(results[h].error);
    }
    free(results);
}

int decode_best(const DecodeResult *results, const DecodeSpec *specs, int count, int request) {
    int best = -1;
    double most = 0;
    for (int h = 0; h < count; h++) {
        const double score = results[h].score + (double)specs[h].prior;
        if (specs[h].request != request || (best >= 0 && !(score > most))) continue;
        best = h, most = score;
    }
    return best;
}
