#include "apps/ahead.h"

#include <pthread.h>
#include <stdlib.h>

struct Ahead {
    AheadConfig config;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock: */
    void *ready;
    bool done, stop; /* done: the thread makes no more; stop: nobody takes more */
    Error error;     /* why it makes no more */
};

static void *ahead_thread(void *user) {
    Ahead *a = user;
    Error err = {{0}};
    if (a->config.make(a->config.user, a, &err) == 0)
        error_set(&err, "there are no more %s", a->config.what);
    pthread_mutex_lock(&a->lock);
    a->done = true;
    a->error = err;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int ahead_open(Ahead **ahead, const AheadConfig *config, Error *err) {
    *ahead = NULL;
    Ahead *a = calloc(1, sizeof *a);
    if (!a) return error_set(err, "out of memory");
    a->config = *config;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    if (pthread_create(&a->thread, NULL, ahead_thread, a)) {
        ahead_close(a);
        return error_set(err, "the system gives no thread to make %s", config->what);
    }
    a->started = true;
    *ahead = a;
    return 0;
}

void ahead_close(Ahead *a) {
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

int ahead_next(Ahead *a, void **thing, Error *err) {
    pthread_mutex_lock(&a->lock);
    while (!a->ready && !a->done) pthread_cond_wait(&a->changed, &a->lock);
    *thing = a->ready;
    a->ready = NULL;
    int status = *thing ? 0 : error_set(err, "%s", a->error.text);
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return status;
}

bool ahead_put(Ahead *a, void *thing) {
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

bool ahead_stopped(Ahead *a) {
    pthread_mutex_lock(&a->lock);
    const bool stop = a->stop;
    pthread_mutex_unlock(&a->lock);
    return stop;
}
