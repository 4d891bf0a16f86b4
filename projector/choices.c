#include "projector/choices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "language/canvas_cache.h"
#include "language/sentencepiece.h"
#include "projector/answer_text.h"

const char *const choice_by_names[] = {
    [CHOICE_BY_DENOISING] = "denoising", [CHOICE_BY_LIKELIHOOD] = "likelihood", NULL};

/* ---- The choices' tokens. ---- */

enum { SHOWN = 40 }; /* bytes of a choice in a message */

/* Names the choice that an error is about. */
static int wrong_choice(const ChoiceRequest *r, size_t number, Error *why) {
    char shown[SHOWN + 1] = "";
    if (r->choices[number]) {
        size_t size = strnlen(r->choices[number], SHOWN);
        size = utf8_valid_prefix(r->choices[number], size);
        memcpy(shown, r->choices[number], size), shown[size] = 0;
    }
    return error_context(why, "choice %zu (\"%s\")", number + 1, shown);
}

/* Appends a choice's ids. */
static int choice_encode(const Multimodal *m, const ChoiceRequest *r, const char *text, Ids *ids,
                         Error *why) {
    if (!text) return error_set(why, "no text is given (NULL)");
    size_t size = strnlen(text, (size_t)PROMPT_BYTES + 1), before = ids->count;
    if (size > PROMPT_BYTES)
        return error_set_code(why, ERROR_TOO_LONG, "it has more than %d bytes", PROMPT_BYTES);
    size_t valid = utf8_valid_prefix(text, size);
    if (valid < size)
        return error_set(why, "byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8",
                         valid, (unsigned char)text[valid]);
    const TokenizerSpecials *specials = tokenizer_specials(m->tokenizer);
    bool blank = text[strspn(text, " \t\r\n\v\f")] == 0;
    const bool spaced = answer_after_space(&m->language, m->tokenizer, r->prompt);
    if (!blank) TRY(answer_text_encode(m->tokenizer, spaced, text, size, ids, why));
    if (ids->count == before) return error_set(why, "it is empty: there is nothing to answer");
    for (size_t i = before; i < ids->count; i++) {
        int32_t id = ids->ids[i];
        if (id == specials->unknown)
            return error_set(why, "it has characters that the model's tokenizer does not know, so "
                                  "that no answer has them");
        if (id == specials->begin || id == specials->pad || id == specials->end ||
            id == specials->mask)
            return error_set(why, "it contains %s, which no answer does",
                             tokenizer_piece(m->tokenizer, id));
    }
    return 0;
}

static int check_choice_length(const Multimodal *m, const ChoiceRequest *r, int length,
                               Error *why) {
    if (multimodal_check_length(m, r->image >= 0, length, why)) {
        why->code = ERROR_TOO_LONG;
        return -1;
    }
    if (!m->length || length <= m->length->classes) return 0;
    return error_set_code(why, ERROR_TOO_LONG,
                          "it is %d tokens long; the length predictor knows answers of %d at most",
                          length, m->length->classes);
}

/* Two choices of the same tokens are one to the model. */
typedef struct Sorted {
    const int32_t *ids;
    int length;
    size_t number;
} Sorted;

