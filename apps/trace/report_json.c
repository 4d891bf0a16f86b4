#include "apps/trace/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/report.h"
#include "apps/trace/trace_parts.h"

/* ---- JSON. ---- */

static json_t *json_tokens(const ef_token *tokens, int length) {
    json_t *list = json_array();
    for (int i = 0; i < length; i++) {
        json_t *token =
            json_pack("{s:i, s:o, s:o}", "id", (int)tokens[i].id, "piece",
                      json_text(tokens[i].piece), "score", json_score((double)tokens[i].score));
        if (tokens[i].fixed) json_object_set_new(token, "fixed", json_true());
        json_array_append_new(list, token);
    }
    return list;
}

static json_t *json_hypotheses(const ef_answers *answers, size_t i) {
    json_t *list = json_array();
    for (int k = 0; k < ef_answer_hypotheses(answers, i); k++) {
        const ef_hypothesis *h = ef_answer_hypothesis(answers, i, k);
        json_array_append_new(list,
                              json_pack("{s:o, s:i, s:i, s:o, s:i}", "text", json_text(h->text),
                                        "length", h->length, "sample", h->sample, "score",
                                        json_score(h->score), "evaluations", h->evaluations));
    }
    return list;
}

/* In the order in which they were given. */
static json_t *json_choices(const ef_answers *answers, size_t i) {
    json_t *list = json_array();
    for (size_t k = 0; k < ef_answer_choices(answers, i); k++) {
        const ef_choice *c = ef_answer_choice(answers, i, k);
        json_array_append_new(list, json_pack("{s:o, s:f, s:o, s:o, s:i}", "text",
                                              json_text(c->text), "probability", c->probability,
                                              "score", json_score(c->score), "length_score",
                                              json_score(c->length_score), "length", c->length));
    }
    return list;
}

/* The guidance, and whether the answer may be another one than that of exact decoding. */
static void json_approximate(json_t *object, const DecodeOptions *options) {
    if (object && options->guidance > 0)
        json_object_set_new(object, "guidance", json_real((double)options->guidance));
    if (!object || !decode_approximate(options)) return;
    json_object_set_new(object, "approximate", json_true());
    if (options->early_stop)
        json_object_set_new(object, "early_stop", json_integer(options->early_stop));
    if (options->prefix_cache)
        json_object_set_new(object, "prefix_cache", json_integer(options->prefix_cache));
}

static json_t *json_asked(const Asked *asked) {
    json_t *object = json_object();
    if (asked->line) json_object_set_new(object, "line", json_integer(asked->line));
    if (asked->image) json_object_set_new(object, "image", json_text(asked->image));
    if (asked->id) json_object_set_new(object, "id", json_deep_copy(asked->id));
    if (asked->text) json_object_set_new(object, asked->text_key, json_text(asked->text));
    if (asked->answer_template)
        json_object_set_new(object, "template", json_text(asked->answer_template));
    return object;
}

static void json_dropped(json_t *object, const ef_answers *answers, size_t i) {
    int dropped = ef_answer_dropped_tokens(answers, i);
    int turns = ef_answer_dropped_turns(answers, i);
    if (object && dropped) json_object_set_new(object, "dropped_tokens", json_integer(dropped));
    if (object && turns) json_object_set_new(object, "dropped_turns", json_integer(turns));
}

static void json_sure(json_t *object, const Asked *asked, const ef_answers *answers, size_t i) {
    double probability = ef_answer_probability(answers, i);
    if (!object || !asked->threshold || isnan(probability)) return;
    json_object_set_new(object, "probability", json_real(probability));
    json_object_set_new(object, "sure", json_boolean(probability >= *asked->threshold));
}

/* ---- Steps. ---- */

int step_traces_open(StepTraces *t, int most, Error *err) {
    *t = (StepTraces){.items = calloc((size_t)most, sizeof *t->items)};
    return t->items ? 0 : error_set(err, "out of memory for %d traces", most);
}

int step_traces_add(StepTraces *t, const Asked *asked, const DecodeOptions *options, Error *err) {
    const TraceAbout about = {.image = asked->image,
                              .question = asked->text,
                              .is_prompt = !strcmp(asked->text_key, "prompt"),
                              .options = options,
                              .answer_template = asked->answer_template};
    TRY(trace_begin(&t->items[t->count], &about, err));
    t->count++;
    return 0;
}

void step_traces_free(StepTraces *t) {
    for (int i = 0; i < t->count; i++) trace_free(&t->items[i]);
    free(t->items);
    *t = (StepTraces){0};
}

static int entry_fill(TraceEntry *entry, Trace *trace, const ef_token *token,
                      const ef_token *proposal, Error *err) {
    *entry = (TraceEntry){.id = token->id,
                          .piece = trace_piece(trace, token->id, token->piece, err),
                          .score = token->score,
                          .masked = token->masked,
                          .proposal = proposal->id,
                          .proposal_piece = trace_piece(trace, proposal->id, proposal->piece, err),
                          .proposal_score = proposal->score};
    return entry->piece && entry->proposal_piece ? 0 : -1;
}

