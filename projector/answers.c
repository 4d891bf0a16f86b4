#include "projector/answers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "language/infill_causal.h"

AnswerOptions answer_options_default(void) {
    return (AnswerOptions){.decode = decode_options_default(), .samples = 1};
}

ChoiceOptions answer_choice_options(const AnswerOptions *o) {
    return (ChoiceOptions){.batch_tokens = o->batch_tokens,
                           .no_kv_cache = o->no_kv_cache,
                           .cancel = o->cancel,
                           .long_prompts = o->long_prompts,
                           .by = o->choose_by,
                           .samples = o->likelihood_samples,
                           .seed = o->decode.seed};
}

int answer_decode_options(const Multimodal *m, DecodeOptions *options, Error *err) {
    const DecodeOptions usual = decode_options_default();
    char name[128], expected[128];
    if (m->attention != ATTENTION_CAUSAL) return 0;
    if (options->early_stop)
        return error_set(err, "an early stop looks at the whole proposed answer, and this model is "
                              "autoregressive: it proposes one token at a time; leave it out");
    if (options->guidance > 0)
        return error_set(err, "guidance compares with the prompt masked, and this model is "
                              "autoregressive: it has no mask token; leave it out");
    if (options->strategy == DECODE_AR) return 0;
    decode_strategy_name(name, sizeof name, options);
    decode_strategy_name(expected, sizeof expected, &usual);
    if (strcmp(name, expected) != 0)
        return error_set(err,
                         "this model is autoregressive: it writes from left to right (\"ar\"), not "
                         "by the strategy %s",
                         name);
    options->strategy = DECODE_AR;
    return 0;
}

const int32_t *answer_stops(const Multimodal *m, int *count) {
    *count = m->attention == ATTENTION_CAUSAL ? m->language.stop_count : 0;
    return m->language.stops;
}

int answer_beam(const AnswerOptions *options, bool has_template) {
    if (options->length_beam > 0) return options->length_beam;
    return has_template ? TEMPLATE_BEAM : 1;
}

int answer_at_once(const AnswerOptions *a, int most) {
    enum { TOGETHER = 4096 }; /* hypotheses of up to DECODE_STEPS steps */
    int64_t each = (int64_t)answer_beam(a, false) * (a->samples > 0 ? a->samples : 1);
    each *= 1 + a->decode.iterations / (DECODE_STEPS + 1);
    int64_t fit = TOGETHER / each;
    return fit < 1 ? 1 : fit < most ? (int)fit : most;
}

/* ---- Hypotheses. ---- */

static int check_logits(const float *logits, int classes, Error *why) {
    for (int c = 0; c < classes; c++)
        if (!isfinite(logits[c]))
            return error_set(why,
                             "the length predictor's score of length %d is %g, a finite number "
                             "expected: its weights, or the language model's, are damaged; use "
                             "another length predictor, or give the answer's length",
                             c + 1, (double)logits[c]);
    return 0;
}

/* The specs of one length of a prompt, of a template or not (`lengths` of gaps NULL); logits NULL:
 * the length is given. */
static int length_specs(DecodeSpec spec, const Template *t, const int *lengths, const float *logits,
                        int classes, int32_t mask, const AnswerOptions *options, Answers *out,
                        Error *err) {
    int samples = options->samples > 0 ? options->samples : 1;
    if (logits && options->length_weight > 0 && spec.length <= classes)
        spec.prior =
            (float)(options->length_weight * length_log_probability(logits, classes, spec.length));
    for (int s = 0; s < samples; s++) {
        int32_t *canvas = NULL;
        if (t) {
            canvas = malloc(((size_t)spec.length + (size_t)t->gaps) * sizeof *canvas);
            if (!canvas) return error_set(err, "out of memory for a canvas");
            template_canvas(t, lengths, mask, canvas);
            for (int i = 0; i < t->gaps; i++) canvas[spec.length + i] = lengths[i];
        }
        spec.sample = s, spec.fixed = canvas;
        out->canvases[out->result_count] = canvas;
        out->specs[out->result_count++] = spec;
    }
    return 0;
}

/* What the lengths of one request are chosen from. */
typedef struct Choosing {
    int prompt, given, beam, longest, classes;
    const float *logits; /* NULL: the length is given, or, of a template, not known */
    int32_t mask;
} Choosing;

