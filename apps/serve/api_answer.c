#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"

static const char space[] = "\u2581"; /* in front of a word, in a token's piece */

/* ---- Texts. ---- */

/* The first `count` tokens as text, the caller's to free; NULL without memory. */
static char *tokens_text(const ef_token *tokens, int count) {
    size_t size = 1;
    for (int i = 0; i < count; i++) size += strlen(tokens[i].piece);
    char *text = malloc(size), *to = text;
    if (!text) return NULL;
    for (int i = 0; i < count; i++) {
        const char *piece = tokens[i].piece;
        while (*piece) {
            bool is_space = !strncmp(piece, space, sizeof space - 1);
            if (is_space) {
                if (to > text) *to++ = ' ';
                piece += sizeof space - 1;
            } else {
                *to++ = *piece++;
            }
        }
    }
    *to = 0;
    return text;
}

/* The tokens that the model wrote. */
static int written(const ef_hypothesis *h) {
    int count = 0;
    for (int i = 0; i < h->length; i++) count += !h->tokens[i].fixed;
    return count;
}

static int shown_length(const Asked *a, const ef_hypothesis *h) {
    int count = written(h);
    return a->max_tokens && a->max_tokens < count ? a->max_tokens : count;
}

/* Where the shown tokens begin: after a given prefix. */
static const ef_token *shown_tokens(const Asked *a, const ef_hypothesis *h) {
    const ef_token *tokens = h->tokens;
    if (a->infill)
        while (tokens < h->tokens + h->length && tokens->fixed) tokens++;
    return tokens;
}

/* The text between a prompt and its suffix. */
static char *gap_text(const Asked *a, const ef_hypothesis *h) {
    size_t size = strlen(h->text);
    return size < a->prefix + a->suffix
               ? strdup("")
               : strndup(h->text + a->prefix, size - a->prefix - a->suffix);
}

static json_t *choice_text(const Asked *a, const ef_hypothesis *h) {
    bool whole = shown_length(a, h) == written(h);
    if (whole && !a->infill) return json_text(h->text);
    char *text = whole ? gap_text(a, h) : tokens_text(shown_tokens(a, h), shown_length(a, h));
    json_t *json = text ? json_text(text) : NULL;
    free(text);
    return json;
}

static const char *finish_reason(const Asked *a, const ef_hypothesis *h) {
    return shown_length(a, h) < written(h) ? "length" : "stop";
}

/* Choice i: with n the best length of sample i, else the best of all. */
static const ef_hypothesis *choice_of(const Asked *a, const ef_answers *answers, int i) {
    const ef_hypothesis *best = ef_answer_hypothesis(answers, 0, ef_answer_best(answers, 0));
    if (a->choices <= 1) return best;
    const ef_hypothesis *found = NULL;
    for (int h = 0; h < ef_answer_hypotheses(answers, 0); h++) {
        const ef_hypothesis *other = ef_answer_hypothesis(answers, 0, h);
        if (other->sample == i && (!found || other->score > found->score)) found = other;
    }
    return found ? found : best;
}

static int choice_count(const Asked *a) {
    return a->choices > 1 ? a->choices : 1;
}

/* ---- Parts of an answer; NULL without memory. ---- */

static json_t *head_json(const Asked *a, const char *object) {
    return json_pack("{s:s, s:s, s:I, s:s, s:s}", "id", a->id, "object", object, "created",
                     (json_int_t)a->created, "model", a->exchange->server->model_names[a->model],
                     "system_fingerprint", "easyfirst-" EF_VERSION);
}

static json_t *bytes_json(const char *text) {
    json_t *list = json_array();
    for (; *text; text++) json_array_append_new(list, json_integer((unsigned char)*text));
    return list;
}

static json_t *logprobs_json(const Asked *a, const ef_hypothesis *h) {
    json_t *list = json_array();
    if (!a->logprobs) return json_decref(list), json_null();
    int count = a->max_tokens ? shown_length(a, h) : h->length;
    for (int i = 0; i < count; i++) {
        const ef_token *t = &h->tokens[i];
        char *text = tokens_text(t, 1);
        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:[]}", "token",
                                              json_text(text ? text : ""), "logprob",
                                              json_score((double)t->score), "bytes",
                                              bytes_json(text ? text : ""), "top_logprobs"));
        free(text);
    }
    return json_pack("{s:o}", "content", list);
}

static json_t *choice_json(const Asked *a, const ef_hypothesis *h, int i) {
    if (!a->chat)
        return json_pack("{s:i, s:o, s:n, s:s}", "index", i, "text", choice_text(a, h), "logprobs",
                         "finish_reason", finish_reason(a, h));
    return json_pack("{s:i, s:{s:s, s:o, s:n}, s:o, s:s}", "index", i, "message", "role",
                     "assistant", "content", choice_text(a, h), "refusal", "logprobs",
                     logprobs_json(a, h), "finish_reason", finish_reason(a, h));
}

static json_t *usage_json(const Asked *a, const ef_answers *answers) {
    int prompt = ef_answer_prompt_tokens(answers, 0) - ef_answer_dropped_tokens(answers, 0);
    int completion = 0;
    if (a->image) prompt += ef_model_image_tokens(a->backend->model);
    for (int i = 0; i < choice_count(a); i++)
        completion += shown_length(a, choice_of(a, answers, i));
    return json_pack("{s:i, s:i, s:i}", "prompt_tokens", prompt, "completion_tokens", completion,
                     "total_tokens", prompt + completion);
}