static int sorted_compare(const void *a, const void *b) {
    const Sorted *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    int order = memcmp(x->ids, y->ids, (size_t)x->length * sizeof *x->ids);
    if (order) return order;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int check_twice(const ChoiceRequest *r, const Ids *ids, const int *lengths, Error *why) {
    Sorted *sorted = malloc(r->count * sizeof *sorted);
    if (!sorted) return error_set(why, "out of memory for %zu choices", r->count);
    const int32_t *at = ids->ids;
    for (size_t i = 0; i < r->count; at += lengths[i++]) sorted[i] = (Sorted){at, lengths[i], i};
    qsort(sorted, r->count, sizeof *sorted, sorted_compare);
    int status = 0;
    for (size_t i = 1; i < r->count && status == 0; i++) {
        const Sorted *a = &sorted[i - 1], *b = &sorted[i];
        if (a->length != b->length ||
            memcmp(a->ids, b->ids, (size_t)a->length * sizeof *a->ids) != 0)
            continue;
        error_set(why, "it is the same as choice %zu to the model: give each once", a->number + 1);
        status = wrong_choice(r, b->number, why);
    }
    free(sorted);
    return status;
}

/* The ids of a request's choices, end to end, and the length of each. */
static int choices_encode(const Multimodal *m, const ChoiceRequest *r, Ids *ids, int *lengths,
                          int *longest, Error *why) {
    *longest = 0;
    for (size_t i = 0; i < r->count; i++) {
        size_t before = ids->count;
        if (choice_encode(m, r, r->choices[i], ids, why) || answer_pad(m, ids, before, why))
            return wrong_choice(r, i, why);
        lengths[i] = (int)(ids->count - before);
        if (lengths[i] <= *longest) continue;
        if (check_choice_length(m, r, lengths[i], why)) return wrong_choice(r, i, why);
        *longest = lengths[i];
    }
    return check_twice(r, ids, lengths, why);
}

static int check_count(const ChoiceRequest *r, Error *why) {
    if (r->count < 1 || !r->choices)
        return error_set(why, "no choices are given: there is nothing to choose from");
    if (r->count <= CHOICES_MOST) return 0;
    return error_set(why, "%zu choices: %d at most", r->count, CHOICES_MOST);
}

int choices_check(const Multimodal *m, const ChoiceRequest *r, int *longest, Error *why) {
    Ids ids = {0};
    *longest = 0;
    TRY(check_count(r, why));
    int *lengths = malloc(r->count * sizeof *lengths);
    int status = lengths ? choices_encode(m, r, &ids, lengths, longest, why)
                         : error_set(why, "out of memory for %zu choices", r->count);
    ids_free(&ids);
    free(lengths);
    return status;
}

/* Fills an answer's scores with the tokens of its choices, in one allocation for all of them: the
 * first choice's arrays begin it. */
static int scores_take(ChoiceAnswer *a, const Ids *ids, const int *lengths, size_t count,
                       Error *err) {
    a->scores = calloc(count, sizeof *a->scores);
    double *scores = malloc(ids->count * (sizeof *scores + sizeof *ids->ids));
    if (!a->scores || !scores) {
        free(scores);
        return error_set(err, "out of memory for %zu choices", count);
    }
    int32_t *tokens = (int32_t *)(scores + ids->count);
    memcpy(tokens, ids->ids, ids->count * sizeof *tokens);
    for (size_t i = 0; i < count; scores += lengths[i], tokens += lengths[i], i++)
        a->scores[i] = (ChoiceScore){.length = lengths[i], .tokens = tokens, .scores = scores};
    a->answer.count = (int)count;
    return 0;
}

/* The tokens of a request's choices; one whose choices are wrong is refused. */
static int request_choices(const Multimodal *m, const ChoiceRequest *r, ChoiceAnswer *a,
                           int *longest, Error *err) {
    Ids ids = {0};
    Error why;
    a->answer.best = -1;
    if (check_count(r, &why)) return answer_refuse(&a->answer, &why, err);
    int *lengths = malloc(r->count * sizeof *lengths);
    if (!lengths) return error_set(err, "out of memory for %zu choices", r->count);
    int status = choices_encode(m, r, &ids, lengths, longest, &why)
                     ? answer_refuse(&a->answer, &why, err)
                     : scores_take(a, &ids, lengths, r->count, err);
    ids_free(&ids);
    free(lengths);
    return status;
}

/* ---- Scoring. ---- */

/* A choice on its way: which of its tokens are written. */
typedef struct Candidate {
    int prompt;
    ChoiceAnswer *answer;
    ChoiceScore *choice;
    bool *written; /* [length] */
    size_t canvas; /* of this round: an entry of the canvas cache */
    int place;     /* among those that share it */
} Candidate;

typedef struct Scoring {
    const Multimodal *model;
    Infill *infill;
    const ChoiceOptions *options;
    Candidate *candidates;
    size_t count, cells; /* candidates, and their tokens */
    bool *written;       /* [cells] */
    int32_t *canvas;     /* [longest] */
    int longest;
} Scoring;

/* A round's canvases, each once, and what is asked of them: for a canvas of N rows that `sharers`
 * choices share, given and scores [N, sharers], of which written rows are not used. */
typedef struct Round {
    CanvasCache cache;
    DecodeCanvas *canvases;
    InspectRow *rows; /* parallel to the cache's cells */
    int *sharers;     /* of each canvas */
    int32_t *given;   /* [cells] of all candidates */
    double *scores;
    size_t *first; /* of each canvas, in given and scores */
} Round;

static void round_close(Round *r) {
    canvas_cache_free(&r->cache);
    free(r->canvases), free(r->rows), free(r->sharers), free(r->given), free(r->scores);
    free(r->first);
}

static int round_open(Round *r, const Scoring *s, Error *err) {
    size_t n = s->count + 1, cells = s->cells + 1;
    *r = (Round){.canvases = malloc(n * sizeof *r->canvases),
                 .rows = calloc(cells, sizeof *r->rows),
                 .sharers = calloc(n, sizeof *r->sharers),
                 .given = malloc(cells * sizeof *r->given),
                 .scores = malloc(cells * sizeof *r->scores),
                 .first = malloc(n * sizeof *r->first)};
    if (!r->canvases || !r->rows || !r->sharers || !r->given || !r->scores || !r->first)
        return error_set(err, "out of memory for %zu choices", s->count);
    return canvas_cache_take(&r->cache, n, cells, err);
}

/* The canvas of each candidate that is not finished after t tokens. */
static void round_collect(Round *r, Scoring *s, int t) {
    const int32_t mask = tokenizer_mask_id(s->model->tokenizer);
    for (size_t i = 0; i < s->count; i++) {
        Candidate *c = &s->candidates[i];
        bool fresh;
        if (c->choice->length <= t) continue;
        for (int k = 0; k < c->choice->length; k++)
            s->canvas[k] = c->written[k] ? c->choice->tokens[k] : mask;
        c->canvas = canvas_cache_find(&r->cache, c->prompt, s->canvas, c->choice->length, &fresh);
        c->place = r->sharers[c->canvas]++;
        c->answer->evaluations += fresh;
    }
}

/* Asks every canvas for the masked tokens of those that share it. */
static void round_ask(Round *r, const Scoring *s, int t) {
    size_t used = 0;
    for (size_t e = 0; e < r->cache.count; e++) {
        const CanvasEntry *entry = &r->cache.entries[e];
        r->canvases[e] = (DecodeCanvas){.request = entry->request,
                                        .length = entry->length,
                                        .tokens = r->cache.tokens + entry->start};
        r->first[e] = used;
        used += (size_t)entry->length * (size_t)r->sharers[e];
    }
    for (size_t i = 0; i < s->count; i++) {
        const Candidate *c = &s->candidates[i];
        if (c->choice->length <= t) continue;
        int sharers = r->sharers[c->canvas];
        InspectRow *rows = r->rows + r->cache.entries[c->canvas].start;
        for (int k = 0; k < c->choice->length; k++) {
            size_t at = r->first[c->canvas] + (size_t)k * (size_t)sharers;
            r->given[at + (size_t)c->place] = c->choice->tokens[k];
            if (c->written[k]) continue; /* so it is for all that share the canvas */
            rows[k] = (InspectRow){
                .given = r->given + at, .given_count = sharers, .given_scores = r->scores + at};
        }
    }
}

/* Writes the likeliest of each candidate's masked tokens. */
static void round_write(const Round *r, Scoring *s, int t) {
    for (size_t i = 0; i < s->count; i++) {
        Candidate *c = &s->candidates[i];
        int best = -1;
        double most = NAN;
        if (c->choice->length <= t) continue;
        const double *scores = r->scores + r->first[c->canvas] + c->place;
        for (int k = 0; k < c->choice->length; k++) {
            double score = scores[(size_t)k * (size_t)r->sharers[c->canvas]];
            if (c->written[k] || (best >= 0 && !(score > most))) continue;
            best = k, most = score;
        }
        c->written[best] = true;
        c->choice->scores[best] = most;
    }
}

/* Writes the t-th token of every candidate that has one. */
static int round_run(Scoring *s, int t, Error *err) {
    Round round;
    const int *cancel = s->options->cancel;
    if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED))
        return error_set_code(err, ERROR_CANCELLED, "cancelled");
    int status = round_open(&round, s, err);
    if (status == 0) {
        round_collect(&round, s, t);
        round_ask(&round, s, t);
        status =
            infill_inspect(s->infill, round.canvases, (int)round.cache.count, round.rows, 0, err);
    }
    if (status == 0) round_write(&round, s, t);
    round_close(&round);
    return status;
}

