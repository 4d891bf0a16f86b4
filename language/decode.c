#include "language/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"
#include "language/canvas_cache.h"

/* Limit of steps and lengths, far above any use, so that step counters cannot overflow. */
enum { MOST = 1000000 };

/* ---- options and names ---- */

DecodeOptions decode_options_default(void) {
    return (DecodeOptions){
        .strategy = DECODE_REPARAM, .schedule = DECODE_COSINE, .iterations = DECODE_STEPS};
}

/* A part of a name up to the next '-' or the end. */
typedef struct NamePart {
    const char *text;
    int length;
} NamePart;

static NamePart name_part(const char **rest) {
    NamePart part = {*rest, (int)strcspn(*rest, "-")};
    *rest += part.length;
    if (**rest == '-') ++*rest;
    return part;
}

static bool part_is(NamePart part, const char *word) {
    return (size_t)part.length == strlen(word) && memcmp(part.text, word, strlen(word)) == 0;
}

/* The number after a word such as "stochastic": digits and a point only, which excludes "nan",
 * "inf", signs and hexadecimal. */
static bool part_number(NamePart part, const char *word, float *number) {
    int skip = (int)strlen(word);
    char digits[64];
    int length = part.length - skip;
    if (length < 1 || length >= (int)sizeof digits || memcmp(part.text, word, (size_t)skip) != 0)
        return false;
    memcpy(digits, part.text + skip, (size_t)length);
    digits[length] = 0;
    if (strspn(digits, "0123456789.") != (size_t)length) return false;
    char *end;
    *number = strtof(digits, &end);
    return *end == 0 && isfinite(*number);
}

static int reparam_parse(DecodeOptions *options, const char *name, const char *rest, Error *err) {
    NamePart condition = name_part(&rest), ranking = name_part(&rest), schedule = name_part(&rest);
    if (part_is(condition, "cond"))
        options->conditional = true;
    else if (!part_is(condition, "uncond"))
        return error_set(err, "strategy \"%s\": the second part is \"%.*s\", not uncond or cond",
                         name, condition.length, condition.text);
    if (part_number(ranking, "stochastic", &options->tau))
        options->stochastic = true;
    else if (!part_is(ranking, "deterministic"))
        return error_set(err,
                         "strategy \"%s\": the third part is \"%.*s\", not deterministic or "
                         "stochastic with a number >= 0 (as in stochastic0.5)",
                         name, ranking.length, ranking.text);
    if (part_is(schedule, "linear"))
        options->schedule = DECODE_LINEAR;
    else if (!part_is(schedule, "cosine"))
        return error_set(err, "strategy \"%s\": the fourth part is \"%.*s\", not linear or cosine",
                         name, schedule.length, schedule.text);
    if (rest != schedule.text + schedule.length || *rest)
        return error_set(err, "strategy \"%s\": nothing may follow \"%.*s\"", name, schedule.length,
                         schedule.text);
    return 0;
}

int decode_strategy_parse(DecodeOptions *options, const char *name, Error *err) {
    DecodeOptions parsed = *options;
    parsed.conditional = parsed.stochastic = false;
    parsed.tau = parsed.bound = 0;
    parsed.schedule = DECODE_COSINE;
    const char *rest = name;
    NamePart kind = name_part(&rest), whole = {name, (int)strlen(name)};
    if (strcmp(name, "cmlm") == 0) {
        parsed.strategy = DECODE_CMLM;
    } else if (strcmp(name, "ar") == 0) {
        parsed.strategy = DECODE_AR;
    } else if (part_number(whole, "confidence", &parsed.bound) && parsed.bound <= 1) {
        parsed.strategy = DECODE_CONFIDENCE;
    } else if (part_number(whole, "entropy", &parsed.bound)) {
        parsed.strategy = DECODE_ENTROPY;
    } else if (part_is(kind, "reparam")) {
        parsed.strategy = DECODE_REPARAM;
        TRY(reparam_parse(&parsed, name, rest, err));
    } else {
        return error_set(err,
                         "strategy \"%s\": unknown; expected reparam-<uncond|cond>-<deterministic|"
                         "stochasticTAU>-<linear|cosine>, cmlm, ar, confidenceX with a "
                         "probability or entropyX",
                         name);
    }
    *options = parsed;
    return 0;
}

/* "stochastic0.5": the fewest decimals that parse to the same float; without exponent, whose '-'
 * would begin the next part. The smallest float needs 45. */
static void number_name(char *out, size_t size, const char *word, float value) {
    char number[64] = "0";
    for (int decimals = 0; decimals <= 45; decimals++) {
        snprintf(number, sizeof number, "%.*f", decimals, (double)value);
        if (strtof(number, NULL) == value) break;
    }
    snprintf(out, size, "%s%s", word, number);
}