static int step_keep(Trace *trace, const ef_step *step, Error *err) {
    TRY(trace_hypotheses(trace, step->hypothesis + 1, err));
    TraceHypothesis *h = &trace->hypotheses[step->hypothesis];
    h->length = step->length, h->planned = step->steps;
    TRY(trace_room(h, err));
    TraceEntry *entries = h->entries + (size_t)h->steps * (size_t)h->length;
    for (int i = 0; i < h->length; i++) {
        if (!h->steps && step->tokens[i].fixed) TRY(trace_fix(h, i, err));
        TRY(entry_fill(&entries[i], trace, &step->tokens[i], &step->proposals[i], err));
    }
    h->evaluated[h->steps++] = step->evaluated;
    return 0;
}

void step_traces_step(void *traces, const ef_step *step) {
    StepTraces *t = traces;
    if (!t->failed) t->failed = step_keep(&t->items[step->request], step, &t->error) != 0;
}

/* Adds what is known at the end. */
static int trace_end(Trace *trace, const ef_answers *answers, size_t i, Error *err) {
    if (trace->count != ef_answer_hypotheses(answers, i))
        return error_set(err, "a trace has steps of %d hypotheses, and the answer %d", trace->count,
                         ef_answer_hypotheses(answers, i));
    for (int k = 0; k < trace->count; k++) {
        const ef_hypothesis *h = ef_answer_hypothesis(answers, i, k);
        TraceHypothesis *kept = &trace->hypotheses[k];
        free(kept->text);
        kept->text = strdup(h->text);
        if (!kept->text) return error_set(err, "out of memory for a trace");
        kept->sample = h->sample, kept->evaluations = h->evaluations, kept->score = h->score;
    }
    trace->best = ef_answer_best(answers, i);
    trace->prompt_tokens = ef_answer_prompt_tokens(answers, i);
    trace->dropped_tokens = ef_answer_dropped_tokens(answers, i);
    trace->finished = true;
    return 0;
}

int step_traces_finish(StepTraces *t, const ef_answers *answers, size_t i, Error *err) {
    if (t->failed) return error_set(err, "%s", t->error.text);
    return trace_end(&t->items[i], answers, i, err);
}

/* The whole trace (trace.h) as JSON. */
static int report_trace(const Asked *asked, const ef_answers *answers, size_t i,
                        const DecodeOptions *options, StepTraces *traces, Error *err) {
    TRY(step_traces_finish(traces, answers, i, err));
    json_t *object = trace_json(&traces->items[i]);
    if (object && asked->line) json_object_set_new(object, "line", json_integer(asked->line));
    json_dropped(object, answers, i);
    json_sure(object, asked, answers, i);
    json_approximate(object, options);
    return json_print_line(object, JSON_DIGITS, err);
}

int report_json(const Asked *asked, const ef_answers *answers, size_t i,
                const DecodeOptions *options, StepTraces *traces, Error *err) {
    if (traces) return report_trace(asked, answers, i, options, traces, err);
    const ef_hypothesis *best = ef_answer_hypothesis(answers, i, ef_answer_best(answers, i));
    bool chosen = ef_answer_choices(answers, i) > 0;
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, options);
    json_t *object = json_asked(asked);
    json_object_set_new(object, "answer", json_text(ef_answer_text(answers, i)));
    json_object_set_new(object, "score", json_score(best->score));
    json_object_set_new(object, "length", json_integer(best->length));
    json_sure(object, asked, answers, i);
    json_object_set_new(object, "tokens", json_tokens(best->tokens, best->length));
    json_object_set_new(object, "steps", json_integer(best->steps));
    json_object_set_new(object, "evaluations", json_integer(ef_answer_evaluations(answers, i)));
    if (!chosen) {
        json_object_set_new(object, "strategy", json_string(strategy));
        json_approximate(object, options);
        json_object_set_new(object, "seed", json_integer((json_int_t)options->seed));
    }
    json_object_set_new(object, "prompt_tokens", json_integer(ef_answer_prompt_tokens(answers, i)));
    json_dropped(object, answers, i);
    if (chosen)
        json_object_set_new(object, "choices", json_choices(answers, i));
    else
        json_object_set_new(object, "hypotheses", json_hypotheses(answers, i));
    return json_print_line(object, JSON_DIGITS, err);
}

int report_json_none(const Asked *asked, const char *error, Error *err) {
    json_t *object = json_asked(asked);
    if (error)
        json_object_set_new(object, "error", json_text(error));
    else
        json_object_set_new(object, "answer", json_string(""));
    return json_print_line(object, JSON_DIGITS, err);
}