/* ---- The answer. ---- */

static int refuse_broken(ChoiceAnswer *a, const char *what, Error *err) {
    Error why;
    error_write(&why,
                "the %s scores are not finite: its weights, or those of the vision tower or "
                "projector, are damaged",
                what);
    return answer_refuse(&a->answer, &why, err);
}

/* The scores of a request's choices from those of their tokens; `lengths` NULL: no predictor. */
static int answer_finish(ChoiceAnswer *a, const float *lengths, int classes, Error *err) {
    double most = -INFINITY, sum = 0;
    int best = -1;
    for (int c = 0; lengths && c < classes; c++)
        if (!isfinite(lengths[c])) return refuse_broken(a, "length predictor's", err);
    for (int i = 0; i < a->answer.count; i++) {
        ChoiceScore *s = &a->scores[i];
        s->length_score = lengths ? length_log_probability(lengths, classes, s->length) : 0;
        s->score = s->length_score;
        for (int k = 0; k < s->length; k++) s->score += s->scores[k];
        if (!isfinite(s->score)) return refuse_broken(a, "language model's", err);
        if (s->score > most) best = i, most = s->score;
    }
    for (int i = 0; i < a->answer.count; i++) sum += exp(a->scores[i].score - most);
    for (int i = 0; i < a->answer.count; i++)
        a->scores[i].probability = exp(a->scores[i].score - most) / sum;
    a->answer.best = best;
    return 0;
}

