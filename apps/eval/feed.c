#include "apps/eval/feed.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct EvalFeed {
    EvalFeedConfig config;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock: */
    EvalPicture *ready; /* one batch ahead */
    int64_t ready_count;
    bool full, done, stop; /* done: the thread makes no more */
    Error error;
};

void eval_pictures_free(EvalPicture *pictures, int64_t count) {
    for (int64_t i = 0; i < count && pictures; i++) image_free(&pictures[i].image);
    free(pictures);
}

static void picture_read(const EvalFeedConfig *c, const char *name, EvalPicture *p) {
    char path[PATH_MAX];
    Image image;
    if (snprintf(path, sizeof path, "%s/%s", c->folder, name) >= (int)sizeof path) {
        error_set(&p->bad, "%s: too long a path", name);
        return;
    }
    if (image_read(&image, path, NULL, &p->bad)) return;
    p->width = image.width, p->height = image.height;
    if (preprocess_crop(&p->image, &image, &c->preprocess, &p->bad))
        error_context(&p->bad, "%s", name);
    else
        p->bad.text[0] = 0;
    image_free(&image);
}

/* Waits until there is room, puts the pictures there, and says whether to go on. */
static bool feed_put(EvalFeed *f, EvalPicture *pictures, int64_t count) {
    pthread_mutex_lock(&f->lock);
    while (f->full && !f->stop) pthread_cond_wait(&f->changed, &f->lock);
    bool go_on = !f->stop;
    if (go_on) {
        f->ready = pictures, f->ready_count = count, f->full = true;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    if (!go_on) eval_pictures_free(pictures, count);
    return go_on;
}

static bool feed_stopped(EvalFeed *f) {
    pthread_mutex_lock(&f->lock);
    bool stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return stop;
}

static int feed_run(EvalFeed *f, Error *err) {
    const EvalFeedConfig *c = &f->config;
    int64_t first = 0;
    for (int64_t b = 0; b < c->batches; first = c->ends[b++]) {
        int64_t count = c->ends[b] - first;
        EvalPicture *pictures = calloc((size_t)count + 1, sizeof *pictures);
        if (!pictures) return error_set(err, "out of memory for %lld pictures", (long long)count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
        for (int64_t i = 0; i < count; i++)
            if (!feed_stopped(f)) picture_read(c, c->names[first + i], &pictures[i]);
        if (!feed_put(f, pictures, count)) break;
    }
    return 0;
}

static void *feed_thread(void *user) {
    EvalFeed *f = user;
    Error err = {{0}};
    if (feed_run(f, &err) == 0) error_set(&err, "there are no more pictures");
    pthread_mutex_lock(&f->lock);
    f->done = true;
    f->error = err;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

int eval_feed_open(EvalFeed **feed, const EvalFeedConfig *config, Error *err) {
    *feed = NULL;
    EvalFeed *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    if (pthread_create(&f->thread, NULL, feed_thread, f)) {
        eval_feed_close(f);
        return error_set(err, "the system gives no thread to read the pictures");
    }
    f->started = true;
    *feed = f;
    return 0;
}

int eval_feed_next(EvalFeed *f, EvalPicture **pictures, Error *err) {
    *pictures = NULL;
    pthread_mutex_lock(&f->lock);
    while (!f->full && !f->done) pthread_cond_wait(&f->changed, &f->lock);
    int status = 0;
    if (f->full) {
        *pictures = f->ready;
        f->ready = NULL, f->full = false;
        pthread_cond_broadcast(&f->changed);
    } else {
        status = error_set(err, "%s", f->error.text);
    }
    pthread_mutex_unlock(&f->lock);
    return status;
}

void eval_feed_close(EvalFeed *f) {
    if (!f) return;
    if (f->started) {
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    eval_pictures_free(f->ready, f->ready_count);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
