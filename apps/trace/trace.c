#include "apps/trace/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/json.h"
#include "apps/trace/trace_parts.h"

/* ---- Pieces: one text for each id. ---- */

/* A hash table with open addressing; an id of -1 marks a free slot. At most half full. */
struct TracePieces {
    int32_t *ids;
    char **texts;
    size_t capacity, count;
};

static size_t place_of(const TracePieces *p, int32_t id) {
    size_t at = (size_t)((uint32_t)id * UINT32_C(2654435769)) & (p->capacity - 1);
    while (p->ids[at] >= 0 && p->ids[at] != id) at = (at + 1) & (p->capacity - 1);
    return at;
}

static int pieces_grow(TracePieces *p, Error *err) {
    TracePieces bigger = {.capacity = p->capacity ? 2 * p->capacity : 64, .count = p->count};
    bigger.ids = malloc(bigger.capacity * sizeof *bigger.ids);
    bigger.texts = malloc(bigger.capacity * sizeof *bigger.texts);
    if (!bigger.ids || !bigger.texts) {
        free(bigger.ids), free(bigger.texts);
        return error_set(err, "out of memory for a trace's tokens");
    }
    for (size_t i = 0; i < bigger.capacity; i++) bigger.ids[i] = -1;
    for (size_t i = 0; i < p->capacity; i++) {
        if (p->ids[i] < 0) continue;
        size_t at = place_of(&bigger, p->ids[i]);
        bigger.ids[at] = p->ids[i], bigger.texts[at] = p->texts[i];
    }
    free(p->ids), free(p->texts);
    *p = bigger;
    return 0;
}

const char *trace_piece(Trace *trace, int32_t id, const char *piece, Error *err) {
    TracePieces *p = trace->pieces;
    if (id < 0) return "<mask>"; /* of a model whose vocabulary has none */
    if (2 * p->count >= p->capacity && pieces_grow(p, err)) return NULL;
    size_t at = place_of(p, id);
    if (p->ids[at] == id) return p->texts[at];
    p->texts[at] = strdup(piece);
    if (!p->texts[at]) return error_set(err, "out of memory for a trace's tokens"), NULL;
    p->ids[at] = id, p->count++;
    return p->texts[at];
}

/* ---- Memory. ---- */

static void hypothesis_free(TraceHypothesis *h) {
    for (size_t i = 0; i < (size_t)h->steps * (size_t)h->length; i++)
        free(h->entries[i].alternatives);
    free(h->entries), free(h->evaluated), free(h->fixed), free(h->attention), free(h->text);
    *h = (TraceHypothesis){0};
}

void trace_free(Trace *trace) {
    for (int i = 0; i < trace->count; i++) hypothesis_free(&trace->hypotheses[i]);
    if (trace->pieces) {
        for (size_t i = 0; i < trace->pieces->capacity; i++)
            if (trace->pieces->ids[i] >= 0) free(trace->pieces->texts[i]);
        free(trace->pieces->ids), free(trace->pieces->texts), free(trace->pieces);
    }
    free(trace->hypotheses), free(trace->image), free(trace->question), free(trace->model);
    free(trace->strategy), free(trace->answer_template);
    *trace = (Trace){.best = -1};
}

int trace_open(Trace *trace, Error *err) {
    *trace = (Trace){.best = -1};
    trace->pieces = calloc(1, sizeof *trace->pieces);
    return trace->pieces ? 0 : error_set(err, "out of memory for a trace");
}

/* A copy that is UTF-8; NULL of NULL. */
static int copy_text(char **out, const char *text, Error *err) {
    *out = NULL;
    if (!text) return 0;
    json_t *clean = json_text(text);
    if (clean) *out = strdup(json_string_value(clean));
    json_decref(clean);
    return *out ? 0 : error_set(err, "out of memory for a trace");
}

