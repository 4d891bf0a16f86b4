#include "apps/serve/http.h"

enum { WORKERS = 2 };

void work_add_exchange(Server *server, Exchange *e) {
    Work *w = &server->work;
    exchange_take(e);
    pthread_mutex_lock(&w->mutex);
    e->next_work = NULL;
    if (w->last)
        w->last->next_work = e;
    else
        w->first = e;
    w->last = e;
    pthread_cond_signal(&w->ready);
    pthread_mutex_unlock(&w->mutex);
}

static void *work_run(void *user) {
    Work *w = user;
    pthread_mutex_lock(&w->mutex);
    while (!w->end || w->first) {
        Exchange *e = w->first;
        if (!e) {
            pthread_cond_wait(&w->ready, &w->mutex);
            continue;
        }
        w->first = e->next_work;
        if (!w->first) w->last = NULL;
        pthread_mutex_unlock(&w->mutex);
        api_answer(e);
        exchange_leave(e);
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

int work_start(Server *server, Error *err) {
    Work *w = &server->work;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->ready, NULL);
    for (; w->thread_count < WORKERS; w->thread_count++)
        if (pthread_create(&w->threads[w->thread_count], NULL, work_run, w))
            return error_set(err, "no more threads can be started: too many are running");
    return 0;
}

void work_stop(Server *server) {
    Work *w = &server->work;
    pthread_mutex_lock(&w->mutex);
    w->end = true;
    pthread_cond_broadcast(&w->ready);
    pthread_mutex_unlock(&w->mutex);
    while (w->thread_count) pthread_join(w->threads[--w->thread_count], NULL);
}