void decode_strategy_name(char *out, size_t size, const DecodeOptions *options) {
    switch (options->strategy) {
    case DECODE_REPARAM:
        break;
    case DECODE_CMLM:
    case DECODE_AR:
        snprintf(out, size, "%s", options->strategy == DECODE_CMLM ? "cmlm" : "ar");
        return;
    case DECODE_CONFIDENCE:
    case DECODE_ENTROPY:
        number_name(out, size, options->strategy == DECODE_ENTROPY ? "entropy" : "confidence",
                    options->bound);
        return;
    }
    char ranking[80] = "deterministic";
    if (options->stochastic) number_name(ranking, sizeof ranking, "stochastic", options->tau);
    snprintf(out, size, "reparam-%s-%s-%s", options->conditional ? "cond" : "uncond", ranking,
             options->schedule == DECODE_LINEAR ? "linear" : "cosine");
}

/* ---- one step of one hypothesis ---- */

/* A strategy's view of a hypothesis in step t of T. A position is noisy if and only if it is
 * masked: the header's rules for noisy' make it true exactly where they write <mask>, and a
 * proposal is never <mask>. So the tokens contain that flag. */
typedef struct Canvas {
    int32_t *tokens;      /* [length] */
    float *scores;        /* [length] */
    const int32_t *fixed; /* [length], or NULL */
    int length, open, sample, step, steps;
    int32_t mask_id;
} Canvas;

static bool canvas_fixed(const Canvas *canvas, int position) {
    return canvas->fixed && canvas->fixed[position] != canvas->mask_id;
}

static uint64_t canvas_stream(const Canvas *canvas, DecodeNoise purpose) {
    return random_stream((uint64_t)canvas->length, (uint64_t)canvas->sample, (uint64_t)canvas->step,
                         (uint64_t)purpose);
}

static bool canvas_complete(const Canvas *canvas) {
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id) return false;
    return true;
}

static void canvas_write(Canvas *canvas, int position, Proposal proposal) {
    canvas->tokens[position] = proposal.token;
    canvas->scores[position] = proposal.score;
}

static double schedule_rate(DecodeSchedule schedule, int t, int T) {
    return schedule == DECODE_LINEAR ? 1 - (double)t / T : cos(M_PI / 2 * t / T);
}

/* k = floor(N * rate). For the linear schedule in integers: in floating point 10 * (1 - 45/50.) is
 * just below 1 and k would be one too small. cos(pi/2) is not quite 0, and for T above some 10^8
 * the first rates round to 1, where the (k+1)-th smallest of N would not exist. */
static int schedule_masks(DecodeSchedule schedule, int N, int t, int T) {
    if (t == T) return 0;
    if (schedule == DECODE_LINEAR) return (int)((int64_t)N * (T - t) / T);
    return (int)floor(N * schedule_rate(schedule, t, T));
}

/* The value that has index k when `values` are sorted (Hoare's selection; reorders them). */
static double select_smallest(double *values, int count, int k) {
    int low = 0, high = count - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (values[i] < pivot) i++;
            while (values[j] > pivot) j--;
            if (i > j) break;
            double swap = values[i];
            values[i++] = values[j], values[j--] = swap;
        }
        /* Now values[low..j] <= pivot <= values[i..high], and what lies between equals it. */
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return values[k];
}

/* What is proposed for position i of a canvas; of a fixed one, its token. */
static Proposal canvas_proposal(const Canvas *canvas, const Proposal *proposals, int i) {
    return canvas_fixed(canvas, i) ? (Proposal){canvas->tokens[i], canvas->scores[i]}
                                   : proposals[i];
}

/* ranks, sorted: scratch, [length]; of sorted, the open positions are used. */
static void reparam_step(Canvas *canvas, const DecodeOptions *options, const Proposal *proposals,
                         double *ranks, double *sorted) {
    int length = canvas->length, N = 0;
    int k = schedule_masks(options->schedule, canvas->open, canvas->step, canvas->steps);
    double noise = 0;
    if (options->stochastic)
        noise = options->tau * schedule_rate(options->schedule, canvas->step, canvas->steps);
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_RANKING);
    for (int i = 0; i < length; i++) {
        if (canvas_fixed(canvas, i)) continue;
        ranks[i] = proposals[i].score;
        if (noise > 0) ranks[i] += noise * random_gumbel(options->seed, stream, (uint64_t)i);
        sorted[N++] = ranks[i];
    }
    double cutoff = select_smallest(sorted, N, k);

    for (int i = 0; i < length; i++) {
        if (canvas_fixed(canvas, i)) continue;
        bool low = ranks[i] < cutoff; /* none if k = 0: then cutoff is the smallest */
        bool masked = canvas->tokens[i] == canvas->mask_id;
        bool spared =
            !masked && options->conditional &&
            !(proposals[i].token == canvas->tokens[i] && proposals[i].score < canvas->scores[i]);
        if (low && !spared)
            canvas_write(canvas, i, (Proposal){canvas->mask_id, -INFINITY});
        else if (masked)
            canvas_write(canvas, i, proposals[i]);
    }
}

/* k never grows. */
bool decode_settled(const DecodeOptions *options, int open, int step, int steps) {
    return options->strategy != DECODE_REPARAM ||
           schedule_masks(options->schedule, open, step, steps) == 0;
}

static bool canvas_settled(const Canvas *canvas, const DecodeOptions *options) {
    return canvas_complete(canvas) &&
           decode_settled(options, canvas->open, canvas->step, canvas->steps);
}

