#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "projector/engine.h"

static void job_free(ef_job *job) {
    ef_answers_close(job->answers);
    ef_image_close((ef_image *)job->request.image);
    free((char *)job->request.text), free((char *)job->request.from);
    free((char *)job->request.to), free((char *)job->options.strategy), free(job->owner);
    free((char *)job->request.answer_template);
    pthread_cond_destroy(&job->ending);
    pthread_mutex_destroy(&job->mutex);
    free(job);
}

static void job_drop(ef_job *job) {
    if (__atomic_sub_fetch(&job->users, 1, __ATOMIC_ACQ_REL) == 0) job_free(job);
}

/* A copy of a text, which may be NULL; false without memory. */
static bool copy_text(const char **to, const char *from) {
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

static void condition_open(pthread_cond_t *condition) {
    pthread_condattr_t monotonic; /* not the clock that people set */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int job_new(ef_job **out, const ef_request *request, const ef_options *options, const char *owner,
            Error *err) {
    ef_job *job = calloc(1, sizeof *job);
    if (!job) return error_set(err, "out of memory for a request");
    pthread_mutex_init(&job->mutex, NULL);
    condition_open(&job->ending);
    job->users = 2;
    job->request = *request, job->options = *options;
    job->request.image = image_share(request->image);
    bool copied = copy_text(&job->request.text, request->text);
    copied &= copy_text(&job->request.from, request->from);
    copied &= copy_text(&job->request.to, request->to);
    copied &= copy_text(&job->request.answer_template, request->answer_template);
    copied &= copy_text(&job->options.strategy, options->strategy);
    copied &= copy_text((const char **)&job->owner, owner ? owner : "");
    if (!copied) {
        job_free(job);
        return error_set(err, "out of memory for a request");
    }
    *out = job;
    return 0;
}

void job_end(ef_job *job, ef_answers *answers, const Error *why) {
    pthread_mutex_lock(&job->mutex);
    job->answers = answers;
    if (!answers) job->why = *why;
    job->ended = true;
    pthread_cond_broadcast(&job->ending);
    pthread_mutex_unlock(&job->mutex);
    if (job->on_done) job->on_done(job->user, job);
    job_drop(job);
}

bool job_cancelled(const ef_job *job) {
    return __atomic_load_n(&job->cancelled, __ATOMIC_RELAXED);
}

/* ---- The public functions. ---- */

static struct timespec time_after(double seconds) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (!(seconds < 1e9)) seconds = 1e9;
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    return t;
}

/* The mutex is held. */
static void wait_for_end(ef_job *job, double seconds) {
    if (seconds < 0)
        while (!job->ended) pthread_cond_wait(&job->ending, &job->mutex);
    const struct timespec until = time_after(seconds);
    while (!job->ended && seconds > 0)
        if (pthread_cond_timedwait(&job->ending, &job->mutex, &until) == ETIMEDOUT) return;
}

/* The result of a job that has ended; the mutex is held. */
static int take_result(ef_job *job, ef_answers **answers, Error *err) {
    if (job->why.code) return error_set_code(err, (ErrorCode)job->why.code, "%s", job->why.text);
    if (!answers) return 0;
    if (job->taken) return error_set(err, "the answers of this job were handed over before");
    job->taken = true;
    *answers = job->answers, job->answers = NULL;
    return 0;
}

int ef_job_wait(ef_job *job, double seconds, ef_answers **answers, ef_error *error) {
    Error *err = error_of(error);
    if (answers) *answers = NULL;
    if (!job) return error_set(err, "ef_job_wait: no job is given (NULL)");
    pthread_mutex_lock(&job->mutex);
    wait_for_end(job, seconds);
    int status = job->ended ? take_result(job, answers, err)
                            : error_set_code(err, ERROR_TIMEOUT,
                                             "the request was not answered within %g s; wait "
                                             "longer, or cancel it",
                                             seconds);
    pthread_mutex_unlock(&job->mutex);
    return status;
}

int ef_job_ended(const ef_job *job) {
    if (!job) return 1;
    pthread_mutex_lock((pthread_mutex_t *)&job->mutex);
    bool ended = job->ended;
    pthread_mutex_unlock((pthread_mutex_t *)&job->mutex);
    return ended;
}

void ef_job_cancel(ef_job *job) {
    if (job) __atomic_store_n(&job->cancelled, 1, __ATOMIC_RELAXED);
}

void ef_job_close(ef_job *job) {
    if (job) job_drop(job);
}
