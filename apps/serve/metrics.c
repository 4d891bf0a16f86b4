#include <stdlib.h>
#include <string.h>

#include "apps/serve/serve.h"

static const int statuses[METRIC_STATUSES] = {200, 204, 400, 401, 403, 404, 405, 411, 413,
                                              415, 421, 422, 429, 499, 500, 503, 504};
static const double buckets[METRIC_BUCKETS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                               0.5,   1,    2.5,   5,    10,  30};

void metrics_init(Metrics *m) {
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->mutex, NULL);
    m->begun = clock_seconds();
}

void metrics_request(Metrics *m, int status, double seconds, bool answering) {
    int i = 0;
    while (i + 1 < METRIC_STATUSES && statuses[i] && statuses[i] != status) i++;
    pthread_mutex_lock(&m->mutex);
    m->requests[i]++; /* those without a place of their own share one */
    if (answering && status == 200) {
        for (int b = 0; b < METRIC_BUCKETS; b++) m->seconds_buckets[b] += seconds <= buckets[b];
        m->seconds_sum += seconds, m->seconds_count++;
    }
    pthread_mutex_unlock(&m->mutex);
}

void metrics_answer(Metrics *m, const ef_answers *answers) {
    pthread_mutex_lock(&m->mutex);
    m->answers++;
    m->prompt_tokens += ef_answer_prompt_tokens(answers, 0);
    m->evaluations += ef_answer_evaluations(answers, 0);
    for (int h = 0; h < ef_answer_hypotheses(answers, 0); h++)
        m->answer_tokens += ef_answer_hypothesis(answers, 0, h)->length;
    pthread_mutex_unlock(&m->mutex);
}

void metrics_add(Metrics *m, int64_t *counter) {
    pthread_mutex_lock(&m->mutex);
    ++*counter;
    pthread_mutex_unlock(&m->mutex);
}

/* ---- Prometheus' text. ---- */

static void put(FILE *out, const char *name, const char *kind, const char *help, double value) {
    fprintf(out, "# HELP easyfirst_%s %s\n# TYPE easyfirst_%s %s\neasyfirst_%s %.15g\n", name, help,
            name, kind, name, value);
}

static size_t resident_bytes(void) {
    unsigned long long all, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%llu %llu", &all, &resident) != 2) resident = 0;
    fclose(file);
    return (size_t)resident * 4096;
}

static void put_requests(FILE *out, const Metrics *m) {
    fputs("# HELP easyfirst_requests_total HTTP requests, by status.\n"
          "# TYPE easyfirst_requests_total counter\n",
          out);
    for (int i = 0; i < METRIC_STATUSES; i++) {
        if (!m->requests[i]) continue;
        if (statuses[i])
            fprintf(out, "easyfirst_requests_total{status=\"%d\"} %lld\n", statuses[i],
                    (long long)m->requests[i]);
        else
            fprintf(out, "easyfirst_requests_total{status=\"other\"} %lld\n",
                    (long long)m->requests[i]);
    }
    fputs("# HELP easyfirst_answer_seconds Time of requests that were answered.\n"
          "# TYPE easyfirst_answer_seconds histogram\n",
          out);
    for (int b = 0; b < METRIC_BUCKETS; b++)
        fprintf(out, "easyfirst_answer_seconds_bucket{le=\"%g\"} %lld\n", buckets[b],
                (long long)m->seconds_buckets[b]);
    fprintf(out,
            "easyfirst_answer_seconds_bucket{le=\"+Inf\"} %lld\n"
            "easyfirst_answer_seconds_sum %.9g\neasyfirst_answer_seconds_count %lld\n",
            (long long)m->seconds_count, m->seconds_sum, (long long)m->seconds_count);
}

