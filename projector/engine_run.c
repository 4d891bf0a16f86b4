#include <stdlib.h>

#include "projector/engine.h"

/* Answers one job by itself. */
static int job_answer(ef_engine *e, ef_job *job, ef_answers **answers, Error *why) {
    ef_cancellation cancellation = {0};
    ef_options options = job->options;
    cancellation.cancelled = job_cancelled(job);
    options.cancellation = &cancellation;
    *answers = NULL;
    TRY(ef_answer(e->model, &job->request, 1, &options, answers, (ef_error *)why));
    const char *error = ef_answer_error(*answers, 0);
    if (!error) return 0;
    error_write(why, "%s", error);
    error_mark(why, (ErrorCode)ef_answer_code(*answers, 0));
    ef_answers_close(*answers);
    *answers = NULL;
    return -1;
}

static void count_work(ef_engine_counts *c, const ef_answers *answers) {
    const ef_work *w = ef_answers_work(answers);
    if (!w) return;
    c->batches += w->forwards, c->canvases += w->canvases, c->rows += w->rows;
    c->prefix_rows += w->prefix_rows, c->images += w->images, c->steps += w->steps;
}

static void count_end(ef_engine *e, const ef_answers *answers, const Error *why) {
    pthread_mutex_lock(&e->mutex);
    e->counts.active--;
    e->counts.done += answers != NULL;
    e->counts.cancelled += !answers && why->code == (int)ERROR_CANCELLED;
    e->counts.failed += !answers && why->code != (int)ERROR_CANCELLED;
    count_work(&e->counts, answers);
    pthread_mutex_unlock(&e->mutex);
}

void *engine_run(void *engine) {
    ef_engine *e = engine;
    for (;;) {
        Error why;
        ef_answers *answers;
        pthread_mutex_lock(&e->mutex);
        while (!e->queue.count && !e->closing) pthread_cond_wait(&e->work, &e->mutex);
        ef_job *job = queue_take(&e->queue);
        e->counts.active += job != NULL;
        pthread_mutex_unlock(&e->mutex);
        if (!job) return NULL;
        job_answer(e, job, &answers, &why);
        count_end(e, answers, &why);
        job_end(job, answers, &why);
    }
}