/* ---- All requests. ---- */

/* The requests whose choices can be scored, as prompts. */
typedef struct Asked {
    AnswerRequest *requests; /* [count]; the length is that of the longest choice */
    Answer *answers;         /* [count] */
    int *of;                 /* [count]: which of the call's requests each one is */
    int count;
    Prompts prompts;
} Asked;

static void asked_free(Asked *a) {
    for (int i = 0; i < a->count && a->answers; i++) free(a->answers[i].error);
    prompts_free(&a->prompts);
    free(a->requests), free(a->answers), free(a->of);
}

static int asked_encode(Asked *a, const Multimodal *m, const ChoiceRequest *requests, int count,
                        int images, LongPrompts policy, Choices *out, Error *err) {
    size_t n = (size_t)count + 1;
    a->requests = calloc(n, sizeof *a->requests);
    a->answers = calloc(n, sizeof *a->answers);
    a->of = calloc(n, sizeof *a->of);
    if (!a->requests || !a->answers || !a->of)
        return error_set(err, "out of memory for %d requests", count);
    for (int i = 0; i < count; i++) {
        const ChoiceRequest *r = &requests[i];
        int longest;
        TRY(request_choices(m, r, &out->items[i], &longest, err));
        if (out->items[i].answer.error) continue;
        a->of[a->count] = i;
        a->requests[a->count++] = (AnswerRequest){.prompt = r->prompt,
                                                  .image = r->image,
                                                  .length = longest,
                                                  .turns = r->turns,
                                                  .turn_count = r->turn_count};
    }
    TRY(prompts_encode(&a->prompts, m, a->requests, a->count, images, policy, a->answers, err));
    for (int i = 0; i < a->count; i++) {
        Answer *to = &out->items[a->of[i]].answer, *from = &a->answers[i];
        int choices = from->error ? 0 : to->count;
        *to = *from;
        to->count = choices;
        from->error = NULL; /* taken over */
    }
    return 0;
}