static void cmlm_step(Canvas *canvas, uint64_t seed, const Proposal *proposals) {
    double probability = 1.0 / (canvas->steps - canvas->step + 1.0);
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_WRITING);
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id &&
            random_uniform(seed, stream, (uint64_t)i) < probability)
            canvas_write(canvas, i, proposals[i]);
}

static void ar_step(Canvas *canvas, const Proposal *proposals) {
    int i = 0;
    while (i < canvas->length && canvas->tokens[i] != canvas->mask_id) i++;
    if (i < canvas->length) canvas_write(canvas, i, proposals[i]);
}

bool decode_approximate(const DecodeOptions *options) {
    return options->strategy == DECODE_CONFIDENCE || options->strategy == DECODE_ENTROPY ||
           options->early_stop > 0 || options->prefix_cache > 0;
}

/* The masked position with the best score, the leftmost of equals; -1: nothing is masked. */
static int surest_masked(const Canvas *canvas, const Proposal *proposals) {
    int best = -1;
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id &&
            (best < 0 || proposals[i].score > proposals[best].score))
            best = i;
    return best;
}

static void confidence_step(Canvas *canvas, float bound, const Proposal *proposals) {
    int i = surest_masked(canvas, proposals);
    if (i >= 0) canvas_write(canvas, i, proposals[i]);
    for (i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id && exp((double)proposals[i].score) >= bound)
            canvas_write(canvas, i, proposals[i]);
}

static void entropy_step(Canvas *canvas, float bound, const Proposal *proposals) {
    double surprise = 0;
    for (int i; surprise <= bound && (i = surest_masked(canvas, proposals)) >= 0;) {
        canvas_write(canvas, i, proposals[i]);
        surprise -= (double)proposals[i].score;
    }
}

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
    if (options->early_stop < 0)
        return error_set(err, "decoding: early stop after %d steps, at least 0 expected",
                         options->early_stop);
    if (options->prefix_cache < 0)
        return error_set(err, "decoding: a prefix cache for %d steps, at least 0 expected",
                         options->prefix_cache);
    if (run->mask_id < 0)
        return error_set(err, "decoding: mask id %d, at least 0 expected", (int)run->mask_id);
    if (run->count < 0)
        return error_set(err, "decoding: %d hypotheses, at least 0 expected", run->count);
    for (int h = 0; h < run->count; h++) TRY(spec_check(run, h, err));
    return 0;
}

int decode_steps(const DecodeOptions *options, int open) {
    if (options->strategy == DECODE_AR || options->strategy == DECODE_CONFIDENCE ||
        options->strategy == DECODE_ENTROPY)
        return open;
    if (options->iterations > 0) return options->iterations;
    if (open < DECODE_LEAST_STEPS) return DECODE_LEAST_STEPS;
    return open < DECODE_STEPS ? open : DECODE_STEPS;
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
                    .mask_id = decoder->run->mask_id};
}

/* A NaN would make every comparison of the ranking false and count as confident. */
static int proposals_check(const Decoder *decoder, int h, int step, const Proposal *proposals,
                           Error *why) {
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
        result->evaluations++;
        decoder->canvases[count++] =
            (DecodeCanvas){.hypothesis = h,
                           .request = run->specs[h].request,
                           .length = result->length,
                           .tokens = cache->tokens + cache->entries[entry].start,
                           .noise = canvas_stream(&canvas, DECODE_NOISE_PROPOSAL),
                           .fixed = canvas.fixed,
                           .after_kept = !whole};
    }
    return (DecodeBatch){.canvases = decoder->canvases,
                         .count = count,
                         .temperature = run->options->temperature,
                         .seed = run->options->seed,
                         .out = cache->proposals + start};
}

static const Proposal *decoder_proposals(const Decoder *decoder, int h) {
    const CanvasCache *cache = &decoder->cache;
    return cache->proposals + cache->entries[decoder->entries[h]].start;
}

static void decoder_advance(Decoder *decoder, int h, int step) {
    const DecodeOptions *options = decoder->run->options;
    const Proposal *proposals = decoder_proposals(decoder, h);
    Canvas canvas = decoder_canvas(decoder, h, step);
    Watch *watch = decoder->watches ? &decoder->watches[h] : NULL;
    if (watch) watch_proposals(watch, &canvas, proposals);
    if (watch && watch_stop(watch, options->early_stop, &canvas, proposals)) return;
    if (options->strategy == DECODE_REPARAM)
        reparam_step(&canvas, options, proposals, decoder->ranks, decoder->sorted);
    else if (options->strategy == DECODE_CMLM)
        cmlm_step(&canvas, options->seed, proposals);
    else if (options->strategy == DECODE_CONFIDENCE)
        confidence_step(&canvas, options->bound, proposals);
    else if (options->strategy == DECODE_ENTROPY)
        entropy_step(&canvas, options->bound, proposals);
    else
        ar_step(&canvas, proposals);
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
        if (!decoder->settled[h] &&
            proposals_check(decoder, h, step, decoder_proposals(decoder, h), &why)) {
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