static int request_specs(const Choosing *c, const AnswerOptions *options, Answers *out,
                         Error *err) {
    int *lengths = malloc((size_t)c->beam * sizeof *lengths), n = 1, status = 0;
    if (!lengths) return error_set(err, "out of memory for %d lengths", c->beam);
    lengths[0] = c->given;
    if (c->logits) n = length_choose(lengths, c->beam, c->logits, c->classes, c->longest);
    for (int l = 0; l < n && status == 0; l++)
        status = length_specs((DecodeSpec){.request = c->prompt, .length = lengths[l]}, NULL, NULL,
                              c->logits, c->classes, c->mask, options, out, err);
    free(lengths);
    return status;
}

static int template_specs(const Choosing *c, const Template *t, const AnswerOptions *options,
                          Answers *out, Error *err) {
    int *lengths = malloc((size_t)c->beam * (size_t)t->gaps * sizeof *lengths);
    if (!lengths) return error_set(err, "out of memory for the lengths of %d gaps", t->gaps);
    int n = template_lengths(t, c->beam, c->given, c->logits, c->classes, c->longest, lengths, err);
    int status = n < 0 ? -1
                 : n == 0
                     ? error_set(err, "a template of %d tokens does not fit", template_least(t))
                     : 0;
    for (int l = 0; l < n && status == 0; l++) {
        const int *own = lengths + (size_t)l * (size_t)t->gaps;
        const DecodeSpec spec = {.request = c->prompt, .length = template_length(t, own)};
        status = length_specs(spec, t, own, c->logits, c->classes, c->mask, options, out, err);
    }
    free(lengths);
    return status;
}

int answers_take_specs(Answers *out, size_t most, Error *err) {
    out->specs = malloc((most + 1) * sizeof *out->specs);
    out->canvases = calloc(most + 1, sizeof *out->canvases);
    return out->specs && out->canvases ? 0 : error_set(err, "out of memory for %zu answers", most);
}

bool answer_predicts(const Multimodal *m, const Answer *a, int given) {
    return given <= 0 && m->length &&
           (!a->template || template_predicted(a->template, m->length, a));
}

int answer_specs(const Multimodal *m, Infill *infill, int prompt, int given, const float *logits,
                 const AnswerOptions *options, Answer *a, Answers *out, Error *err) {
    Error why;
    const Choosing c = {.prompt = prompt,
                        .given = given,
                        .beam = answer_beam(options, a->template != NULL),
                        .longest = infill_longest_answer(infill, prompt),
                        .classes = logits ? m->length->classes : 0,
                        .logits = logits,
                        .mask = tokenizer_mask_id(m->tokenizer)};
    int status;
    a->first = out->result_count;
    out->language = m->language;
    if (logits && check_logits(logits, c.classes, &why))
        status = answer_refuse(a, &why, err);
    else if (a->template)
        status = template_specs(&c, a->template, options, out, err);
    else
        status = request_specs(&c, options, out, err);
    a->count = out->result_count - a->first;
    return status;
}

/* One spec for each length and sample of every prompt. */
static int specs_make(const Multimodal *m, Infill *infill, const Prompts *prompts,
                      const AnswerRequest *requests, const AnswerOptions *options, Answers *out,
                      Error *err) {
    int samples = options->samples > 0 ? options->samples : 1;
    int classes = prompts->predict ? m->length->classes : 0;
    size_t n = (size_t)prompts->count, most = 0;
    for (int i = 0; i < prompts->count; i++)
        most += (size_t)answer_beam(options, out->items[prompts->request[i]].template != NULL) *
                (size_t)samples;
    float *logits = malloc((n * (size_t)classes + 1) * sizeof *logits);
    int status = logits ? answers_take_specs(out, most, err) : error_set(err, "out of memory");
    if (status == 0 && prompts->predict) status = infill_lengths(infill, m->length, logits, err);
    for (int i = 0; status == 0 && i < prompts->count; i++) {
        Answer *a = &out->items[prompts->request[i]];
        int given = answer_given_length(m, &requests[prompts->request[i]]);
        const float *own =
            classes && answer_predicts(m, a, given) ? logits + (size_t)i * (size_t)classes : NULL;
        status = answer_specs(m, infill, i, given, own, options, a, out, err);
    }
    free(logits);
    return status;
}