/* The bounds of all candidates in place of their rounds. */
static int score_by_likelihood(const Scoring *s, const Prompts *prompts, Error *err) {
    const LikelihoodOptions options = {s->options->samples, s->options->seed, s->options->cancel};
    LikelihoodText *texts = calloc(s->count + 1, sizeof *texts);
    LikelihoodBound *bounds = calloc(s->count + 1, sizeof *bounds);
    int status = texts && bounds ? 0 : error_set(err, "out of memory for %zu choices", s->count);
    for (size_t i = 0; i < s->count && status == 0; i++) {
        const Candidate *c = &s->candidates[i];
        const InfillPrompt *p = &prompts->items[c->prompt];
        const ChoiceScore *choice = c->choice;
        texts[i] = (LikelihoodText){
            .request = c->prompt,
            .tokens = choice->tokens,
            .length = choice->length,
            .stream = likelihood_stream(p->ids, p->count, choice->tokens, choice->length),
            .shares = choice->scores};
    }
    if (status == 0)
        status = infill_likelihoods(s->infill, texts, (int)s->count, &options, bounds, err);
    for (size_t i = 0; i < s->count && status == 0; i++) {
        const Candidate *c = &s->candidates[i];
        for (int k = 0; k < c->choice->length; k++) c->choice->scores[k] *= -1;
        c->answer->evaluations += bounds[i].evaluations;
    }
    free(texts), free(bounds);
    return status;
}

/* Scores the choices of every prompt. */
static int asked_score(const Asked *a, Scoring *s, Choices *out, Error *err) {
    int64_t rows = 0;
    for (int i = 0; i < a->prompts.count; i++) {
        const ChoiceAnswer *answer = &out->items[a->of[a->prompts.request[i]]];
        s->count += (size_t)answer->answer.count;
        for (int k = 0; k < answer->answer.count; k++) {
            int length = answer->scores[k].length;
            s->cells += (size_t)length, rows += length + 1;
            if (length > s->longest) s->longest = length;
        }
    }
    s->candidates = calloc(s->count + 1, sizeof *s->candidates);
    s->written = calloc(s->cells + 1, sizeof *s->written);
    s->canvas = malloc(((size_t)s->longest + 1) * sizeof *s->canvas);
    if (!s->candidates || !s->written || !s->canvas)
        return error_set(err, "out of memory for %zu choices", s->count);
    Candidate *c = s->candidates;
    bool *written = s->written;
    for (int i = 0; i < a->prompts.count; i++) {
        ChoiceAnswer *answer = &out->items[a->of[a->prompts.request[i]]];
        for (int k = 0; k < answer->answer.count; k++) {
            *c++ = (Candidate){
                .prompt = i, .answer = answer, .choice = &answer->scores[k], .written = written};
            written += answer->scores[k].length;
        }
    }
    if (s->options->by == CHOICE_BY_LIKELIHOOD) return score_by_likelihood(s, &a->prompts, err);
    TRY(infill_reserve(s->infill, s->longest, rows, err));
    for (int t = 0; t < s->longest; t++) TRY(round_run(s, t, err));
    return 0;
}

