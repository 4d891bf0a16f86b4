#include "projector/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"
#include "projector/answer_text.h"

bool likelihood_exact(const Multimodal *m) {
    return m->attention == ATTENTION_CAUSAL;
}

/* The requests whose likelihood can be computed, as prompts. */
typedef struct Asked {
    const Multimodal *model;
    AnswerRequest *requests; /* [count]; the length is the text's */
    Answer *answers;         /* [count] */
    int *of;                 /* [count]: which of the call's requests each one is */
    Ids ids;                 /* all texts, end to end */
    size_t *begin;           /* [count], in ids */
    int count;
    Prompts prompts;
    int *whole; /* [whole_count]: the requests that are read in windows, and where their ids are */
    size_t *whole_begin;
    int whole_count;
} Asked;

static void asked_free(Asked *a) {
    for (int i = 0; i < a->count && a->answers; i++) free(a->answers[i].error);
    prompts_free(&a->prompts);
    ids_free(&a->ids);
    free(a->requests), free(a->answers), free(a->of), free(a->begin);
    free(a->whole), free(a->whole_begin);
}

static int refuse(Likelihood *l, const char *text, int code, Error *err) {
    free(l->error);
    l->error = strdup(text), l->code = code;
    return l->error ? 0 : error_set(err, "out of memory for a message");
}

/* A text by itself, which an autoregressive model reads in windows, however long it is. */
static bool in_windows(const Multimodal *m, const LikelihoodRequest *r) {
    return likelihood_exact(m) && r->image < 0 && !r->turn_count && !*r->prompt;
}

enum { DOCUMENT_BYTES = 1 << 26 };

/* Appends a text's ids. */
static int text_encode(const Multimodal *m, const LikelihoodRequest *r, Ids *ids, Likelihood *l,
                       Error *why) {
    const char *text = r->text;
    const size_t most = in_windows(m, r) ? DOCUMENT_BYTES : PROMPT_BYTES;
    const size_t before = ids->count, size = text ? strnlen(text, most + 1) : 0;
    const int32_t mask = tokenizer_mask_id(m->tokenizer);
    const int32_t unknown = tokenizer_specials(m->tokenizer)->unknown;
    if (size > most)
        return error_set_code(why, ERROR_TOO_LONG, "the text has more than %zu bytes", most);
    const size_t valid = size ? utf8_valid_prefix(text, size) : 0;
    if (valid < size)
        return error_set(why, "the text: byte %zu (0x%02X) is not valid UTF-8; convert it to UTF-8",
                         valid, (unsigned char)text[valid]);
    const bool spaced = answer_after_space(&m->language, m->tokenizer, r->prompt);
    if (size) TRY(answer_text_encode(m->tokenizer, spaced, text, size, ids, why));
    if (ids->count == before) return error_set(why, "the text is empty: it has no tokens");
    for (size_t i = before; i < ids->count; i++) {
        if (mask >= 0 && ids->ids[i] == mask)
            return error_set(why, "the text contains <mask>, which no text that is written does");
        l->unknown += unknown >= 0 && ids->ids[i] == unknown;
    }
    TRY(answer_pad(m, ids, before, why));
    l->tokens = (int)(ids->count - before);
    return 0;
}

static int asked_encode(Asked *a, const LikelihoodRequest *requests, int count, int images,
                        Likelihood *out, Error *err) {
    size_t n = (size_t)count + 1;
    a->requests = calloc(n, sizeof *a->requests);
    a->answers = calloc(n, sizeof *a->answers);
    a->of = calloc(n, sizeof *a->of);
    a->begin = calloc(n, sizeof *a->begin);
    a->whole = calloc(n, sizeof *a->whole);
    a->whole_begin = calloc(n, sizeof *a->whole_begin);
    if (!a->requests || !a->answers || !a->of || !a->begin || !a->whole || !a->whole_begin)
        return error_set(err, "out of memory for %d texts", count);
    for (int i = 0; i < count; i++) {
        const LikelihoodRequest *r = &requests[i];
        const size_t before = a->ids.count;
        Error why;
        if (text_encode(a->model, r, &a->ids, &out[i], &why)) {
            a->ids.count = before;
            TRY(refuse(&out[i], why.text, why.code, err));
            continue;
        }
        if (in_windows(a->model, r)) {
            a->whole[a->whole_count] = i, a->whole_begin[a->whole_count++] = before;
            continue;
        }
        a->of[a->count] = i, a->begin[a->count] = before;
        a->requests[a->count++] = (AnswerRequest){.prompt = r->prompt,
                                                  .image = r->image,
                                                  .length = out[i].tokens,
                                                  .turns = r->turns,
                                                  .turn_count = r->turn_count};
    }
    TRY(prompts_encode(&a->prompts, a->model, a->requests, a->count, images, LONG_PROMPTS_REFUSE,
                       a->answers, err));
    for (int i = 0; i < a->count; i++) {
        Likelihood *l = &out[a->of[i]];
        Error why;
        l->dropped_turns = a->answers[i].dropped_turns;
        if (!a->answers[i].error) continue;
        bool fits =
            multimodal_check_length(a->model, a->requests[i].image >= 0, l->tokens, &why) == 0;
        int code = fits ? a->answers[i].code : (int)ERROR_TOO_LONG;
        TRY(refuse(l, a->answers[i].error, code, err));
    }
    return 0;
}