int trace_begin(Trace *trace, const TraceAbout *about, Error *err) {
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, about->options);
    TRY(trace_open(trace, err));
    trace->is_prompt = about->is_prompt;
    trace->seed = about->options->seed;
    if (copy_text(&trace->image, about->image, err) == 0 &&
        copy_text(&trace->question, about->question, err) == 0 &&
        copy_text(&trace->answer_template, about->answer_template, err) == 0 &&
        copy_text(&trace->model, about->model, err) == 0 &&
        copy_text(&trace->strategy, strategy, err) == 0)
        return 0;
    trace_free(trace);
    return -1;
}

int trace_hypotheses(Trace *trace, int count, Error *err) {
    if (count <= trace->count) return 0;
    TraceHypothesis *more = realloc(trace->hypotheses, (size_t)count * sizeof *more);
    if (!more) return error_set(err, "out of memory for a trace of %d hypotheses", count);
    trace->hypotheses = more;
    memset(more + trace->count, 0, (size_t)(count - trace->count) * sizeof *more);
    for (; trace->count < count; trace->count++) {
        more[trace->count].text = strdup("");
        if (!more[trace->count].text) return error_set(err, "out of memory for a trace");
    }
    return 0;
}

int trace_fix(TraceHypothesis *h, int position, Error *err) {
    if (!h->fixed) h->fixed = calloc((size_t)h->length, sizeof *h->fixed);
    if (!h->fixed) return error_set(err, "out of memory for a trace");
    h->fixed[position] = true;
    return 0;
}

int trace_room(TraceHypothesis *h, Error *err) {
    if (h->steps < h->capacity) return 0;
    int capacity = h->capacity ? 2 * h->capacity : h->planned < 64 ? h->planned : 64;
    if (capacity > h->planned) capacity = h->planned;
    size_t cells = (size_t)capacity * (size_t)h->length;
    TraceEntry *entries = realloc(h->entries, cells * sizeof *entries);
    if (entries) h->entries = entries;
    bool *evaluated = realloc(h->evaluated, (size_t)capacity * sizeof *evaluated);
    if (evaluated) h->evaluated = evaluated;
    if (!entries || !evaluated)
        return error_set(err, "out of memory for a trace of %d steps", capacity);
    h->capacity = capacity;
    return 0;
}

/* A number after a round trip through JSON. */
static double rounded(double score) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.*g", JSON_DIGITS, score);
    return strtod(digits, NULL);
}

/* ---- Steps. ---- */

int trace_step(Trace *trace, const Tokenizer *tokenizer, const DecodeStep *step, Error *err) {
    TRY(trace_hypotheses(trace, step->hypothesis + 1, err));
    TraceHypothesis *h = &trace->hypotheses[step->hypothesis];
    if (!h->planned) h->length = step->length, h->planned = step->steps;
    if (step->length != h->length || step->steps != h->planned || step->step != h->steps + 1)
        return error_set(err,
                         "a trace's step %d of %d with %d tokens does not follow step %d of %d "
                         "with %d",
                         step->step, step->steps, step->length, h->steps, h->planned, h->length);
    TRY(trace_room(h, err));
    TraceEntry *entries = h->entries + (size_t)h->steps * (size_t)h->length;
    int32_t mask = tokenizer_mask_id(tokenizer);
    for (int i = 0; i < h->length; i++) {
        const TraceCell *cell = &step->cells[i];
        if (!h->steps && step->fixed && step->fixed[i] != mask) TRY(trace_fix(h, i, err));
        int32_t ids[2] = {cell->token, cell->proposal.token};
        const char *pieces[2];
        for (int k = 0; k < 2; k++) {
            pieces[k] = trace_piece(trace, ids[k], tokenizer_piece(tokenizer, ids[k]), err);
            if (!pieces[k]) return -1;
        }
        entries[i] = (TraceEntry){.id = cell->token,
                                  .piece = pieces[0],
                                  .score = cell->token == mask ? -INFINITY : cell->score,
                                  .masked = cell->token == mask,
                                  .proposal = cell->proposal.token,
                                  .proposal_piece = pieces[1],
                                  .proposal_score = cell->proposal.score};
    }
    h->evaluated[h->steps++] = step->evaluated;
    return 0;
}