static bool inspection_wanted(const AnswerOptions *options) {
    return options->inspection.top_k > 0 || options->inspection.attention;
}

/* If one hypothesis failed, the model is damaged, and the others are not to be trusted. */
int answer_choose(const Multimodal *m, Answer *a, int request, const Answers *out, Error *err) {
    for (int h = a->first; h < a->first + a->count; h++) {
        Error why;
        if (!out->results[h].error) continue;
        error_write(&why,
                    "the language model's scores are not finite: its weights, or those of the "
                    "vision tower or projector, are damaged (%s)",
                    out->results[h].error);
        return answer_refuse(a, &why, err);
    }
    a->best =
        a->first + decode_best(out->results + a->first, out->specs + a->first, a->count, request);
    return answers_text(out, (int)(a - out->items), a->best, m->tokenizer, &a->text, err);
}

int answers_text(const Answers *answers, int i, int result, const Tokenizer *tokenizer, char **text,
                 Error *err) {
    const DecodeResult *r = &answers->results[result];
    const Template *t = answers->items[i].template;
    if (!t) {
        int length = language_text_length(&answers->language, r->tokens, r->length);
        return tokenizer_decode(tokenizer, r->tokens, (size_t)length, text, err);
    }
    return template_text(t, tokenizer, answers->canvases[result] + r->length, r->tokens, text, err);
}

/* A watch on its way to the caller, who knows requests by their own numbers. */
typedef struct Watching {
    const AnswerOptions *options;
    const Prompts *prompts;
    const Answers *answers;
    int first; /* index of the run's first hypothesis */
} Watching;

static void watching_step(void *user, const DecodeStep *step) {
    const Watching *w = user;
    DecodeStep told = *step;
    told.request = w->prompts->request[step->request];
    told.hypothesis += w->first;
    told.of_request = told.hypothesis - w->answers->items[told.request].first;
    w->options->callback(w->options->user, &told);
}

/* How many hypotheses from `first` on have prefixes that are kept together: all whose rows are not
 * more than two batches', at least one. */
static int kept_together(const Infill *infill, const Answers *out, int first, int batch_tokens) {
    int64_t most = 2 * (int64_t)(batch_tokens > 0 ? batch_tokens : 4096), rows = 0;
    int end = first;
    for (; end < out->result_count; end++) {
        rows += infill_prefix_length(infill, out->specs[end].request);
        if (end > first && rows > most) break;
    }
    return end - first;
}

/* How many of an autoregressive model's hypotheses from `first` on are decoded together: whose
 * rows are kept, at most eight batches', at least one. */
static int causal_together(const Infill *infill, const Answers *out, int first, int batch_tokens) {
    const int64_t most = 8 * (int64_t)(batch_tokens > 0 ? batch_tokens : 4096);
    int64_t rows = 0;
    int end = first;
    for (; end < out->result_count; end++) {
        rows += infill_prefix_length(infill, out->specs[end].request) + out->specs[end].length;
        if (end > first && rows > most) break;
    }
    return end - first;
}

static int decode_causal(Infill *infill, DecodeRun run, Watching *watching, int batch_tokens,
                         Answers *out, Error *err) {
    out->results = calloc((size_t)out->result_count + 1, sizeof *out->results);
    if (!out->results) return error_set(err, "out of memory for %d answers", out->result_count);
    run.evaluate = infill_causal_evaluate;
    for (int first = 0, n; first < out->result_count; first += n) {
        DecodeResult *results;
        InfillCausal *causal;
        n = causal_together(infill, out, first, batch_tokens);
        run.specs = out->specs + first, run.count = n, watching->first = first;
        TRY(infill_causal_open(&causal, infill, run.specs, n, err));
        run.model = causal;
        int status = decode_run(&run, &results, err);
        infill_causal_close(causal);
        TRY(status);
        for (int h = 0; h < n; h++) out->results[first + h] = results[h];
        free(results);
    }
    return 0;
}

/* With a prefix cache: the hypotheses, of which none depends on the others, in groups whose
 * prefixes fit the memory. */
