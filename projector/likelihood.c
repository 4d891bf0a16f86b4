#include "projector/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"

bool likelihood_exact(const Multimodal *m) {
    return m->language.llama && m->language.shifted && tokenizer_mask_id(m->tokenizer) < 0;
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
} Asked;

static void asked_free(Asked *a) {
    for (int i = 0; i < a->count && a->answers; i++) free(a->answers[i].error);
    prompts_free(&a->prompts);
    ids_free(&a->ids);
    free(a->requests), free(a->answers), free(a->of), free(a->begin);
}

static int refuse(Likelihood *l, const char *text, int code, Error *err) {
    free(l->error);
    l->error = strdup(text), l->code = code;
    return l->error ? 0 : error_set(err, "out of memory for a message");
}

/* Appends a text's ids. */
static int text_encode(const Multimodal *m, const char *text, Ids *ids, Likelihood *l, Error *why) {
    const size_t before = ids->count, size = text ? strnlen(text, (size_t)PROMPT_BYTES + 1) : 0;
    const int32_t mask = tokenizer_mask_id(m->tokenizer);
    const int32_t unknown = tokenizer_specials(m->tokenizer)->unknown;
    if (size > PROMPT_BYTES)
        return error_set_code(why, ERROR_TOO_LONG, "the text has more than %d bytes", PROMPT_BYTES);
    const size_t valid = size ? utf8_valid_prefix(text, size) : 0;
    if (valid < size)
        return error_set(why, "the text: byte %zu (0x%02X) is not valid UTF-8; convert it to UTF-8",
                         valid, (unsigned char)text[valid]);
    if (size) TRY(tokenizer_encode(m->tokenizer, text, size, ids, why));
    if (ids->count == before) return error_set(why, "the text is empty: it has no tokens");
    for (size_t i = before; i < ids->count; i++) {
        if (mask >= 0 && ids->ids[i] == mask)
            return error_set(why, "the text contains <mask>, which no text that is written does");
        l->unknown += unknown >= 0 && ids->ids[i] == unknown;
    }
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
    if (!a->requests || !a->answers || !a->of || !a->begin)
        return error_set(err, "out of memory for %d texts", count);
    for (int i = 0; i < count; i++) {
        const LikelihoodRequest *r = &requests[i];
        const size_t before = a->ids.count;
        Error why;
        if (text_encode(a->model, r->text, &a->ids, &out[i], &why)) {
            a->ids.count = before;
            TRY(refuse(&out[i], why.text, why.code, err));
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
                        LikelihoodBound *bounds, InfillCounts *counts, Error *err) {
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
    LikelihoodText *texts = calloc((size_t)a->prompts.count, sizeof *texts);
    if (!texts) return error_set(err, "out of memory for %d texts", a->prompts.count);
    for (int i = 0; i < a->prompts.count; i++) {
        const InfillPrompt *p = &a->prompts.items[i];
        LikelihoodText *t = &texts[i];
        t->request = i, t->tokens = asked_text(a, i, &t->length);
        t->stream = likelihood_stream(p->ids, p->count, t->tokens, t->length);
    }
    int status = infill_open(&infill, &config, err);
    if (status == 0)
        status = infill_likelihoods(infill, texts, a->prompts.count, &s->options, bounds, err);
    if (infill && counts) *counts = infill_counts(infill);
    infill_close(infill);
    free(texts);
    return status;
}

/* The sequence of a prompt and its text, at `ids`; returns its end. */
static int32_t *causal_sequence(const Asked *a, int prompt, int32_t *ids, CausalText *text) {
    const InfillPrompt *p = &a->prompts.items[prompt];
    const int32_t begin = a->model->language.begin, *own = asked_text(a, prompt, &text->scored);
    text->ids = ids;
    if (begin >= 0) *ids++ = begin;
    if (p->count) memcpy(ids, p->ids, (size_t)p->count * sizeof *ids);
    ids += p->count;
    memcpy(ids, own, (size_t)text->scored * sizeof *ids);
    ids += text->scored;
    text->count = (int)(ids - text->ids);
    return ids;
}

static int causal_texts(const Asked *a, const LikelihoodSettings *s, CausalText *texts,
                        int32_t *ids, double *nats, LikelihoodBound *bounds, InfillCounts *counts,
                        Error *err) {
    int n = a->prompts.count;
    for (int i = 0; i < n; i++) ids = causal_sequence(a, i, ids, &texts[i]);
    TRY(causal_likelihoods(&a->model->language, a->model->device, texts, n, s->batch_tokens, nats,
                           counts, err));
    for (int i = 0; i < n; i++) bounds[i] = (LikelihoodBound){.nats = nats[i], .evaluations = 1};
    return 0;
}

static int asked_causal(const Asked *a, const LikelihoodSettings *s, LikelihoodBound *bounds,
                        InfillCounts *counts, Error *err) {
    size_t n = (size_t)a->prompts.count, tokens = a->ids.count + a->prompts.ids.count + n;
    CausalText *texts = calloc(n, sizeof *texts);
    double *nats = malloc(n * sizeof *nats);
    int32_t *ids = malloc(tokens * sizeof *ids);
    int status = texts && nats && ids ? causal_texts(a, s, texts, ids, nats, bounds, counts, err)
                                      : error_set(err, "out of memory for %zu texts", n);
    free(texts), free(nats), free(ids);
    return status;
}

/* An autoregressive model gives the first token of a sequence no probability. */
static int check_first(const Asked *a, Likelihood *out, Error *err) {
    if (!likelihood_exact(a->model) || a->model->language.begin >= 0) return 0;
    for (int i = 0; i < a->prompts.count; i++)
        if (!a->prompts.items[i].count)
            TRY(refuse(&out[a->of[a->prompts.request[i]]],
                       "this autoregressive model has no token that begins a text, so that the "
                       "first one has no probability: give a prompt",
                       ERROR_OTHER, err));
    return 0;
}

static int asked_take(const Asked *a, const LikelihoodBound *bounds, Likelihood *out, Error *err) {
    for (int i = 0; i < a->prompts.count; i++) {
        Likelihood *l = &out[a->of[a->prompts.request[i]]];
        if (l->error) continue;
        l->bound = bounds[i];
        if (!isfinite(bounds[i].nats))
            TRY(refuse(l,
                       "the language model's scores are not finite: its weights, or those of the "
                       "vision tower or projector, are damaged",
                       ERROR_OTHER, err));
    }
    return 0;
}

static int asked_run(Asked *a, Tensor image_tokens, const LikelihoodRequest *requests, int count,
                     const LikelihoodSettings *s, Likelihood *out, InfillCounts *counts,
                     Error *err) {
    int rows = multimodal_image_rows(a->model), images = 0;
    if (rows > 0 && tensor_present(image_tokens)) images = (int)(image_tokens.shape[0] / rows);
    TRY(asked_encode(a, requests, count, images, out, err));
    TRY(check_first(a, out, err));
    if (!a->prompts.count) return 0;
    LikelihoodBound *bounds = calloc((size_t)a->prompts.count, sizeof *bounds);
    if (!bounds) return error_set(err, "out of memory for %d texts", a->prompts.count);
    int status = likelihood_exact(a->model) ? asked_causal(a, s, bounds, counts, err)
                                            : asked_bounds(a, image_tokens, s, bounds, counts, err);
    if (status == 0) status = asked_take(a, bounds, out, err);
    free(bounds);
    return status;
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
