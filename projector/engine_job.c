#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "projector/engine.h"

static void job_free(ef_job *job) {
    ef_answers_close(job->answers);
    ef_image_close((ef_image *)job->image);
    prompts_free(&job->prompts);
    if (job->answer) {
        answer_template_free(job->answer->template);
        free(job->answer->text), free(job->answer->error);
    }
    free(job->answer), free(job->owner), free(job->teller.tokens);
    pthread_cond_destroy(&job->ending);
    pthread_mutex_destroy(&job->mutex);
    free(job);
}

static void job_drop(ef_job *job) {
    if (__atomic_sub_fetch(&job->users, 1, __ATOMIC_ACQ_REL) == 0) job_free(job);
}

static void condition_open(pthread_cond_t *condition) {
    pthread_condattr_t monotonic; /* not the clock that people set */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* Of size and pixels: two images with one hash are the same. */
static int hash_image(uint8_t hash[IMAGE_HASH], const ef_image *image, Error *err) {
    const Image *p = &image->image;
    const int size[] = {p->width, p->height};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool hashed = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
                  EVP_DigestUpdate(context, size, sizeof size) &&
                  EVP_DigestUpdate(context, p->pixels, (size_t)p->width * (size_t)p->height * 3) &&
                  EVP_DigestFinal_ex(context, hash, NULL);
    EVP_MD_CTX_free(context);
    return hashed ? 0 : error_set(err, "an image's SHA-256 cannot be computed");
}

/* The ids of the prompt; fails where there can be no answer. */
static int job_encode(ef_job *job, const ef_model *model, const ef_request *request, Error *err) {
    char *prompt;
    RecordTurn *turns;
    TRY(request_word(model, request, &prompt, err));
    AnswerRequest r = request_of(request, prompt, request->image ? 0 : -1);
    int status = request_turns(model, request, &turns, err);
    request_set_turns(&r, request, turns);
    job->length = answer_given_length(&model->model.parts, &r);
    if (status == 0)
        status = prompts_encode(&job->prompts, &model->model.parts, &r, 1, 1, job->how.long_prompts,
                                job->answer, err);
    request_turns_free(turns, request->turn_count);
    free(prompt);
    if (status == 0 && job->answer->error)
        status = error_set_code(err, (ErrorCode)job->answer->code, "%s", job->answer->error);
    return status;
}

static int check_choices(const ef_request *r, Error *err) {
    if (r->choices || r->choice_count)
        return error_set(err,
                         "an engine denoises answers: ask ef_answer or ef_choose for a choice");
    return 0;
}

static int check_options(const ef_options *o, Error *err) {
    if (o->batch_tokens || o->no_kv_cache)
        return error_set(err, "batch_tokens and no_kv_cache are an engine's, not of its requests");
    if (o->prefix_cache) return error_set(err, "an engine has no prefix_cache: ef_answer takes it");
    if (o->cancellation)
        return error_set(err, "an engine's requests are cancelled by ef_job_cancel: expected NULL");
    return 0;
}

static int job_fill(ef_job *job, const ef_model *model, const ef_request *request,
                    const ef_options *options, const char *owner, Error *err) {
    ef_options o;
    TRY(answer_options_take(&o, &job->how, options, err));
    TRY(check_options(&o, err));
    TRY(check_choices(request, err));
    job->task = request->task;
    job->teller =
        (StepTeller){.tokenizer = model->model.tokenizer, .on_step = o.on_step, .user = o.user};
    job->answer = calloc(1, sizeof *job->answer);
    job->owner = strdup(owner ? owner : "");
    if (!job->answer || !job->owner) return error_set(err, "out of memory for a request");
    TRY(job_encode(job, model, request, err));
    bool tried = job->answer->template ? job->answer->template->open_gaps > 0 : job->length <= 0;
    int samples = job->how.samples > 0 ? job->how.samples : 1;
    job->beam = (tried ? answer_beam(&job->how, job->answer->template != NULL) : 1) * samples;
    if (request->image) TRY(hash_image(job->hash, request->image, err));
    job->image = image_share(request->image);
    return 0;
}

int job_new(ef_job **out, const ef_model *model, const ef_request *request,
            const ef_options *options, const char *owner, Error *err) {
    *out = NULL;
    ef_job *job = calloc(1, sizeof *job);
    if (!job) return error_set(err, "out of memory for a request");
    pthread_mutex_init(&job->mutex, NULL);
    condition_open(&job->ending);
    job->users = 2;
    if (job_fill(job, model, request, options, owner, err)) {
        job_free(job);
        return -1;
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