static int decode_kept(Infill *infill, DecodeRun run, Watching *watching, int batch_tokens,
                       Answers *out, Error *err) {
    out->results = calloc((size_t)out->result_count + 1, sizeof *out->results);
    if (!out->results) return error_set(err, "out of memory for %d answers", out->result_count);
    for (int first = 0, n; first < out->result_count; first += n) {
        DecodeResult *results;
        n = kept_together(infill, out, first, batch_tokens);
        run.specs = out->specs + first, run.count = n, watching->first = first;
        TRY(infill_keep_prefixes(infill, run.specs, n, err));
        TRY(decode_run(&run, &results, err));
        for (int h = 0; h < n; h++) out->results[first + h] = results[h];
        free(results);
    }
    return 0;
}

static int answers_decode(const Multimodal *m, Infill *infill, const Prompts *prompts,
                          const AnswerOptions *options, Answers *out, Error *err) {
    int longest = 1;
    int64_t rows = 0;
    for (int i = 0; i < out->result_count; i++) {
        if (out->specs[i].length > longest) longest = out->specs[i].length;
        rows += out->specs[i].length + 1;
    }
    if (options->decode.guidance > 0) rows *= 2;
    if (m->attention != ATTENTION_CAUSAL || options->no_kv_cache || inspection_wanted(options))
        TRY(infill_reserve(infill, longest, rows, err));
    Watching watching = {options, prompts, out, 0};
    DecodeRun run = {
        .options = &options->decode,
        .specs = out->specs,
        .count = out->result_count,
        .mask_id = tokenizer_mask_id(m->tokenizer),
        .evaluate = infill_evaluate,
        .model = infill,
        .callback = options->callback ? watching_step : NULL,
        .user = &watching,
        .cancel = options->cancel,
        .trace = options->trace || inspection_wanted(options),
        .ends = {tokenizer_specials(m->tokenizer)->end, tokenizer_specials(m->tokenizer)->turn_end},
        .end_count = 2};
    run.stops = answer_stops(m, &run.stop_count);
    if (options->decode.prefix_cache)
        TRY(decode_kept(infill, run, &watching, options->batch_tokens, out, err));
    else if (m->attention == ATTENTION_CAUSAL && !options->no_kv_cache)
        TRY(decode_causal(infill, run, &watching, options->batch_tokens, out, err));
    else
        TRY(decode_run(&run, &out->results, err));
    for (int i = 0; i < prompts->count; i++) {
        Answer *a = &out->items[prompts->request[i]];
        if (!a->error) TRY(answer_choose(m, a, i, out, err));
    }
    return 0;
}

/* Looks back at what was decoded; the trace that this needs stays only if it was asked for. */
static int answers_inspections(const Multimodal *m, Infill *infill, const AnswerOptions *options,
                               Answers *out, Error *err) {
    size_t n = (size_t)out->result_count + 1;
    bool *wanted = calloc(n, sizeof *wanted);
    out->inspections = calloc(n, sizeof *out->inspections);
    int status = wanted && out->inspections
                     ? 0
                     : error_set(err, "out of memory for %d looks", out->result_count);
    for (int i = 0; i < out->count && status == 0; i++) {
        const Answer *a = &out->items[i];
        for (int h = a->first; h < a->first + a->count; h++)
            wanted[h] = options->inspection.all || h == a->best;
    }
    if (status == 0)
        status = answers_inspect(out->inspections, infill, out->specs, out->results, wanted,
                                 out->result_count, tokenizer_mask_id(m->tokenizer),
                                 m->tower ? tower_grid(m->tower) : 0,
                                 m->tower && tower_class_row(m->tower) ? 1 : 0, &options->decode,
                                 &options->inspection, err);
    free(wanted);
    for (int i = 0; i < out->result_count && !options->trace; i++) {
        free(out->results[i].trace), free(out->results[i].evaluated);
        out->results[i].trace = NULL, out->results[i].evaluated = NULL;
    }
    return status;
}

