#include "projector/engine.h"

static void cancelled(Error *why) {
    error_write(why, "cancelled");
    error_mark(why, ERROR_CANCELLED);
}

/* ---- A step of all works. ---- */

/* What is to be evaluated of works whose rows are kept, or of the others: first what is not drawn,
 * all of which shares the vocabulary's part. */
static int collect_batches(ef_engine *e, bool kept) {
    int n = 0;
    for (int drawn = 0; drawn < 2; drawn++)
        for (int i = 0; i < e->work_count; i++) {
            Work *w = e->works[i];
            if (w->ended || w->kept != kept || (w->job->how.decode.temperature > 0) != drawn)
                continue;
            w->batch = decoder_begin(w->decoder);
            if (w->batch.count) e->batches[n++] = w->batch;
        }
    return n;
}

static void engine_step(ef_engine *e) {
    Error why;
    for (int i = 0; i < e->work_count; i++)
        if (job_cancelled(e->works[i]->job)) cancelled(&why), work_fail(e->works[i], &why);
    int status = infill_evaluate_all(e->infill, e->batches, collect_batches(e, false), &why);
    if (status == 0 && e->causal)
        status = infill_causal_evaluate_all(e->causal, e->batches, collect_batches(e, true), &why);
    for (int i = 0; i < e->work_count; i++) {
        Work *w = e->works[i];
        Error own;
        if (w->ended) continue;
        if (status)
            work_fail(w, &why);
        else if (decoder_finish(w->decoder, &own))
            work_fail(w, &own);
        else if (decoder_done(w->decoder))
            work_complete(e, w);
    }
}

/* ---- Ends. ---- */

static void count_end(ef_engine_counts *c, bool answered, const Error *why) {
    bool was_cancelled = !answered && why->code == (int)ERROR_CANCELLED;
    c->done += answered;
    c->cancelled += was_cancelled;
    c->failed += !answered && !was_cancelled;
}

static void count_step(ef_engine *e) {
    const InfillCounts did = infill_counts(e->infill);
    ef_engine_counts *c = &e->counts;
    pthread_mutex_lock(&e->mutex);
    c->steps += e->work_count > 0;
    c->batches = did.forwards, c->canvases = did.canvases, c->rows = did.rows;
    c->prefix_rows = did.prefix_rows;
    c->images = e->images.encodings, c->image_hits = e->images.hits;
    c->image_bytes = images_bytes(&e->images);
    c->image_bytes_most = e->images.count ? tensor_bytes(e->images.tokens) : 0;
    pthread_mutex_unlock(&e->mutex);
}

/* Takes out a work that has ended; NULL if there is none. */
static Work *take_ended(ef_engine *e) {
    for (int i = 0; i < e->work_count; i++) {
        Work *w = e->works[i];
        if (!w->ended) continue;
        for (int k = i + 1; k < e->work_count; k++) e->works[k - 1] = e->works[k];
        e->work_count--;
        return w;
    }
    return NULL;
}

/* Nothing is locked: callbacks may do what they want. */
static void end_works(ef_engine *e) {
    Work *w;
    while ((w = take_ended(e))) {
        ef_job *job = w->job;
        ef_answers *result = w->result;
        const Error why = w->why;
        work_release(e, w);
        pthread_mutex_lock(&e->mutex);
        e->counts.active--;
        count_end(&e->counts, result != NULL, &why);
        pthread_mutex_unlock(&e->mutex);
        job_end(job, result, &why);
    }
}

/* Those that were cancelled while they waited. */
static void end_cancelled(ef_engine *e) {
    ef_job *job;
    Error why;
    cancelled(&why);
    do {
        pthread_mutex_lock(&e->mutex);
        job = queue_take_cancelled(&e->queue);
        e->counts.cancelled += job != NULL;
        pthread_mutex_unlock(&e->mutex);
        if (job) job_end(job, NULL, &why);
    } while (job);
}

/* The device cannot be used: nothing can be answered. */
static void fail_all(ef_engine *e, const Error *why) {
    for (int i = 0; i < e->work_count; i++) work_fail(e->works[i], why);
    pthread_mutex_lock(&e->mutex);
    ef_job *job = queue_take(&e->queue);
    e->counts.failed += job != NULL;
    pthread_mutex_unlock(&e->mutex);
    if (job) job_end(job, NULL, why);
}

/* ---- The thread. ---- */

/* Waits for something to do; false: the engine is closing, and there is nothing left. */
static bool wait_for_work(ef_engine *e) {
    pthread_mutex_lock(&e->mutex);
    while (!e->work_count && !e->queue.count && !e->closing) pthread_cond_wait(&e->work, &e->mutex);
    bool more = e->work_count || e->queue.count;
    pthread_mutex_unlock(&e->mutex);
    return more;
}

void *engine_run(void *engine) {
    ef_engine *e = engine;
    while (wait_for_work(e)) {
        Error why;
        end_cancelled(e);
        model_lock(e->model);
        int status = device_use(e->model->device, &why);
        if (status == 0) {
            engine_admit(e);
            engine_step(e);
        }
        model_unlock(e->model);
        if (status) fail_all(e, &why);
        count_step(e);
        end_works(e);
    }
    return NULL;
}