static const int32_t *asked_text(const Asked *a, int prompt, int *length) {
    const int i = a->prompts.request[prompt];
    *length = a->requests[i].length;
    return a->ids.ids + a->begin[i];
}

static int asked_bounds(const Asked *a, Tensor image_tokens, const LikelihoodSettings *s,
                        Likelihood *out, InfillCounts *counts, Error *err) {
    const Multimodal *m = a->model;
    const InfillConfig config = {.model = m->language,
                                 .device = m->device,
                                 .pattern = m->attention,
                                 .answer_position = m->answer_position,
                                 .no_kv_cache = s->no_kv_cache,
                                 .mask_id = tokenizer_mask_id(m->tokenizer),
                                 .vocab_limit = tokenizer_size(m->tokenizer),
                                 .batch_tokens = s->batch_tokens,
                                 .prompts = a->prompts.items,
                                 .prompt_count = a->prompts.count,
                                 .image_tokens = image_tokens,
                                 .image_rows = multimodal_image_rows(m),
                                 .image_lead = m->image_lead_ids,
                                 .image_lead_count = m->image_lead_count};
    Infill *infill = NULL;
    size_t n = (size_t)a->prompts.count;
    if (!n) return 0;
    LikelihoodText *texts = calloc(n, sizeof *texts);
    LikelihoodBound *bounds = calloc(n, sizeof *bounds);
    int status = texts && bounds ? 0 : error_set(err, "out of memory for %zu texts", n);
    for (int i = 0; i < a->prompts.count && status == 0; i++) {
        const InfillPrompt *p = &a->prompts.items[i];
        LikelihoodText *t = &texts[i];
        t->request = i, t->tokens = asked_text(a, i, &t->length);
        t->stream = likelihood_stream(p->ids, p->count, t->tokens, t->length);
    }
    if (status == 0) status = infill_open(&infill, &config, err);
    if (status == 0)
        status = infill_likelihoods(infill, texts, a->prompts.count, &s->options, bounds, err);
    for (int i = 0; i < a->prompts.count && status == 0; i++)
        out[a->of[a->prompts.request[i]]].bound = bounds[i];
    if (infill && counts) *counts = infill_counts(infill);
    infill_close(infill);
    free(texts), free(bounds);
    return status;
}

/* ---- Autoregressive models. ---- */

/* What is evaluated of all texts. */
typedef struct Windows {
    CausalText *items; /* [count] */
    int *of;           /* [count]: the request of each */
    double *nats;      /* [count] */
    int count;
    int32_t *ids; /* of all sequences, end to end */
} Windows;

/* The part of a sequence of `count` ids that predicts those from `fresh` on. */
static void window_add(Windows *w, const int32_t *ids, int count, int fresh, int request,
                       Likelihood *l) {
    w->items[w->count] = (CausalText){ids, count, count - fresh};
    w->of[w->count++] = request;
    l->bound.evaluations++;
}

/* A prompt and its text. */
static int32_t *window_prompt(const Asked *a, Windows *w, int prompt, int32_t *ids,
                              Likelihood *out) {
    const InfillPrompt *p = &a->prompts.items[prompt];
    const int request = a->of[a->prompts.request[prompt]];
    int scored;
    const int32_t begin = a->model->language.begin, *own = asked_text(a, prompt, &scored);
    int32_t *end = ids;
    if (begin >= 0) *end++ = begin;
    if (p->count) memcpy(end, p->ids, (size_t)p->count * sizeof *ids);
    end += p->count;
    memcpy(end, own, (size_t)scored * sizeof *ids);
    end += scored;
    window_add(w, ids, (int)(end - ids), (int)(end - ids) - scored, request, &out[request]);
    return end;
}

/* A text by itself: each window is half a window after the one before, and predicts what is new in
 * it. Its first token is predicted after the one that begins every sequence, or not at all. */