int trace_open_count(const TraceHypothesis *h) {
    int open = 0;
    for (int i = 0; i < h->length; i++) open += !trace_fixed(h, i);
    return open;
}

int trace_filled(const TraceHypothesis *h, const TraceEntry *entries) {
    int filled = 0;
    for (int i = 0; i < h->length; i++) filled += !trace_fixed(h, i) && !entries[i].masked;
    return filled;
}

bool trace_changes(const TraceHypothesis *h, int step) {
    const TraceEntry *now = trace_entries(h, step);
    const TraceEntry *before = step ? trace_entries(h, step - 1) : NULL;
    for (int i = 0; i < h->length; i++)
        if (before ? now[i].id != before[i].id : !now[i].masked && !trace_fixed(h, i)) return true;
    return false;
}

/* Top-k alternatives and attention. */
static int add_inspection(Trace *trace, int index, const AnswerInspection *inspection,
                          const Tokenizer *tokenizer, Error *err) {
    const TraceHypothesis *h = &trace->hypotheses[index];
    if (inspection->maps && inspection->grid == trace->geometry.grid)
        TRY(trace_attention(trace, index, inspection->maps, err));
    for (int s = 0; s < h->steps && inspection->alternatives; s++)
        for (int i = 0; i < h->length; i++) {
            const Proposal *all = answer_inspection_top_k(inspection, s + 1, i);
            Proposal rest[64];
            int count = 0;
            if (trace_fixed(h, i)) continue;
            for (int k = 0; all && k < inspection->top_k && count < 64; k++)
                if (all[k].token >= 0 && all[k].token != trace_entries(h, s)[i].proposal)
                    rest[count++] = all[k];
            if (count) TRY(trace_alternatives(trace, index, s, i, rest, count, tokenizer, err));
        }
    return 0;
}

/* The results of a hypothesis. */
static int finish_hypothesis(Trace *trace, int index, const Answers *answers, int answer,
                             int result, const Tokenizer *tokenizer, Error *err) {
    const DecodeResult *r = &answers->results[result];
    TraceHypothesis *h = &trace->hypotheses[index];
    if (h->steps != r->steps || h->length != r->length)
        return error_set(err, "a trace has %d steps of %d tokens, and the answer %d of %d",
                         h->steps, h->length, r->steps, r->length);
    char *text;
    TRY(answers_text(answers, answer, result, tokenizer, &text, err));
    free(h->text);
    h->text = text;
    h->sample = answers->specs[result].sample;
    h->evaluations = r->evaluations, h->score = rounded(r->score);
    return answers->inspections
               ? add_inspection(trace, index, &answers->inspections[result], tokenizer, err)
               : 0;
}

/* Failed hypotheses have no answer to show. */
static void drop_hypothesis(Trace *trace, int index) {
    TraceHypothesis *h = &trace->hypotheses[index];
    hypothesis_free(h);
    memmove(h, h + 1, (size_t)(--trace->count - index) * sizeof *h);
}

int trace_finish(Trace *trace, const Answers *answers, int index, const Tokenizer *tokenizer,
                 Error *err) {
    const Answer *answer = &answers->items[index];
    TRY(trace_hypotheses(trace, answer->count, err));
    if (trace->count != answer->count)
        return error_set(err, "a trace has steps of %d hypotheses, and the answer %d", trace->count,
                         answer->count);
    for (int i = 0, result = answer->first; result < answer->first + answer->count; result++) {
        if (answers->results[result].error) {
            drop_hypothesis(trace, i);
            continue;
        }
        if (result == answer->best) trace->best = i;
        TRY(finish_hypothesis(trace, i++, answers, index, result, tokenizer, err));
    }
    if (trace->best < 0) return error_set(err, "no hypothesis could be decoded");
    trace->prompt_tokens = answer->prompt_tokens;
    trace->dropped_tokens = answer->dropped_tokens;
    trace->finished = true;
    return 0;
}