static void put_work(FILE *out, const Metrics *m) {
    put(out, "answers_total", "counter", "Requests that were answered.", (double)m->answers);
    put(out, "prompt_tokens_total", "counter", "Tokens of their prompts.",
        (double)m->prompt_tokens);
    put(out, "answer_tokens_total", "counter", "Tokens of all hypotheses.",
        (double)m->answer_tokens);
    put(out, "evaluations_total", "counter", "Evaluations of the network for them.",
        (double)m->evaluations);
    put(out, "timeouts_total", "counter", "Requests that were not answered in time.",
        (double)m->timeouts);
    put(out, "disconnects_total", "counter", "Clients that left before their answer.",
        (double)m->disconnects);
    put(out, "slow_readers_total", "counter", "Replies that were not read in time.",
        (double)m->slow_readers);
    put(out, "reloads_total", "counter", "Models that were reloaded.", (double)m->reloads);
    put(out, "reload_failures_total", "counter", "Models that could not be reloaded.",
        (double)m->reload_failures);
    put(out, "uptime_seconds", "gauge", "Time since the start.", clock_seconds() - m->begun);
    put(out, "resident_memory_bytes", "gauge", "Memory of the process.", (double)resident_bytes());
}

/* Counters that begin again when the model is reloaded. */
static void put_engine(FILE *out, const ef_engine_counts *c) {
    put(out, "jobs_queued", "gauge", "Requests that wait for the engine.", (double)c->queued);
    put(out, "jobs_active", "gauge", "Requests that are being answered.", (double)c->active);
    put(out, "jobs_done_total", "counter", "Jobs that were answered.", (double)c->done);
    put(out, "jobs_failed_total", "counter", "Jobs that failed.", (double)c->failed);
    put(out, "jobs_cancelled_total", "counter", "Jobs that were cancelled.", (double)c->cancelled);
    put(out, "steps_total", "counter", "Steps of the engine.", (double)c->steps);
    put(out, "batches_total", "counter", "Runs of the network.", (double)c->batches);
    put(out, "canvases_total", "counter", "Canvases that were evaluated.", (double)c->canvases);
    put(out, "rows_total", "counter", "Rows that went through the network.", (double)c->rows);
    put(out, "images_encoded_total", "counter", "Images that were encoded.", (double)c->images);
    put(out, "image_cache_hits_total", "counter", "Images that were found in the cache.",
        (double)c->image_hits);
    put(out, "image_cache_bytes", "gauge", "Size of the cache of images.", (double)c->image_bytes);
}

/* Of the engines of all models together. */
static void engines_count(Backends *backends, ef_engine_counts *sum) {
    *sum = (ef_engine_counts){0};
    for (int i = 0; i < backends->count; i++) {
        ef_engine_counts c;
        Backend *b = backend_take(backends, i);
        ef_engine_statistics(b->engine, &c, sizeof c);
        backend_leave(b);
        sum->queued += c.queued, sum->active += c.active, sum->submitted += c.submitted;
        sum->refused += c.refused, sum->done += c.done, sum->failed += c.failed;
        sum->cancelled += c.cancelled, sum->steps += c.steps, sum->batches += c.batches;
        sum->canvases += c.canvases, sum->rows += c.rows, sum->prefix_rows += c.prefix_rows;
        sum->images += c.images, sum->image_hits += c.image_hits;
        sum->image_bytes += c.image_bytes, sum->image_bytes_most += c.image_bytes_most;
    }
}

char *metrics_text(Metrics *m, Backends *backends, int connections, int exchanges, size_t *size) {
    ef_engine_counts counts;
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out) return NULL;
    engines_count(backends, &counts);
    put(out, "connections", "gauge", "Open connections.", connections);
    put(out, "requests_open", "gauge", "Requests that are not replied to yet.", exchanges);
    put_engine(out, &counts);
    pthread_mutex_lock(&m->mutex);
    put_requests(out, m);
    put_work(out, m);
    pthread_mutex_unlock(&m->mutex);
    bool failed = ferror(out);
    if (fclose(out) || failed) free(text), text = NULL;
    return text;
}