static int32_t *window_text(const Asked *a, Windows *w, int whole, int32_t *ids, Likelihood *out) {
    const int32_t begin = a->model->language.begin;
    const int longest = language_longest(&a->model->language), half = longest / 2;
    const int request = a->whole[whole];
    Likelihood *l = &out[request];
    int32_t *end = ids;
    if (begin >= 0) *end++ = begin;
    memcpy(end, a->ids.ids + a->whole_begin[whole], (size_t)l->tokens * sizeof *ids);
    end += l->tokens;
    l->unpredicted = begin < 0, l->tokens -= l->unpredicted;
    const int count = (int)(end - ids);
    for (int first = 0, fresh = 1; fresh<count; first += half> 0 ? half : 1) {
        const int rows = count - first < longest ? count - first : longest;
        window_add(w, ids + first, rows, fresh - first, request, l);
        fresh = first + rows;
    }
    return end;
}

static int windows_take(Windows *w, const Asked *a, Error *err) {
    const int longest = language_longest(&a->model->language);
    const size_t texts = (size_t)a->prompts.count + (size_t)a->whole_count;
    const size_t half = longest > 3 ? (size_t)longest / 2 : 1, tokens = a->ids.count + 2 * texts;
    const size_t windows = texts + tokens / half + 1;
    w->items = calloc(windows, sizeof *w->items);
    w->of = calloc(windows, sizeof *w->of);
    w->nats = calloc(windows, sizeof *w->nats);
    w->ids = calloc(tokens + a->prompts.ids.count, sizeof *w->ids);
    if (w->items && w->of && w->nats && w->ids) return 0;
    return error_set(err, "out of memory for %zu texts", texts);
}

static int windows_run(Windows *w, const Asked *a, const LikelihoodSettings *s, Likelihood *out,
                       InfillCounts *counts, Error *err) {
    TRY(windows_take(w, a, err));
    int32_t *ids = w->ids;
    for (int i = 0; i < a->prompts.count; i++) ids = window_prompt(a, w, i, ids, out);
    for (int i = 0; i < a->whole_count; i++) ids = window_text(a, w, i, ids, out);
    if (w->count)
        TRY(causal_likelihoods(&a->model->language, a->model->device, w->items, w->count,
                               s->batch_tokens, w->nats, counts, err));
    for (int i = 0; i < w->count; i++) out[w->of[i]].bound.nats += w->nats[i];
    return 0;
}

static int asked_causal(const Asked *a, const LikelihoodSettings *s, Likelihood *out,
                        InfillCounts *counts, Error *err) {
    Windows w = {0};
    int status = windows_run(&w, a, s, out, counts, err);
    free(w.items), free(w.of), free(w.nats), free(w.ids);
    return status;
}

/* ---- All. ---- */

static int check_finite(Likelihood *out, int count, Error *err) {
    for (int i = 0; i < count; i++)
        if (!out[i].error && !isfinite(out[i].bound.nats))
            TRY(refuse(&out[i],
                       "the language model's scores are not finite: its weights, or those of the "
                       "vision tower or projector, are damaged",
                       ERROR_OTHER, err));
    return 0;
}

static int asked_run(Asked *a, Tensor image_tokens, const LikelihoodRequest *requests, int count,
                     const LikelihoodSettings *s, Likelihood *out, InfillCounts *counts,
                     Error *err) {
    int rows = multimodal_image_rows(a->model), images = 0;
    if (rows > 0 && tensor_present(image_tokens)) images = (int)(image_tokens.shape[0] / rows);
    TRY(asked_encode(a, requests, count, images, out, err));
    TRY(likelihood_exact(a->model) ? asked_causal(a, s, out, counts, err)
                                   : asked_bounds(a, image_tokens, s, out, counts, err));
    return check_finite(out, count, err);
}

int multimodal_likelihood(const Multimodal *m, Tensor image_tokens,
                          const LikelihoodRequest *requests, int count,
                          const LikelihoodSettings *settings, Likelihood *out, InfillCounts *counts,
                          Error *err) {
    memset(out, 0, (size_t)count * sizeof *out);
    if (counts) *counts = (InfillCounts){0};
    if (!language_present(&m->language) || !m->tokenizer)
        return error_set(err, "this model has no language part: it gives no text a likelihood");
    if (!likelihood_exact(m)) TRY(multimodal_check_mask(m, err));
    if (likelihood_exact(m) && tensor_present(image_tokens))
        return error_set(err, "an autoregressive model's likelihood is of texts, not of images");
    Asked asked = {.model = m};
    int status = asked_run(&asked, image_tokens, requests, count, settings, out, counts, err);
    asked_free(&asked);
    if (status) likelihoods_free(out, count);
    return status;
}

void likelihoods_free(Likelihood *l, int count) {
    for (int i = 0; i < count; i++) free(l[i].error), l[i].error = NULL;
}