static int add_steps(Trace *trace, const Answers *answers, const Answer *answer,
                     const Tokenizer *tokenizer, Error *err) {
    for (int i = 0; i < answer->count; i++) {
        const DecodeResult *r = &answers->results[answer->first + i];
        if (!r->trace && r->error) continue;
        if (!r->trace) return error_set(err, "the answer was decoded without keeping its steps");
        for (int s = 0; s < r->steps; s++)
            TRY(trace_step(trace, tokenizer,
                           &(DecodeStep){.hypothesis = i,
                                         .step = s + 1,
                                         .steps = r->steps,
                                         .length = r->length,
                                         .evaluated = r->evaluated[s],
                                         .cells = r->trace + (size_t)s * (size_t)r->length,
                                         .fixed = answers->specs[answer->first + i].fixed},
                           err));
    }
    return 0;
}

int trace_from_answers(Trace *trace, const TraceAbout *about, const Answers *answers, int index,
                       const Tokenizer *tokenizer, Error *err) {
    TRY(trace_begin(trace, about, err));
    if (add_steps(trace, answers, &answers->items[index], tokenizer, err) == 0 &&
        trace_finish(trace, answers, index, tokenizer, err) == 0)
        return 0;
    trace_free(trace);
    return -1;
}

/* ---- What may be added. ---- */

int trace_geometry(Trace *trace, int width, int height, const PreprocessConfig *config, int grid,
                   Error *err) {
    TraceGeometry geometry = {width, height, config->size, grid, {0}};
    TRY(preprocess_map(&geometry.map, width, height, config, err));
    double *numbers[] = {&geometry.map.left, &geometry.map.top, &geometry.map.scale_x,
                         &geometry.map.scale_y};
    for (int i = 0; i < 4; i++) *numbers[i] = rounded(*numbers[i]);
    trace->geometry = geometry;
    return 0;
}

int trace_attention(Trace *trace, int hypothesis, const float *attention, Error *err) {
    if (hypothesis < 0 || hypothesis >= trace->count)
        return error_set(err, "a trace of %d hypotheses has no number %d", trace->count,
                         hypothesis);
    TraceHypothesis *h = &trace->hypotheses[hypothesis];
    size_t n = (size_t)h->length * (size_t)trace->geometry.grid * (size_t)trace->geometry.grid;
    if (!n) return error_set(err, "a trace without an image cannot have attention");
    for (size_t i = 0; i < n; i++)
        if (!(attention[i] >= 0 && attention[i] <= 1e30f))
            return error_set(err, "attention is %g: a finite number from 0 on is expected",
                             attention[i]);
    float *copy = malloc(n * sizeof *copy);
    if (!copy) return error_set(err, "out of memory for a trace's attention");
    memcpy(copy, attention, n * sizeof *copy);
    free(h->attention);
    h->attention = copy;
    return 0;
}

int trace_alternatives(Trace *trace, int hypothesis, int step, int position,
                       const Proposal *alternatives, int count, const Tokenizer *tokenizer,
                       Error *err) {
    if (hypothesis < 0 || hypothesis >= trace->count || step < 0 || position < 0 ||
        step >= trace->hypotheses[hypothesis].steps ||
        position >= trace->hypotheses[hypothesis].length)
        return error_set(err, "a trace has no hypothesis %d, step %d, position %d", hypothesis,
                         step, position);
    TraceHypothesis *h = &trace->hypotheses[hypothesis];
    TraceEntry *entry = &h->entries[(size_t)step * (size_t)h->length + (size_t)position];
    TraceAlternative *list = count > 0 ? calloc((size_t)count, sizeof *list) : NULL;
    if (count > 0 && !list) return error_set(err, "out of memory for a trace's alternatives");
    for (int i = 0; i < count; i++) {
        list[i].id = alternatives[i].token, list[i].score = alternatives[i].score;
        list[i].piece = trace_piece(trace, list[i].id, tokenizer_piece(tokenizer, list[i].id), err);
        if (list[i].piece && !isnan(list[i].score)) continue;
        if (list[i].piece) error_set(err, "the score of an alternative is not a number");
        free(list);
        return -1;
    }
    free(entry->alternatives);
    entry->alternatives = list, entry->alternative_count = count > 0 ? count : 0;
    return 0;
}