static json_t *hypotheses_json(const ef_answers *answers) {
    json_t *list = json_array();
    for (int i = 0; i < ef_answer_hypotheses(answers, 0); i++) {
        const ef_hypothesis *h = ef_answer_hypothesis(answers, 0, i);
        json_array_append_new(list, json_pack("{s:o, s:i, s:i, s:o, s:i, s:i}", "text",
                                              json_text(h->text), "length", h->length, "sample",
                                              h->sample, "score", json_score(h->score), "steps",
                                              h->steps, "evaluations", h->evaluations));
    }
    return list;
}

/* What OpenAI's form has no place for. */
static json_t *own_json(const ef_answers *answers) {
    double probability = ef_answer_probability(answers, 0);
    json_t *own = json_pack(
        "{s:o, s:i, s:i, s:i, s:o}", "score", json_score(ef_answer_score(answers, 0)), "length",
        ef_answer_length(answers, 0), "evaluations", ef_answer_evaluations(answers, 0), "best",
        ef_answer_best(answers, 0), "hypotheses", hypotheses_json(answers));
    if (!isnan(probability)) json_object_set_new(own, "probability", json_real(probability));
    if (ef_answer_choices(answers, 0))
        json_object_set_new(own, "choices", api_choices_json(answers));
    if (ef_answer_dropped_tokens(answers, 0))
        json_object_set_new(own, "dropped_tokens",
                            json_integer(ef_answer_dropped_tokens(answers, 0)));
    if (ef_answer_dropped_turns(answers, 0))
        json_object_set_new(own, "dropped_turns",
                            json_integer(ef_answer_dropped_turns(answers, 0)));
    return own;
}

/* ---- The whole. ---- */

static void whole_send(Asked *a, const ef_answers *answers) {
    json_t *object = head_json(a, a->chat ? "chat.completion" : "text_completion");
    json_t *choices = json_array();
    for (int i = 0; i < choice_count(a); i++)
        json_array_append_new(choices, choice_json(a, choice_of(a, answers, i), i));
    json_object_set_new(object, "choices", choices);
    json_object_set_new(object, "usage", usage_json(a, answers));
    json_object_set_new(object, "easyfirst", own_json(answers));
    exchange_reply_json(a->exchange, 200, object);
}

/* ---- Streams. ---- */

static const char *chunk_name(const Asked *a) {
    return a->chat ? "chat.completion.chunk" : "text_completion";
}

/* An event with one choice, which it takes over, or none (NULL). */
static json_t *chunk_json(const Asked *a, json_t *choice) {
    json_t *object = head_json(a, chunk_name(a)), *choices = json_array();
    if (choice) json_array_append_new(choices, choice);
    json_object_set_new(object, "choices", choices);
    if (a->usage) json_object_set_new(object, "usage", json_null());
    return object;
}

/* A piece of choice i: its text, or NULL; why it ends, or NULL. */
static json_t *delta_json(const Asked *a, int i, json_t *text, const char *reason) {
    if (!a->chat)
        return json_pack("{s:i, s:o, s:n, s:s?}", "index", i, "text", text ? text : json_text(""),
                         "logprobs", "finish_reason", reason);
    return json_pack("{s:i, s:{s:o*}, s:n, s:s?}", "index", i, "delta", "content", text, "logprobs",
                     "finish_reason", reason);
}

void api_stream_begin(Asked *a) {
    if (!exchange_stream(a->exchange) || !a->chat) return;
    for (int i = 0; i < choice_count(a); i++)
        exchange_event(
            a->exchange,
            chunk_json(a, json_pack("{s:i, s:{s:s, s:s}, s:n, s:n}", "index", i, "delta", "role",
                                    "assistant", "content", "", "logprobs", "finish_reason")));
}

static json_t *step_token(const ef_token *t, const ef_token *proposal) {
    return json_pack("{s:i, s:o, s:b, s:b, s:f, s:i, s:o, s:f}", "id", t->id, "piece",
                     json_text(t->piece), "masked", t->masked, "fixed", t->fixed, "probability",
                     (double)t->probability, "proposal", proposal->id, "proposal_piece",
                     json_text(proposal->piece), "proposal_probability",
                     (double)proposal->probability);
}

void api_step_send(Asked *a, const ef_step *step) {
    json_t *tokens = json_array();
    for (int i = 0; i < step->length; i++)
        json_array_append_new(tokens, step_token(&step->tokens[i], &step->proposals[i]));
    json_t *object = chunk_json(a, NULL);
    json_object_set_new(object, "easyfirst",
                        json_pack("{s:i, s:i, s:i, s:i, s:b, s:o}", "hypothesis", step->hypothesis,
                                  "step", step->step, "steps", step->steps, "length", step->length,
                                  "evaluated", step->evaluated, "tokens", tokens));
    exchange_event(a->exchange, object);
}

static void stream_send(Asked *a, const ef_answers *answers) {
    Exchange *e = a->exchange;
    for (int i = 0; i < choice_count(a); i++) {
        const ef_hypothesis *h = choice_of(a, answers, i);
        json_t *delta = delta_json(a, i, choice_text(a, h), NULL);
        if (a->chat && a->logprobs) json_object_set_new(delta, "logprobs", logprobs_json(a, h));
        exchange_event(e, chunk_json(a, delta));
        exchange_event(e, chunk_json(a, delta_json(a, i, NULL, finish_reason(a, h))));
    }
    json_t *last = chunk_json(a, NULL);
    if (a->usage) json_object_set_new(last, "usage", usage_json(a, answers));
    json_object_set_new(last, "easyfirst", own_json(answers));
    if (a->usage || a->steps || a->given)
        exchange_event(e, last);
    else
        json_decref(last);
    exchange_stream_end(e);
}

void api_answer_send(Asked *a, const ef_answers *answers) {
    if (a->stream)
        stream_send(a, answers);
    else
        whole_send(a, answers);
}
