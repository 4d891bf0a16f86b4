/* easyfirst_engine.c - the public library: engines. Jobs are in engine_job.c, their turns in
 * engine_queue.c, and the answering in engine_run.c.
 */
#include <stdlib.h>
#include <string.h>

#include "projector/engine.h"

/* ---- Opening and closing. ---- */

/* 0 is a default. */
static int set_option(int *option, const char *what, int usual, int most, Error *err) {
    if (*option < 0 || *option > most)
        return error_set(err, "%s is %d: expected 0 to %d", what, *option, most);
    if (!*option) *option = usual;
    return 0;
}

static int engine_options(ef_engine_options *o, const ef_engine_options *given, Error *err) {
    *o = ef_engine_options_default();
    TRY(options_take(o, sizeof *o, given, "ef_engine_options_default", err));
    TRY(set_option(&o->batch_tokens, "batch_tokens", 4096, 1 << 20, err));
    TRY(set_option(&o->prefill_tokens, "prefill_tokens", 512, 1 << 20, err));
    TRY(set_option(&o->active, "active", 256, 1 << 16, err));
    TRY(set_option(&o->prefix_tokens, "prefix_tokens", 16384, 1 << 24, err));
    TRY(set_option(&o->queue, "queue", 256, 1 << 20, err));
    TRY(set_option(&o->queue_per_owner, "queue_per_owner", 1 << 20, 1 << 20, err));
    if (!o->image_cache) o->image_cache = (size_t)256 << 20;
    return 0;
}

/* The model's lock is held by others while they compute. */
static void engine_free(ef_engine *e) {
    model_lock(e->model);
    device_use(e->model->device, NULL);
    engine_give(e);
    model_unlock(e->model);
    pthread_cond_destroy(&e->work);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

static int engine_start(ef_engine *e, Error *err) {
    if (!model_lock(e->model))
        return error_set(err, "this model is at work: a step callback cannot use it");
    int status = engine_take(e, err);
    model_unlock(e->model);
    if (status == 0 && pthread_create(&e->thread, NULL, engine_run, e))
        status = error_set(err, "the system gives no thread for an engine");
    return status;
}

int ef_engine_open(ef_model *model, const ef_engine_options *options, ef_engine **engine,
                   ef_error *error) {
    Error *err = error_of(error);
    ef_engine_options o;
    if (!engine) return error_set(err, "ef_engine_open: no place for the engine (NULL)");
    *engine = NULL;
    if (!model) return error_set(err, "ef_engine_open: no model is given (NULL)");
    TRY(engine_options(&o, options, err));
    ef_engine *e = calloc(1, sizeof *e);
    if (!e) return error_set(err, "out of memory for an engine");
    e->model = model, e->options = o;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->work, NULL);
    int status = engine_start(e, err);
    if (status)
        engine_free(e);
    else
        *engine = e;
    return status;
}

void ef_engine_drain(ef_engine *e) {
    if (!e) return;
    Error why;
    ef_job *job;
    error_write(&why, "the engine is closing: it takes no more requests");
    error_mark(&why, ERROR_CLOSED);
    do {
        pthread_mutex_lock(&e->mutex);
        e->closing = true;
        job = queue_take(&e->queue);
        e->counts.failed += job != NULL;
        pthread_cond_broadcast(&e->work);
        pthread_mutex_unlock(&e->mutex);
        if (job) job_end(job, NULL, &why);
    } while (job);
}

void ef_engine_close(ef_engine *e) {
    if (!e) return;
    ef_engine_drain(e);
    pthread_join(e->thread, NULL);
    engine_free(e);
}

/* ---- Submitting. ---- */

/* The mutex is held. */
static int admit(ef_engine *e, ef_job *job, Error *err) {
    if (e->closing)
        return error_set_code(err, ERROR_CLOSED,
                              "the engine is closing: it takes no more requests");
    if (e->queue.count >= e->options.queue)
        return error_set_code(err, ERROR_FULL,
                              "%d requests are waiting, as many as may: try again "
                              "later",
                              e->queue.count);
    int own = queue_count(&e->queue, job->owner);
    if (own >= e->options.queue_per_owner)
        return error_set_code(err, ERROR_FULL,
                              "%d requests of this owner are waiting, as many as "
                              "may: try again later",
                              own);
    return queue_add(&e->queue, job, err);
}

int ef_engine_submit(ef_engine *e, const ef_request *request, const ef_options *options,
                     const char *owner, ef_done_callback on_done, void *user, ef_job **job,
                     ef_error *error) {
    Error *err = error_of(error);
    ef_job *made;
    if (job) *job = NULL;
    if (!e) return error_set(err, "ef_engine_submit: no engine is given (NULL)");
    if (!job && !on_done)
        return error_set(err, "ef_engine_submit: no place for the job (NULL), and no on_done");
    if (!request) return error_set(err, "ef_engine_submit: no request is given (NULL)");
    TRY(job_new(&made, e->model, request, options, owner, err));
    made->on_done = on_done, made->user = user;
    pthread_mutex_lock(&e->mutex);
    int status = admit(e, made, err);
    e->counts.submitted += status == 0;
    e->counts.refused += status != 0;
    if (status == 0 && job) *job = made;
    if (status == 0) pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->mutex);
    if (status) ef_job_close(made);
    if (status || !job) ef_job_close(made);
    return status;
}

void ef_engine_statistics(ef_engine *e, ef_engine_counts *statistics, size_t size) {
    ef_engine_counts counts = {0};
    if (!statistics) return;
    if (e) {
        pthread_mutex_lock(&e->mutex);
        counts = e->counts;
        counts.queued = e->queue.count;
        pthread_mutex_unlock(&e->mutex);
    }
    memcpy(statistics, &counts, size < sizeof counts ? size : sizeof counts);
    if (size > sizeof counts) memset((char *)statistics + sizeof counts, 0, size - sizeof counts);
}
