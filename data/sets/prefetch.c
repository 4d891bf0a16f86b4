#include "data/sets/prefetch.h"

#include <pthread.h>
#include <stdlib.h>

struct Prefetch {
    PrefetchConfig config;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock: */
    void *ready;
    bool done, stop; /* done: the thread has finished; stop: the consumer has stopped */
    Error error;     /* why the thread stopped */
};

static void *prefetch_thread(void *user) {
    Prefetch *a = user;
    Error err = {{0}};
    if (a->config.make(a->config.user, a, &err) == 0) error_set(&err, "no more %s", a->config.what);
    pthread_mutex_lock(&a->lock);
    a->done = true;
    a->error = err;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int prefetch_open(Prefetch **prefetch, const PrefetchConfig *config, Error *err) {
    *prefetch = NULL;
    Prefetch *a = calloc(1, sizeof *a);
    if (!a) return error_set(err, "out of memory");
    a->config = *config;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    if (pthread_create(&a->thread, NULL, prefetch_thread, a)) {
        prefetch_close(a);
        return error_set(err, "cannot start a thread to make %s", config->what);
    }
    a->started = true;
    *prefetch = a;
    return 0;
}

void prefetch_close(Prefetch *a) {
    if (!a) return;
    if (a->started) {
        pthread_mutex_lock(&a->lock);
        a->stop = true;
        pthread_cond_broadcast(&a->changed);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
    }
    if (a->ready) a->config.drop(a->ready);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

int prefetch_next(Prefetch *a, void **thing, Error *err) {
    pthread_mutex_lock(&a->lock);
    while (!a->ready && !a->done) pthread_cond_wait(&a->changed, &a->lock);
    *thing = a->ready;
    a->ready = NULL;
    int status = *thing ? 0 : error_set(err, "%s", a->error.text);
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return status;
}

bool prefetch_put(Prefetch *a, void *thing) {
    pthread_mutex_lock(&a->lock);
    while (a->ready && !a->stop) pthread_cond_wait(&a->changed, &a->lock);
    const bool go_on = !a->stop;
    if (go_on) {
        a->ready = thing;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    if (!go_on) a->config.drop(thing);
    return go_on;
}

bool prefetch_stopped(Prefetch *a) {
    pthread_mutex_lock(&a->lock);
    const bool stop = a->stop;
    pthread_mutex_unlock(&a->lock);
    return stop;
}
