#include "apps/serve/api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "apps/serve/http.h"
#include "data/files/json_memory.h"
#include "projector/easyfirst_private.h"

/* ---- Failures. ---- */

void api_error_send(Exchange *e, const ef_error *err) {
    switch (err->code) {
    case EF_TOO_LONG:
    case EF_SKIPPED:
        exchange_fail(e, 400, "context_length_exceeded", NULL, "%s", err->text);
        break;
    case EF_NO_LENGTH:
        exchange_fail(e, 400, "length_required", "max_tokens",
                      "%s (easyfirst.length, or max_tokens)", err->text);
        break;
    case EF_MISSING_PART:
        exchange_fail(e, 400, "unsupported", NULL, "%s", err->text);
        break;
    case EF_FULL:
    case EF_CLOSED:
        exchange_fail(e, 503, "overloaded", NULL, "%s", err->text);
        break;
    case EF_CANCELLED:
        exchange_fail(e, 499, "cancelled", NULL, "%s", err->text);
        break;
    default:
        exchange_fail(e, 500, "failed", NULL, "%s", err->text);
        break;
    }
}

/* ---- A job of the engine. ---- */

static void asked_end(Asked *a) {
    Exchange *e = a->exchange;
    Backend *b = a->backend;
    asked_free(a);
    free(a);
    backend_leave(b);
    exchange_leave(e);
}

static void on_step(void *user, const ef_step *step) {
    Asked *a = user;
    json_memory_begin();
    api_step_send(a, step);
}

static void on_done(void *user, ef_job *job) {
    Asked *a = user;
    Exchange *e = a->exchange;
    ef_answers *answers;
    ef_error err;
    pthread_mutex_lock(&e->mutex);
    e->job = NULL;
    pthread_mutex_unlock(&e->mutex);
    json_memory_begin();
    if (ef_job_wait(job, 0, &answers, &err)) {
        api_error_send(e, &err);
    } else {
        metrics_answer(&e->server->metrics, answers);
        api_answer_send(a, answers);
        ef_answers_close(answers);
    }
    ef_job_close(job);
    asked_end(a);
}

/* From here on the job has what was asked, or it failed. The exchange's mutex is held so that
 * cancelling it finds the job. */
static int job_submit(Asked *a, ef_error *err) {
    Exchange *e = a->exchange;
    pthread_mutex_lock(&e->mutex);
    int status = e->cancelled ? -1
                              : ef_engine_submit(a->backend->engine, &a->request, &a->options,
                                                 e->client, on_done, a, &e->job, err);
    if (e->cancelled) err->code = EF_CANCELLED, strcpy(err->text, "cancelled");
    pthread_mutex_unlock(&e->mutex);
    return status;
}

/* What the library finds before it computes; the request's fault. */
static bool check(Asked *a) {
    ef_error err;
    if (ef_check(a->backend->model, &a->request, &a->options, NULL, &err) == 0) return true;
    if (err.code == EF_FAILED)
        exchange_fail(a->exchange, 400, "invalid_request", NULL, "%s", err.text);
    else
        api_error_send(a->exchange, &err);
    return false;
}

static void identify(Asked *a) {
    Server *server = a->exchange->server;
    snprintf(a->id, sizeof a->id, "%s-%016llx%06llx", a->chat ? "chatcmpl" : "cmpl",
             (unsigned long long)server->identity, atomic_fetch_add(&server->next_id, 1));
    a->created = (long long)time(NULL);
}

static bool answer_begin(Asked *a) {
    ef_error err;
    if (!asked_read(a) || !check(a)) return false;
    if (a->keep_pixels) return api_trace_send(a), false;
    identify(a);
    if (a->stream) api_stream_begin(a);
    if (a->given) return api_choose(a), false;
    if (a->steps) a->options.on_step = on_step, a->options.user = a;
    if (job_submit(a, &err) == 0) return true;
    api_error_send(a->exchange, &err);
    return false;
}

void api_answer(Exchange *e) {
    Asked *a = calloc(1, sizeof *a);
    if (!a) {
        exchange_fail(e, 500, "failed", NULL, "out of memory for a request");
        return;
    }
    json_memory_begin();
    exchange_take(e);
    a->exchange = e;
    a->backend = backend_take(&e->server->backends, 0);
    a->chat = e->route != ROUTE_COMPLETIONS;
    a->keep_pixels = e->route == ROUTE_TRACE || e->route == ROUTE_SHOWN;
    if (!answer_begin(a)) asked_end(a);
}

/* ---- Models. ---- */

static json_t *model_json(Server *s, int model) {
    Backend *b = backend_take(&s->backends, model);
    /* Block-causal models are not trained with earlier turns (chat.c). */
    bool turns = b->model->model.parts.attention != ATTENTION_BLOCK_CAUSAL;
    backend_leave(b);
    return json_pack("{s:s, s:s, s:I, s:s, s:{s:b}}", "id", s->model_names[model], "object",
                     "model", "created", (json_int_t)s->started, "owned_by", "easyfirst",
                     "easyfirst", "turns", turns);
}

void api_models(Exchange *e) {
    static const char folder[] = "/v1/models/";
    Server *s = e->server;
    if (e->route == ROUTE_MODELS) {
        json_t *list = json_array();
        for (int i = 0; i < s->backends.count; i++) json_array_append_new(list, model_json(s, i));
        exchange_reply_json(e, 200, json_pack("{s:s, s:o}", "object", "list", "data", list));
        return;
    }
    for (int i = 0; i < s->backends.count; i++)
        if (!strcmp(e->path + strlen(folder), s->model_names[i])) {
            exchange_reply_json(e, 200, model_json(s, i));
            return;
        }
    exchange_fail(e, 404, "model_not_found", "model", "this server has \"%s\"", s->model_id);
}