/* Everything after the ids: [prompts->count] requests, of which there is at least one. */
static int prompts_answer(const Multimodal *m, Tensor image_tokens, const Prompts *prompts,
                          const AnswerRequest *requests, const AnswerOptions *options,
                          Answers *answers, Error *err) {
    Infill *infill = NULL;
    InfillConfig config = {.model = m->language,
                           .device = m->device,
                           .pattern = m->attention,
                           .answer_position = m->answer_position,
                           .no_kv_cache = options->no_kv_cache,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .vocab_limit = tokenizer_size(m->tokenizer),
                           .batch_tokens = options->batch_tokens,
                           .prompts = prompts->items,
                           .prompt_count = prompts->count,
                           .image_tokens = image_tokens,
                           .image_rows = multimodal_image_rows(m),
                           .keep_hidden = prompts->predict,
                           .image_lead = m->image_lead_ids,
                           .image_lead_count = m->image_lead_count};
    double start = clock_seconds();
    int status = infill_open(&infill, &config, err);
    if (status == 0) status = specs_make(m, infill, prompts, requests, options, answers, err);
    double specified = clock_seconds();
    if (status == 0 && answers->result_count)
        status = answers_decode(m, infill, prompts, options, answers, err);
    double decoded = clock_seconds();
    if (status == 0 && answers->result_count && inspection_wanted(options))
        status = answers_inspections(m, infill, options, answers, err);
    answers->prefix_s = specified - start, answers->decode_s = decoded - specified;
    answers->inspect_s = clock_seconds() - decoded;
    if (infill) answers->counts = infill_counts(infill);
    infill_close(infill);
    /* From here on a spec's request is the caller's. */
    for (int i = 0; i < answers->result_count; i++)
        answers->specs[i].request = prompts->request[answers->specs[i].request];
    return status;
}

static int check_prefix_cache(const Multimodal *m, const AnswerOptions *options, Error *err) {
    if (!options->decode.prefix_cache) return 0;
    if (m->attention != ATTENTION_FULL)
        return error_set(err,
                         "a prefix cache is for models with full attention: this one is "
                         "%s, and keeps the prompt's keys and values always, exactly",
                         attention_name(m->attention));
    if (options->no_kv_cache)
        return error_set(err, "a prefix cache keeps keys and values, which no KV cache excludes");
    if (inspection_wanted(options))
        return error_set(err, "top-k alternatives and attention are computed exactly, which a "
                              "prefix cache's steps are not: use one or the other");
    return 0;
}

static int check_guidance(const AnswerOptions *options, Error *err) {
    if (!(options->decode.guidance > 0)) return 0;
    if (options->decode.prefix_cache)
        return error_set(err, "guidance and a prefix cache exclude each other: use one of them");
    if (inspection_wanted(options))
        return error_set(err, "top-k alternatives and attention are of the prompt alone, guidance "
                              "is not: use one or the other");
    return 0;
}

int multimodal_answer(const Multimodal *m, Tensor image_tokens, const AnswerRequest *requests,
                      int count, const AnswerOptions *given, Answers *answers, Error *err) {
    AnswerOptions how = *given;
    const AnswerOptions *options = &how;
    *answers = (Answers){0};
    if (!language_present(&m->language) || !m->tokenizer)
        return error_set(err, "this model cannot write: it has no language part");
    TRY(multimodal_check_mask(m, err));
    TRY(answer_decode_options(m, &how.decode, err));
    TRY(check_prefix_cache(m, options, err));
    TRY(check_guidance(options, err));
    Prompts prompts = {0};
    int rows = multimodal_image_rows(m), images = 0;
    if (rows > 0 && tensor_present(image_tokens)) images = (int)(image_tokens.shape[0] / rows);
    double start = clock_seconds();
    answers->items = calloc((size_t)count + 1, sizeof *answers->items);
    answers->count = count;
    int status = answers->items ? prompts_encode(&prompts, m, requests, count, images,
                                                 options->long_prompts, answers->items, err)
                                : error_set(err, "out of memory for %d answers", count);
    answers->tokenize_s = clock_seconds() - start;
    for (int i = 0; i < prompts.count; i++) prompts.items[i].guided = options->decode.guidance > 0;
    if (status == 0 && prompts.count)
        status = prompts_answer(m, image_tokens, &prompts, requests, options, answers, err);
    prompts_free(&prompts);
    if (status) answers_free(answers);
    return status;
}

void answers_free(Answers *a) {
    for (int i = 0; i < a->count && a->items; i++) {
        free(a->items[i].text), free(a->items[i].error);
        answer_template_free(a->items[i].template);
    }
    for (int i = 0; i < a->result_count && a->canvases; i++) free(a->canvases[i]);
    free(a->canvases);
    for (int i = 0; i < a->result_count && a->inspections; i++)
        answer_inspection_free(&a->inspections[i]);
    free(a->inspections);
    if (a->results) decode_results_free(a->results, a->result_count);
    free(a->items), free(a->specs);
    *a = (Answers){0};
}