static int asked_lengths(const Asked *a, const Multimodal *m, Infill *infill, float **logits,
                         Error *err) {
    *logits = NULL;
    if (!m->length) return 0;
    *logits = malloc((size_t)a->prompts.count * (size_t)m->length->classes * sizeof **logits);
    if (!*logits) return error_set(err, "out of memory for the lengths");
    return infill_lengths(infill, m->length, *logits, err);
}

static int asked_choose(const Asked *a, const Multimodal *m, Tensor image_tokens,
                        const ChoiceOptions *options, Choices *out, Error *err) {
    const InfillConfig config = {.model = m->language,
                                 .device = m->device,
                                 .pattern = m->attention,
                                 .answer_position = m->answer_position,
                                 .no_kv_cache = options->no_kv_cache,
                                 .mask_id = tokenizer_mask_id(m->tokenizer),
                                 .vocab_limit = tokenizer_size(m->tokenizer),
                                 .batch_tokens = options->batch_tokens,
                                 .prompts = a->prompts.items,
                                 .prompt_count = a->prompts.count,
                                 .image_tokens = image_tokens,
                                 .image_rows = multimodal_image_rows(m),
                                 .keep_hidden = m->length != NULL,
                                 .image_lead = m->image_lead_ids,
                                 .image_lead_count = m->image_lead_count};
    Scoring s = {.model = m, .options = options};
    float *lengths = NULL;
    double start = clock_seconds();
    int status = infill_open(&s.infill, &config, err);
    if (status == 0) status = asked_lengths(a, m, s.infill, &lengths, err);
    double ready = clock_seconds();
    if (status == 0) status = asked_score(a, &s, out, err);
    int classes = m->length ? m->length->classes : 0;
    for (int i = 0; i < a->prompts.count && status == 0; i++)
        status =
            answer_finish(&out->items[a->of[a->prompts.request[i]]],
                          lengths ? lengths + (size_t)i * (size_t)classes : NULL, classes, err);
    out->prefix_s = ready - start, out->decode_s = clock_seconds() - ready;
    if (s.infill) out->counts = infill_counts(s.infill);
    infill_close(s.infill);
    free(s.candidates), free(s.written), free(s.canvas), free(lengths);
    return status;
}

int multimodal_choose(const Multimodal *m, Tensor image_tokens, const ChoiceRequest *requests,
                      int count, const ChoiceOptions *options, Choices *choices, Error *err) {
    *choices = (Choices){0};
    if (!language_present(&m->language) || !m->tokenizer)
        return error_set(err, "this model cannot write: it has no language part");
    TRY(multimodal_check_mask(m, err));
    if (m->attention == ATTENTION_CAUSAL)
        return error_set(err, "choices are compared by masked diffusion, and this model is "
                              "autoregressive; use one that was adapted");
    Asked asked = {0};
    int rows = multimodal_image_rows(m), images = 0;
    if (rows > 0 && tensor_present(image_tokens)) images = (int)(image_tokens.shape[0] / rows);
    double start = clock_seconds();
    choices->items = calloc((size_t)count + 1, sizeof *choices->items);
    choices->count = count;
    int status = choices->items ? asked_encode(&asked, m, requests, count, images,
                                               options->long_prompts, choices, err)
                                : error_set(err, "out of memory for %d requests", count);
    choices->tokenize_s = clock_seconds() - start;
    if (status == 0 && asked.prompts.count)
        status = asked_choose(&asked, m, image_tokens, options, choices, err);
    asked_free(&asked);
    if (status) choices_free(choices);
    return status;
}

void choices_free(Choices *c) {
    for (int i = 0; i < c->count && c->items; i++) {
        ChoiceAnswer *a = &c->items[i];
        if (a->scores) free(a->scores[0].scores); /* all choices' */
        free(a->scores), free(a->answer.error);
    }
    free(c->items);
    *c = (Choices){0};
}
