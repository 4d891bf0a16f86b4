#include "apps/cli/session.h"

#include "apps/cli/layers.h"
#include "apps/cli/loading.h"
#include "kernels/clock.h"

int session_open(Session *session, const CommonOptions *o, Error *err) {
    *session = (Session){0};
    double start = clock_seconds();
    TRY(device_choose(&session->device, o->device, o->threads, err));
    ModelOptions model = o->model;
    model.answers = !model.describe_only && !o->no_answers;
    model.answer_length = common_least_length(o);
    if (!o->quiet) model.loading = loading_print;
    if (o->layers) model.layers_over = o->layers->over, model.comm = o->layers->comm;
    TRY(model_open(&session->model, &model, session->device, err));
    session->open = true;
    if (o->layers) o->layers->spread = session->model.spread, o->layers->device = session->device;
    TRY(device_wait(session->device, err));
    session->load_s = clock_seconds() - start;
    return 0;
}

void session_close(Session *session) {
    if (session->open) model_close(&session->model);
    device_close(session->device);
    *session = (Session){0};
}
