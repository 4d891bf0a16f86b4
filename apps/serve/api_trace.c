#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"
#include "apps/show/fold.h"
#include "apps/show/one.h"
#include "apps/show/page.h"
#include "projector/easyfirst_private.h"

enum { TRACE_HYPOTHESES = 16, TRACE_TOP_K = 6 };

/* The request's options as those of the command line, with inspection. */
static int answer_options(const Asked *a, CommonOptions *common, Error *err) {
    AnswerOptions *o = &common->answer;
    *common = a->exchange->server->settings->common;
    o->decode.iterations = a->options.steps;
    o->decode.temperature = a->options.temperature, o->decode.seed = a->options.seed;
    o->length_beam = a->options.beam, o->samples = a->options.samples;
    o->length_weight = a->options.length_weight;
    o->decode.guidance = a->options.guidance;
    if (!(o->decode.guidance > 0)) /* inspections are not guided */
        o->inspection = (InspectOptions){.top_k = TRACE_TOP_K, .attention = a->image, .all = true};
    o->cancel = &a->exchange->cancelled;
    common->length = a->request.length, common->answer_template = a->answer_template;
    common->strategy = a->options.strategy;
    return decode_strategy_parse(&o->decode, a->options.strategy, err);
}

/* The model is locked. */
static int trace_make(const Asked *a, const CommonOptions *common, const char *prompt, Trace *trace,
                      Error *err) {
    const ShowWay way = {.every_step = true, .silent = true};
    const Session session = library_session(a->backend->model);
    Timings timings = {0};
    bool quit;
    RecordTurn *turns;
    TRY(request_turns(a->backend->model, &a->request, &turns, err));
    ShowJob job = {.session = &session,
                   .common = common,
                   .way = &way,
                   .timings = &timings,
                   .image = a->image ? "image" : NULL,
                   .width = a->pixels.width,
                   .height = a->pixels.height,
                   .tokens = TENSOR_NONE,
                   .question = a->text,
                   .prompt = prompt,
                   .is_prompt = a->request.task != EF_ASK,
                   .turns = turns,
                   .turn_count = (int)a->request.turn_count};
    int status = 0;
    if (a->image)
        status =
            library_see(a->backend->model, &a->image, 1, &job.block, &job.tokens, &timings, err);
    if (status == 0) status = show_one(&job, trace, &quit, err);
    request_turns_free(turns, a->request.turn_count);
    return status;
}

/* The engine leaves the model between two steps. */
static int trace_locked(const Asked *a, Trace *trace, Error *err) {
    ef_model *model = a->backend->model;
    CommonOptions common;
    char *prompt = NULL;
    TRY(answer_options(a, &common, err));
    TRY(request_prompt(model, &a->request, &prompt, err));
    model_lock(model);
    device_cancel_by(model->device, &a->exchange->cancelled);
    int status = trace_make(a, &common, prompt, trace, err);
    device_cancel_by(model->device, NULL);
    model_unlock(model);
    free(prompt);
    return status;
}

static int page_send(const Asked *a, const Trace *trace, Error *err) {
    Trace shown;
    size_t size;
    TRY(fold_make(&shown, trace, err));
    char *page = page_text(&shown, a->image ? &a->pixels : NULL, &size, err);
    fold_free(&shown);
    /* Opened from here it would be this server's page: it has no rights. */
    a->exchange->extra = "Content-Security-Policy", a->exchange->extra_value = "sandbox";
    if (page) exchange_reply(a->exchange, 200, "text/html; charset=utf-8", page, size);
    return page ? 0 : -1;
}

void api_trace_send(Asked *a) {
    Exchange *e = a->exchange;
    Trace trace = {0};
    Error err;
    int beam = a->options.beam ? a->options.beam : 1;
    int samples = a->options.samples ? a->options.samples : 1;
    if (beam * samples > TRACE_HYPOTHESES) {
        exchange_fail(e, 400, "invalid_value", "n", "a trace has at most %d hypotheses",
                      TRACE_HYPOTHESES);
        return;
    }
    int status = trace_locked(a, &trace, &err);
    if (status == 0 && e->route == ROUTE_TRACE) exchange_reply_json(e, 200, trace_json(&trace));
    if (status == 0 && e->route == ROUTE_SHOWN) status = page_send(a, &trace, &err);
    if (status) api_error_send(e, (const ef_error *)(const void *)&err);
    trace_free(&trace);
}
